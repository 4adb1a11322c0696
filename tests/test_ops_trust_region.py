"""Natural steps and line searches on quadratics whose answers are known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.ops.trust_region import line_search, natural_step

FISHER = np.array([[2.0, 1.0], [1.0, 5.0]], np.float32)
START = np.array([1.0, -1.0], np.float32)


def kl(vector):
    """Of quadratic form, with a cubic term that its Hessian at the start does not have."""
    away = vector - START
    return 0.5 * away @ FISHER @ away + 7.0 * away[0] ** 3


@pytest.mark.parametrize("damping", [0.0, 3.0])
def test_a_natural_step_is_the_inverse_of_the_hessian_times_the_gradient_at_the_bound(damping):
    gradient = np.array([3.0, -2.0], np.float32)
    step = jax.jit(lambda gradient: natural_step(kl, START, gradient, 0.02, damping, 2))(gradient)
    hessian = FISHER + damping * np.eye(2)
    direction = np.linalg.solve(hessian, gradient)
    np.testing.assert_allclose(step, np.sqrt(0.04 / (direction @ hessian @ direction)) * direction, rtol=1e-4)
    assert 0.5 * step @ hessian @ step == pytest.approx(0.02, rel=1e-4)


def test_one_iteration_goes_along_the_gradient_and_none_is_lost_on_a_gradient_of_zero():
    gradient = np.array([3.0, -2.0], np.float32)
    step = natural_step(kl, START, gradient, 0.02, 0.0, 1)
    np.testing.assert_allclose(step / step[0], gradient / gradient[0], rtol=1e-5)
    np.testing.assert_array_equal(natural_step(kl, START, np.zeros(2, np.float32), 0.02, 0.0, 2), [0, 0])


def search(objective, bound, attempts=4, step=8.0):
    """From 0 with steps of 8, 4, 2, 1: the divergence is the squared distance."""
    measure = jax.jit(lambda vector: (objective(vector[0]), vector[0] ** 2))
    return line_search(measure, jnp.zeros(1), jnp.array([step]), bound, 0.5, attempts)


def test_the_first_attempt_within_the_bound_that_gains_is_taken():
    vector, found = search(lambda x: 3.0 * x, bound=20.0)
    assert (vector[0], found.fraction, found.attempts) == (4.0, 0.5, 2), "8 is too far, 4 is not"
    assert (found.gain, found.kl) == (12.0, 16.0)
    # Within the bound at once, but what is gained on the way is lost at 8 and at 4: 10 x - x^3.
    vector, found = search(lambda x: 5.0 + 10.0 * x - x**3, bound=100.0)
    assert (vector[0], found.fraction, found.attempts) == (2.0, 0.25, 3)
    assert found.gain == pytest.approx(12.0)


@pytest.mark.parametrize("objective", [lambda x: -x, lambda x: 0.0 * x, lambda x: x * jnp.nan])
def test_nothing_moves_where_no_attempt_gains(objective):
    vector, found = search(objective, bound=100.0)
    assert (vector[0], found.fraction, found.gain, found.kl, found.attempts) == (0.0, 0.0, 0.0, 0.0, 4)


def test_nothing_moves_where_the_step_is_not_a_number_or_attempts_run_out():
    assert search(lambda x: x, bound=100.0, step=jnp.nan)[0] == 0.0
    assert search(lambda x: x, bound=0.5)[0] == 0.0, "the fourth attempt, 1, is still too far"
    assert search(lambda x: x, bound=0.5, attempts=5)[0] == 0.5
