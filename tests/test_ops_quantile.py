"""Quantile regression by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.ops.quantile import lowest_weights, midpoints, quantile_huber

QUANTILES = np.array([[0.0, 1.0]], np.float32)
TARGET = np.array([[0.5, 3.0, -1.0]], np.float32)
FRACTIONS = np.array([0.25, 0.75], np.float32)
# Errors target - quantile and Huber's loss of them, kappa 1:
#   quantile 0: 0.5, 3, -1   -> 0.125, 2.5, 0.5   weights 0.25, 0.25, 0.75
#   quantile 1: -0.5, 2, -2  -> 0.125, 1.5, 1.5   weights 0.25, 0.75, 0.25
BY_HAND = (0.25 * 0.125 + 0.25 * 2.5 + 0.75 * 0.5) / 3 + (0.25 * 0.125 + 0.75 * 1.5 + 0.25 * 1.5) / 3


def test_midpoints_are_the_middles_of_equal_parts():
    np.testing.assert_allclose(midpoints(4), [0.125, 0.375, 0.625, 0.875])


def test_the_loss_is_a_sum_over_quantiles_of_means_over_targets():
    assert quantile_huber(QUANTILES, TARGET, FRACTIONS)[0] == pytest.approx(BY_HAND)


def test_each_sample_may_have_fractions_of_its_own():
    other = np.array([0.5, 0.5], np.float32)
    both = quantile_huber(np.repeat(QUANTILES, 2, axis=0), np.repeat(TARGET, 2, axis=0), np.stack([FRACTIONS, other]))
    halves = 0.5 * (0.125 + 2.5 + 0.5) / 3 + 0.5 * (0.125 + 1.5 + 1.5) / 3
    np.testing.assert_allclose(both, [BY_HAND, halves], rtol=1e-6)


def test_kappa_is_where_squares_end_and_does_not_scale_large_errors():
    # Errors of 10 and -10 from one quantile at 0.25: 10 (1 - kappa / 20) each.
    target = np.array([[10.0, -10.0]], np.float32)
    for kappa in (0.01, 1.0, 2.0):
        found = quantile_huber(np.zeros((1, 1), np.float32), target, np.array([0.25], np.float32), kappa)
        assert found[0] == pytest.approx((0.25 + 0.75) / 2 * (10 - kappa / 2), rel=1e-5), kappa


def test_jitted_and_mapped_it_is_the_same():
    rows = (np.stack([QUANTILES, QUANTILES + 1]), np.stack([TARGET, TARGET + 1]))
    mapped = jax.jit(jax.vmap(quantile_huber, in_axes=(0, 0, None)))(*rows, FRACTIONS)
    np.testing.assert_allclose(mapped, [[BY_HAND]] * 2, rtol=1e-6)


def test_its_slope_is_that_of_the_loss_and_goes_to_the_quantiles_alone():
    def loss(quantiles, target):
        return quantile_huber(quantiles, target, FRACTIONS)[0]

    slope, none = jax.jit(jax.grad(loss, argnums=(0, 1)))(jnp.asarray(QUANTILES), jnp.asarray(TARGET))
    # Minus weight times the error, held within 1: 0.5, 1, -1 and -0.5, 1, -1.
    by_hand = [-(0.25 * 0.5 + 0.25 * 1 - 0.75 * 1) / 3, -(-0.25 * 0.5 + 0.75 * 1 - 0.25 * 1) / 3]
    np.testing.assert_allclose(slope, [by_hand], rtol=1e-6)
    assert not none.any()
    for i in range(2):
        step = np.eye(2, dtype=np.float32)[i] * 1e-3
        measured = (loss(QUANTILES + step, TARGET) - loss(QUANTILES - step, TARGET)) / 2e-3
        assert measured == pytest.approx(by_hand[i], abs=1e-3)


def test_weights_make_the_mean_over_targets():
    weight = np.array([[0.5, 0.0, 0.5]], np.float32)
    left = quantile_huber(QUANTILES, TARGET[:, [0, 2]], FRACTIONS)
    np.testing.assert_allclose(quantile_huber(QUANTILES, TARGET, FRACTIONS, weight=weight), left, rtol=1e-6)


def test_the_smallest_share_the_weight_and_of_equals_the_first_ones():
    values = np.array([[3.0, 1.0, 2.0, 5.0], [1.0, 1.0, 1.0, 0.0], [np.inf, -1.0, np.inf, np.inf]], np.float32)
    found = jax.jit(lowest_weights, static_argnums=1)(values, 2)
    np.testing.assert_array_equal(found, [[0, 0.5, 0.5, 0], [0.5, 0, 0, 0.5], [0.5, 0.5, 0, 0]])
    np.testing.assert_array_equal(lowest_weights(values, 4), np.full((3, 4), 0.25))


def test_its_minimum_is_at_the_quantiles():
    """Gradient descent on the targets 0, 1, ..., 9 ends within one of them of the quantile at each fraction."""
    target, fractions = jnp.arange(10.0)[None], midpoints(5)

    def descend(quantiles, _):
        gradient = jax.grad(lambda q: quantile_huber(q, target, fractions, 0.01)[0])(quantiles)
        return quantiles - 0.05 * gradient, None

    quantiles, _ = jax.lax.scan(descend, jnp.zeros((1, 5)), None, length=4000)
    np.testing.assert_allclose(quantiles[0], [0.5, 2.5, 4.5, 6.5, 8.5], atol=0.55)
