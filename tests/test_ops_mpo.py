"""The parts of MPO, against numbers worked out by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.ops.mpo import candidate_weights, multiplier_dual, temperature_dual

VALUES = np.log(np.float32([[1.0, 9.0], [4.0, 1.0]]))  # of two candidates of two states
EVEN = np.log(np.full((2, 2), 0.5, np.float32))


@pytest.mark.parametrize(
    ("prior", "temperature", "expected"),
    [
        (EVEN, 1.0, [[0.2, 0.9], [0.8, 0.1]]),
        (EVEN, 0.5, [[1 / 17, 81 / 82], [16 / 17, 1 / 82]]),
        (np.log(np.float32([[0.8, 0.1], [0.2, 0.9]])), 1.0, [[0.5, 0.5], [0.5, 0.5]]),
    ],
)
def test_candidates_weigh_as_much_as_their_prior_times_the_exponential_of_their_value(prior, temperature, expected):
    np.testing.assert_allclose(jax.jit(candidate_weights)(VALUES, prior, temperature), expected, rtol=1e-5)


def test_the_temperatures_dual_is_the_papers():
    """Each state's log of the mean of exp(Q / eta): log 2.5 and log 5 at a temperature of 1."""
    dual = jax.jit(temperature_dual)
    assert float(dual(VALUES, EVEN, 1.0, 0.1)) == pytest.approx(0.1 + np.log([2.5, 5.0]).mean(), rel=1e-5)
    assert float(dual(VALUES, EVEN, 0.5, 0.1)) == pytest.approx(0.5 * (0.1 + np.log([8.5, 41.0]).mean()), rel=1e-5)


def test_it_is_smallest_where_the_weights_are_epsilon_away_from_the_prior():
    temperature = 0.7
    weight = np.asarray(candidate_weights(VALUES, EVEN, temperature))
    away = (weight * (np.log(weight) - EVEN)).sum(axis=0).mean()
    slope = jax.jit(jax.grad(temperature_dual, argnums=2))
    assert float(slope(VALUES, EVEN, temperature, away)) == pytest.approx(0.0, abs=1e-5)
    assert float(slope(VALUES, EVEN, temperature, 2 * away)) > 0, "to be further away it has to be colder"


def test_a_multiplier_rises_where_its_divergence_is_too_large():
    divergence, limit = jnp.array([0.3, 0.1]), jnp.array([0.2, 0.2])
    dual = jax.jit(jax.value_and_grad(multiplier_dual, argnums=(0, 1)))
    value, (of_divergence, of_multiplier) = dual(divergence, jnp.array([2.0, 5.0]), limit)
    assert float(value) == pytest.approx(2.0 * -0.1 + 5.0 * 0.1)
    np.testing.assert_allclose(of_multiplier, [-0.1, 0.1], rtol=1e-5)
    np.testing.assert_array_equal(of_divergence, [0.0, 0.0])
