"""Distributions beside their textbook formulae."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.distributions import (
    Categorical,
    DiagonalGaussian,
    MultiCategorical,
    SquashedGaussian,
    distribution,
    flat_action,
    output_size,
    shape_action,
)
from athlete.ops.random import wrap
from athlete.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, OneOf, Tuple, zeros

KEY = wrap(np.array([0, 5], np.uint32))
NUMBER = 40_000
LOG = np.log

# Probabilities 1/6, 2/6, 3/6 and 1/2, 1/4, 1/4; logits need not be normalised.
P, Q = np.array([1, 2, 3]) / 6, np.array([2, 1, 1]) / 4
LOGITS_P, LOGITS_Q = (LOG(p).astype(np.float32) + 7 for p in (P, Q))


def drawn(policy, number=NUMBER):
    """`[number, ...]` samples."""
    return np.asarray(jax.jit(jax.vmap(lambda key: policy.sample(key)))(jax.random.split(KEY, number)))


# Categorical ------------------------------------------------------------------------------------------------------


def test_categorical_by_hand():
    p, q = Categorical(LOGITS_P), Categorical(LOGITS_Q)
    np.testing.assert_allclose(jax.vmap(p.log_prob)(jnp.arange(3)), LOG(P), rtol=1e-5)
    assert p.entropy() == pytest.approx(-(P * LOG(P)).sum(), rel=1e-5)
    assert p.kl(q) == pytest.approx((P * LOG(P / Q)).sum(), rel=1e-5)
    assert p.kl(p) == pytest.approx(0, abs=1e-6)
    assert int(p.mode()) == 2
    assert p.mode().dtype == np.int32


def test_categorical_samples_come_as_often_as_they_are_probable():
    samples = drawn(Categorical(LOGITS_P))
    assert samples.dtype == np.int32
    np.testing.assert_allclose(np.bincount(samples) / NUMBER, P, atol=5 * 0.5 / math.sqrt(NUMBER))


def test_categorical_keeps_leading_axes():
    policy = Categorical(jnp.broadcast_to(LOGITS_P, (2, 4, 3)))
    action = policy.sample(KEY)
    assert action.shape == policy.log_prob(action).shape == policy.entropy().shape == (2, 4)
    assert len(np.unique(action)) > 1, "rows draw apart"


def test_the_gradient_of_a_log_probability_is_one_hot_less_the_probabilities():
    gradient = jax.grad(lambda logits: Categorical(logits).log_prob(jnp.int32(1)))(LOGITS_P)
    np.testing.assert_allclose(gradient, np.array([0, 1, 0]) - P, atol=1e-6)


# Several categoricals ---------------------------------------------------------------------------------------------


def test_several_categoricals_are_independent_so_that_logs_add():
    space = MultiDiscrete((3, 2))
    policy = distribution(space, jnp.asarray([*LOG(P), *LOG([0.25, 0.75])], jnp.float32))
    assert isinstance(policy, MultiCategorical)
    entropy = -(P * LOG(P)).sum() - 0.25 * LOG(0.25) - 0.75 * LOG(0.75)
    assert policy.log_prob(jnp.array([2, 0])) == pytest.approx(LOG(3 / 6) + LOG(0.25), rel=1e-5)
    assert policy.entropy() == pytest.approx(entropy, rel=1e-5)
    other = distribution(space, jnp.zeros(5))
    assert policy.kl(other) == pytest.approx(LOG(3) + LOG(2) - entropy, rel=1e-5)
    np.testing.assert_array_equal(policy.mode(), [2, 1])
    samples = drawn(policy)
    joint = np.bincount(samples[:, 0] * 2 + samples[:, 1], minlength=6).reshape(3, 2) / NUMBER
    np.testing.assert_allclose(joint, np.outer(P, [0.25, 0.75]), atol=5 * 0.5 / math.sqrt(NUMBER))


# Discrete and continuous at once: logits of 3, a mean for each of 2, logits of 2 x 2, a mean; then 3 log stds.
HYBRID = Tuple((Discrete(3), Box(-1, 1, (1, 2)), MultiBinary((2,)), Box(-1, 1, ())))


def test_a_joint_distribution_adds_logs_of_its_independent_parts():
    mean, std = np.array([0.5, -1.0, 2.0]), np.array([0.5, 1.0, 2.0])
    head = [*LOG(P), *mean[:2], *LOG([0.25, 0.75]), *LOG([0.5, 0.5]), mean[2]]
    policy = distribution(HYBRID, jnp.asarray([*head, *LOG(std)], jnp.float32))
    x = np.array([1.0, -1.0, 0.0])
    density = np.exp(-0.5 * ((x - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))
    action = (jnp.int32(2), jnp.asarray(x[:2]), jnp.array([1, 0]), jnp.asarray(x[2:]))
    log_prob = LOG(3 / 6) + LOG(density).sum() + LOG(0.75) + LOG(0.5)
    assert policy.log_prob(action) == pytest.approx(log_prob, rel=1e-5)
    categorical = -(P * LOG(P)).sum() - 0.25 * LOG(0.25) - 0.75 * LOG(0.75) + LOG(2)
    gaussian = 0.5 * LOG(2 * np.pi * np.e * std**2).sum()
    assert policy.entropy() == pytest.approx(categorical + gaussian, rel=1e-5)
    standard = distribution(HYBRID, jnp.zeros(13))
    kl = LOG(3) + LOG(4) - categorical + (-LOG(std) + (std**2 + mean**2) / 2 - 0.5).sum()
    assert policy.kl(standard) == pytest.approx(kl, rel=1e-5)
    mode = shape_action(HYBRID, policy.mode())
    assert int(mode[0]) == 2
    np.testing.assert_allclose(mode[1], [mean[:2]])
    np.testing.assert_array_equal(mode[2], [1, 0])  # the first of equals
    np.testing.assert_allclose(mode[3], mean[2])


def test_parts_of_a_joint_distribution_are_drawn_apart():
    policy = distribution(Tuple((Box(-1, 1, (1,)), Box(-1, 1, (1,)))), jnp.zeros(4))
    left, right = jax.jit(jax.vmap(policy.sample))(jax.random.split(KEY, NUMBER))
    assert abs(np.corrcoef(left[:, 0], right[:, 0])[0, 1]) < 5 / math.sqrt(NUMBER)


def test_binary_arrays_are_flat_inside_and_shaped_outside():
    space = MultiBinary((2, 3))
    assert output_size(space) == 12
    certain = jnp.asarray([[9.0, -9.0], [-9.0, 9.0]] * 3).ravel()  # 0, 1, 0, 1, 0, 1
    flat = distribution(space, certain).mode()
    np.testing.assert_array_equal(shape_action(space, flat), [[0, 1, 0], [1, 0, 1]])
    np.testing.assert_array_equal(flat_action(space, shape_action(space, flat)), flat)


# Gaussians --------------------------------------------------------------------------------------------------------

MEAN, STD = np.array([1.0, -2.0]), np.array([0.5, 2.0])
GAUSSIAN = DiagonalGaussian(jnp.asarray(MEAN, jnp.float32), jnp.asarray(LOG(STD), jnp.float32))


def test_gaussian_by_hand():
    x = np.array([1.5, 0.0])
    density = np.exp(-0.5 * ((x - MEAN) / STD) ** 2) / (STD * np.sqrt(2 * np.pi))
    assert GAUSSIAN.log_prob(jnp.asarray(x, jnp.float32)) == pytest.approx(LOG(density).sum(), rel=1e-5)
    assert GAUSSIAN.entropy() == pytest.approx(0.5 * LOG(2 * np.pi * np.e * STD**2).sum(), rel=1e-5)
    np.testing.assert_array_equal(GAUSSIAN.mode(), MEAN)
    other_mean, other_std = np.array([0.0, -2.0]), np.array([1.0, 1.0])
    other = DiagonalGaussian(jnp.asarray(other_mean, jnp.float32), jnp.asarray(LOG(other_std), jnp.float32))
    kl = LOG(other_std / STD) + (STD**2 + (MEAN - other_mean) ** 2) / (2 * other_std**2) - 0.5
    assert GAUSSIAN.kl(other) == pytest.approx(kl.sum(), rel=1e-5)
    assert GAUSSIAN.kl(GAUSSIAN) == pytest.approx(0, abs=1e-6)


def test_gaussian_samples_have_its_moments():
    samples = drawn(GAUSSIAN)
    np.testing.assert_allclose(samples.mean(axis=0), MEAN, atol=5 * STD.max() / math.sqrt(NUMBER))
    np.testing.assert_allclose(samples.std(axis=0), STD, rtol=0.03)
    assert abs(np.corrcoef(samples.T)[0, 1]) < 5 / math.sqrt(NUMBER)


def test_log_standard_deviations_are_kept_where_float32_can_follow():
    for raw in (-1e6, 1e6):
        policy = distribution(Box(-1, 1, (1,)), jnp.array([0.0, raw]))
        assert np.isfinite(policy.log_prob(policy.sample(KEY)))


@pytest.fixture(scope="module")
def squashed():
    """One-dimensional, off centre, wide enough to reach both ends."""
    return SquashedGaussian(DiagonalGaussian(jnp.array([0.3]), jnp.array([-0.2])))


def test_squashed_gaussian_is_a_density_on_the_open_interval(squashed):
    edges = np.linspace(-1, 1, 20_001)
    middle = jnp.asarray((edges[1:] + edges[:-1]) / 2, jnp.float32)[:, None]
    density = np.exp(jax.jit(jax.vmap(squashed.log_prob))(middle))
    assert density.sum() * (edges[1] - edges[0]) == pytest.approx(1.0, abs=1e-4)
    share = (np.asarray(drawn(squashed))[:, 0] < 0).mean()
    assert density[:10_000].sum() * (edges[1] - edges[0]) == pytest.approx(share, abs=5 * 0.5 / math.sqrt(NUMBER))


def test_a_squashed_sample_has_the_log_probability_it_came_with(squashed):
    @jax.jit
    def draw(key):
        action, log_prob = squashed.sample_and_log_prob(key)
        return action, log_prob, squashed.log_prob(action), squashed.sample(key)

    action, came_with, looked_up, sampled = jax.vmap(draw)(jax.random.split(KEY, 500))
    assert np.abs(action).max() < 1
    np.testing.assert_allclose(looked_up, came_with, atol=5e-3)
    np.testing.assert_array_equal(action, sampled)
    assert squashed.mode()[0] == pytest.approx(np.tanh(0.3), rel=1e-5)


@pytest.mark.parametrize("mean", [30.0, -30.0])
def test_where_tanh_saturates_log_probabilities_and_gradients_stay_finite(mean):
    def log_prob(mean):
        return SquashedGaussian(DiagonalGaussian(mean, jnp.zeros(1))).sample_and_log_prob(KEY)[1]

    value, gradient = jax.jit(jax.value_and_grad(log_prob))(jnp.array([mean]))
    # log N(raw) - log(1 - tanh^2), the latter 2 (log 2 - |raw|): about 2 * 30.
    assert 50 < value < 70
    assert np.isfinite(gradient).all()


# Spaces -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "size"),
    [
        (Discrete(4, start=2), 4),
        (MultiDiscrete((2, 3)), 5),
        (MultiBinary((3,)), 6),
        (Box(-1, 1, (2, 2)), 8),
        (Box(-1, 1, ()), 2),
        (Box(-1, [[0, 1]], dtype=np.int16), 2 + 3),
        (MultiDiscrete(((2, 3), (1, 4))), 10),
        (HYBRID, 3 + 2 * 2 + 4 + 2 * 1),
        (Dict({"a": Tuple((HYBRID, Dict({"b": Discrete(2)})))}), 15),
    ],
)
def test_output_sizes(space, size):
    assert output_size(space) == size
    policy = distribution(space, jnp.zeros((7, size)))
    action = shape_action(space, policy.sample(KEY))
    expected = zeros(space, (7,))
    assert jax.tree.map(np.shape, action) == jax.tree.map(np.shape, expected)
    again = shape_action(space, flat_action(space, action))
    jax.tree.map(np.testing.assert_array_equal, again, action)
    assert policy.log_prob(flat_action(space, action)).shape == policy.entropy().shape == (7,)
    assert policy.kl(policy) == pytest.approx(np.zeros(7), abs=1e-6)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            Dict({"a": Tuple((Discrete(2), OneOf((Discrete(2),))))}),
            r"no distribution over actions\['a'\]\[1\] of OneOf.*there is one for Discrete, MultiDiscrete",
        ),
        (Tuple((Box(0, 10**6, (2,), np.int32),)), r"actions\[0\] of Box.* 2000002 logits.* take a Box of floats"),
    ],
)
def test_spaces_without_a_distribution_are_refused_by_entry(space, message):
    with pytest.raises(ValueError, match=message):
        output_size(space)
