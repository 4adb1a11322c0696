"""Symlog and two-hot encoding, against numbers worked out by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.ops.two_hot import bins, symexp, symlog, two_hot, two_hot_loss, two_hot_mean

E = np.e


@pytest.mark.parametrize(("x", "expected"), [(0.0, 0.0), (E - 1, 1.0), (-(E**2 - 1), -2.0), (0.001, 0.0009995)])
def test_symlog_is_the_logarithm_of_one_more_with_the_numbers_sign(x, expected):
    assert float(jax.jit(symlog)(x)) == pytest.approx(expected, rel=1e-5)


def test_symexp_undoes_it():
    x = np.float32([-1e6, -3.0, -0.01, 0.0, 0.5, 7.0, 1e6])
    np.testing.assert_allclose(jax.jit(lambda x: symexp(symlog(x)))(x), x, rtol=1e-5)


def test_bins_stand_at_equal_distances():
    np.testing.assert_allclose(bins(5), [-20, -10, 0, 10, 20])


@pytest.mark.parametrize(
    ("squashed", "expected"),
    [
        (0.0, [0, 0, 1, 0, 0]),
        (2.5, [0, 0, 0.75, 0.25, 0]),
        (-14.0, [0.4, 0.6, 0, 0, 0]),
        (10.0, [0, 0, 0, 1, 0]),
        (25.0, [0, 0, 0, 0, 1]),
        (-25.0, [1, 0, 0, 0, 0]),
    ],
)
def test_the_two_bins_next_to_a_number_share_the_weight_by_their_distances(squashed, expected):
    x = np.float64(np.sign(squashed) * np.expm1(abs(squashed))).astype(np.float32)
    np.testing.assert_allclose(jax.jit(two_hot, static_argnums=1)(x, 5), expected, atol=1e-5)


def test_a_distribution_stands_for_symexp_of_its_mean():
    """Probabilities 1/2, 1/4 and 1/4 of the bins at 0, 10 and -10 (3 bins: -20, 0, 20 would be 5 apart)."""
    logits = jnp.log(jnp.array([1e-12, 0.25, 0.5, 0.25, 1e-12]))
    assert float(two_hot_mean(logits)) == pytest.approx(0.0, abs=1e-5)
    logits = jnp.log(jnp.array([[1e-12, 1e-12, 0.9, 0.1, 1e-12]]))
    np.testing.assert_allclose(jax.jit(two_hot_mean)(logits), [E - 1], rtol=1e-4)


@pytest.mark.parametrize("x", [-300.0, -0.2, 0.0, 1.0, 499.0])
def test_an_encoded_number_is_read_back(x):
    weights = two_hot(jnp.float32(x), 41)
    assert float(two_hot_mean(jnp.log(weights + 1e-12))) == pytest.approx(x, rel=1e-4, abs=1e-5)


def test_the_loss_is_the_cross_entropy():
    """With weights 3/4 and 1/4 of bins that have the probabilities 1/2 and 1/8."""
    logits = jnp.log(jnp.array([[0.125, 0.125, 0.5, 0.125, 0.125]]))
    loss, slope = jax.jit(jax.value_and_grad(lambda logits, x: two_hot_loss(logits, x)[0]))(
        logits, symexp(jnp.array([2.5]))
    )
    assert float(loss) == pytest.approx(0.75 * np.log(2) + 0.25 * np.log(8), rel=1e-5)
    np.testing.assert_allclose(slope, [[0.125, 0.125, -0.25, -0.125, 0.125]], atol=1e-5)
