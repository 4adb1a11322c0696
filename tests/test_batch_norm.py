"""Batch normalisation by hand: moments of the batch, running moments, and renormalisation within its limits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.models.batch_norm import EPSILON, BatchNormMLP, Moments, batch_standardized
from athlete.ops.random import wrap
from athlete.spaces import Box

KEY = wrap(np.array([0, 1], np.uint32))
MODEL = BatchNormMLP((3,), "relu", momentum=0.75)
HEADS = {"q": (1, 1.0)}
FRESH = Moments(jnp.zeros(2), jnp.ones(2))

standardized = jax.jit(batch_standardized)


def test_a_batch_is_standardised_by_its_own_moments_and_the_running_ones_follow():
    x = jnp.asarray([[1.0, 10.0], [3.0, 14.0]])  # means 2 and 12, variances 1 and 4
    found, running = standardized(x, FRESH, 0.75, False)
    expected = np.array([-1.0, 1.0])[:, None] * np.array([1.0, 2.0]) / np.sqrt(np.array([1.0, 4.0]) + EPSILON)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(running.mean, [0.5, 3.0])
    np.testing.assert_allclose(running.variance, [1.0, 0.75 + 1.0], rtol=1e-6)


def test_large_means_do_not_cost_the_variances_digits_once_they_are_known():
    x = 1000.0 + jnp.asarray([[1.0], [3.0]])
    found, _ = standardized(x, Moments(jnp.full(1, 1002.0), jnp.ones(1)), 0.75, False)
    np.testing.assert_allclose(found, [[-1.0], [1.0]], rtol=1e-3)


def test_renormalised_within_the_limits_it_is_as_if_by_the_running_moments():
    x = jnp.asarray([[1.0, 10.0], [3.0, 14.0]])
    running = Moments(jnp.asarray([1.5, 11.0]), jnp.asarray([2.0, 1.0]))
    found, _ = standardized(x, running, 0.75, True)
    np.testing.assert_allclose(found, (x - running.mean) / np.sqrt(running.variance + EPSILON), rtol=1e-5)


def test_renormalisation_has_limits():
    x = jnp.asarray([[0.0], [20.0]])  # mean 10 and deviation 10: 10 times the running one, and 10 of these away
    found, _ = standardized(x, Moments(jnp.zeros(1), jnp.ones(1)), 0.75, True)
    np.testing.assert_allclose(found, [[-3.0 + 5.0], [3.0 + 5.0]], rtol=1e-3)


def test_the_gradient_takes_renormalisation_as_constant():
    # Of a batch of two the standardised values are the signs: but for epsilon they do not depend on the numbers.
    running = Moments(jnp.asarray([0.5]), jnp.asarray([4.0]))
    gradient = jax.grad(lambda x: batch_standardized(x, running, 0.75, True)[0][0, 0])(jnp.asarray([[1.0], [3.0]]))
    np.testing.assert_allclose(gradient, np.zeros((2, 1)), atol=1e-3)


def test_acting_uses_the_running_moments_and_is_the_formula():
    params = MODEL.init(KEY, Box(-1, 1, (2,)), HEADS)
    learned = params["learned"]
    learned["norms"][0] = {"scale": jnp.asarray([2.0, 1.0]), "shift": jnp.asarray([0.0, -1.0])}
    params["running"][0] = Moments(jnp.asarray([1.0, 2.0]), jnp.asarray([4.0, 1.0]))
    x = np.array([[[3.0, 2.0], [0.0, 1.0]]], np.float32)
    normal = (x[0] - [1.0, 2.0]) / np.sqrt(np.array([4.0, 1.0]) + EPSILON) * [2.0, 1.0] + [0.0, -1.0]
    hidden = np.maximum(normal @ learned["layers"][0]["kernel"], 0.0) / np.sqrt(1.0 + EPSILON)
    _, heads = MODEL.apply(params, (), x, np.zeros((1, 2), bool))
    assert heads["q"].shape == (1, 2, 1)
    np.testing.assert_allclose(heads["q"][0], hidden @ learned["heads"]["q"]["kernel"], rtol=1e-4, atol=1e-5)


def test_training_with_one_distribution_brings_acting_to_the_same_values():
    params = MODEL.init(KEY, Box(-1, 1, (2,)), HEADS)
    x = jnp.asarray(np.random.default_rng(0).normal([3.0, -1.0], [2.0, 0.1], (64, 2)), jnp.float32)
    train = jax.jit(MODEL.train)
    for _ in range(80):
        heads, running = train(params, x, False)
        params = {**params, "running": running}
    _, acting = MODEL.apply(params, (), x[None], np.zeros((1, 64), bool))
    np.testing.assert_allclose(acting["q"][0], heads["q"], atol=1e-3)
    assert float(jnp.std(heads["q"])) > 0.1
    renormalized, _ = train(params, x, True)
    np.testing.assert_allclose(renormalized["q"], acting["q"][0], atol=1e-3)


@pytest.mark.parametrize("number", [0, 1])
def test_every_layer_has_moments_of_its_own_inputs(number):
    params = MODEL.init(KEY, Box(-1, 1, (2,)), HEADS)
    x = jnp.asarray([[1.0, 0.0], [3.0, 0.5]])
    _, running = MODEL.train(params, x, False)
    assert running[number].mean.shape == ((2,), (3,))[number]
    before, after = params["running"][number], running[number]
    assert not np.array_equal(before.mean, after.mean)
