"""Every space as an observation and as an action: there and back, as features, and through every loop."""

from __future__ import annotations

import math

import gymnasium.spaces as gs
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modes import assert_modes_are_equal
from toy_gymnasium import Everything

from athlete.algorithms.a2c import A2C
from athlete.algorithms.ppo import PPO, PPOConfig
from athlete.distributions import continuous_size, distribution, flat_action, output_size, shape_action
from athlete.env.adapters.gymnasium import to_space
from athlete.env.games.mirror import Mirror
from athlete.env.membership import sample, violation
from athlete.models.mlp import MLP
from athlete.ops.features import feature_size, features
from athlete.ops.random import wrap
from athlete.spaces import (
    Box,
    Dict,
    Discrete,
    MultiBinary,
    MultiDiscrete,
    OneOf,
    Tuple,
    fixed_form,
    parts_of,
    to_canonical,
    to_environment,
    zeros,
)

integers = st.integers(1, 3)
actions = st.recursive(
    st.one_of(
        st.builds(
            lambda low, shape: Box(low, low + 4.5, shape), st.integers(-5, 5), st.sampled_from([(), (2,), (1, 2)])
        ),
        st.sampled_from([Box(0, np.inf, (2,)), Box(-np.inf, 3, ()), Box(-np.inf, np.inf, (1, 1))]),
        st.builds(lambda low: Box(low, low + 3, (2,), np.int8), st.integers(-100, 100)),
        st.builds(Discrete, integers, st.integers(-3, 3)),
        st.sampled_from([MultiDiscrete((2, 3)), MultiDiscrete(((2, 3),), ((1, -1),)), MultiBinary((2, 1))]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: Tuple(tuple(parts))),
        st.dictionaries(st.text("abc", min_size=1), inner, min_size=1, max_size=3).map(Dict),
    ),
    max_leaves=4,
)
observations = st.recursive(
    actions,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: OneOf(tuple(parts))),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: Tuple(tuple(parts))),
    ),
    max_leaves=4,
)


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@given(space=actions, seed=st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_actions_go_to_their_canonical_form_and_back(space, seed):
    taken = sample(space, np.random.default_rng(seed))
    assert_same(to_environment(space, to_canonical(space, taken)), taken)


@given(space=actions, seed=st.integers(0, 5))
@settings(max_examples=10, deadline=None)
def test_the_log_probability_and_entropy_of_a_nested_action_are_sums_over_its_leaves(space, seed):
    size, free = output_size(space), continuous_size(space)
    outputs = jnp.asarray(np.random.default_rng(seed).normal(size=(2, size)), jnp.float32)
    policy = distribution(space, outputs)
    action = policy.sample(wrap(np.array([0, seed], np.uint32)))
    head, log_std = outputs[:, : size - free], outputs[:, size - free :]

    def leaves(space, action):
        if isinstance(space, Tuple | Dict):
            return [leaf for i, part in enumerate(parts_of(space)) for leaf in leaves(part, action[i])]
        return [(space, action)]

    log_prob, entropy = np.zeros(2), np.zeros(2)
    for leaf, taken in leaves(space, action):
        logits, stds = output_size(leaf) - continuous_size(leaf), continuous_size(leaf)
        alone = distribution(leaf, jnp.concatenate([head[:, :logits], log_std[:, :stds]], axis=-1))
        log_prob += np.asarray(alone.log_prob(taken))
        entropy += np.asarray(alone.entropy())
        head, log_std = head[:, logits:], log_std[:, stds:]
    np.testing.assert_allclose(policy.log_prob(action), log_prob, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(policy.entropy(), entropy, rtol=1e-4, atol=1e-4)
    assert (head.size, log_std.size) == (0, 0)
    shaped = shape_action(space, action)
    assert violation_of_rows(space, to_environment(space, jax.device_get(shaped))) == ""
    assert_same(flat_action(space, shaped), action)


def violation_of_rows(space, rows):
    for row in zip(*(list(np.asarray(leaf)) for leaf in jax.tree.leaves(rows)), strict=True):
        element = jax.tree.unflatten(jax.tree.structure(rows), list(map(np.asarray, row)))
        if found := violation(space, element, "action"):
            return found
    return ""


@given(space=observations, seed=st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_any_observation_becomes_a_vector_of_the_size_that_was_said(space, seed):
    generator = np.random.default_rng(seed)
    rows = [fixed_form(space, sample(space, generator)) for _ in range(2)]
    assert jax.tree.structure(rows[0]) == jax.tree.structure(zeros(space))
    found = features(space, jax.tree.map(lambda *leaves: np.stack(leaves), *rows))
    assert found.shape == (2, feature_size(space)) and found.dtype == np.float32
    assert np.isfinite(found).all()


def test_the_mirror_pays_for_what_is_near_by_hand():
    space = Tuple((Box(-2, 2, (2,)), Discrete(3), MultiBinary((2,))))
    env = Mirror(space, Discrete(1), length=2)
    state, _ = env.reset(wrap(np.array([0, 1], np.uint32)))
    state = state._replace(shown=(jnp.array([1.0, -1.0]), jnp.int32(2), jnp.array([0, 1])))
    action = (jnp.array([0.0, -2.0]), jnp.int32(2), jnp.array([1, 1]))
    state, step = env.step(state, action, wrap(np.array([0, 2], np.uint32)))
    assert step.reward == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert not step.terminated
    assert env.step(state, state.shown, wrap(np.array([0, 2], np.uint32)))[1][1:3] == (pytest.approx(1.0), True)


@pytest.mark.parametrize(
    "agent",
    [PPO(lr=1e-2, model=MLP((8,)), minibatch_size=32, num_epochs=2), A2C(lr=1e-2, model=MLP((8,)))],
    ids=["PPO", "A2C"],
)
def test_nested_observations_and_actions_are_learned_from_the_same_way_compiled_and_hosted(agent):
    assert_modes_are_equal(Mirror(length=5), agent, rows=2, length=16)


@pytest.mark.parametrize(
    "rollouts",
    [{"num_envs_per_worker": 1}, {"num_envs_per_worker": 2}, {"num_rollout_workers": 2, "num_envs_per_worker": 1}],
    ids=["one row", "two rows", "two workers"],
)
def test_every_space_goes_through_gymnasium(rollouts):
    """The environment refuses actions that are not in its space."""
    config = PPOConfig().environment(Everything).rollouts(**rollouts).evaluation(evaluation_duration=2)
    config.training(train_batch_size=16, minibatch_size=8, num_epochs=1, model={"fcnet_hiddens": [8]})
    with config.build() as algorithm:
        result = algorithm.train()
        assert result["episode_reward_mean"] == 3.0
        assert math.isfinite(result["info"]["learner"]["default_policy"]["learner_stats"]["total_loss"])
        assert algorithm.evaluate()["evaluation"]["episode_reward_mean"] == 3.0
        env = Everything()
        obs, _ = env.reset(seed=0)
        for explore in (False, True, True, True):
            action = algorithm.compute_single_action(obs, explore=explore)
            assert env.action_space.contains(action), action
            obs = env.observation_space.sample()


def test_a_space_without_a_fixed_shape_is_refused_at_build_by_its_entry():
    class Talks(Everything):
        observation_space = gs.Dict({"heard": gs.Tuple([gs.Discrete(2), gs.Text(5)])})

    with pytest.raises(ValueError, match=r"observation_space\['heard'\]\[1\] is a Text space.*put what is needed"):
        PPOConfig().environment(Talks).build()


def test_a_space_that_is_one_of_several_has_gymnasiums_elements_judged_by_entry():
    space = to_space(gs.OneOf([gs.Discrete(2), gs.Box(0, 1, (1,))]))
    assert violation(space, (1, np.array([0.5], np.float32)), "obs") == ""
    assert "obs[1][0] is 2.0, above its highest value" in violation(space, (1, np.array([2.0], np.float32)), "obs")
    assert "obs[0] is 2, above" in violation(space, (2, 0), "obs")
    assert "expected a tuple of the number" in violation(space, 3, "obs")
