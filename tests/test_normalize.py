"""Normalisation around any agent: its moments are those of all data, and an update uses the ones that acted."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from witness import Witness

from athlete.combine.normalize import Normalize
from athlete.core import Spec, Transition
from athlete.memory.latest import Latest
from athlete.ops.random import wrap
from athlete.spaces import Box, Dict, Discrete

QUICK = {"xla_backend_optimization_level": 0}
KEY = wrap(np.array([0, 1], np.uint32))
SPACE = Dict({"pose": Box(-np.inf, np.inf, (2,), np.float64), "image": Box(0, 255, (2,), np.uint8), "who": Discrete(5)})
STEPS, ROWS = 4, 3


def bound(**switches):
    return Normalize(Witness(), **switches).bind(Spec(SPACE, Discrete(2)))


def batch_of(seed, reward=None):
    random = np.random.default_rng(seed)

    def observe():
        return {
            "pose": random.normal((1000, -3), (0.1, 20), (STEPS, ROWS, 2)).astype(np.float32),
            "image": random.integers(0, 256, (STEPS, ROWS, 2), np.uint8),
            "who": random.integers(0, 5, (STEPS, ROWS), np.int32),
        }

    reward = random.normal(5, 3, (STEPS, ROWS)) if reward is None else reward
    never = np.zeros((STEPS, ROWS), bool)
    first = never.copy()
    first[[0, 2]] = True
    return Transition(observe(), first, 0 * first, np.float32(reward), observe(), never, never, (), ())


@functools.partial(jax.jit, compiler_options=QUICK)
def update(agent, state, batch):
    return agent.update(state, batch, KEY, 0.0)[0]


@functools.partial(jax.jit, compiler_options=QUICK)
def act(agent, state, obs):
    return agent.act(agent.view(state, 0.0), (), obs, np.ones(ROWS, bool), KEY)[0]


# Observations -----------------------------------------------------------------------------------------------------


def test_floats_are_standardized_with_all_that_was_seen_and_integers_pass():
    agent = bound()
    state = agent.init(KEY)
    seen = [batch_of(seed) for seed in range(3)]
    for batch in seen:
        state = update(agent, state, batch)
    everything = np.concatenate([batch.obs["pose"].reshape(-1, 2) for batch in seen]).astype(float)
    obs = jax.tree.map(lambda leaf: leaf[0], batch_of(9).obs)
    shown = act(agent, state, obs)
    expected = (obs["pose"] - everything.mean(axis=0)) / everything.std(axis=0)
    np.testing.assert_allclose(shown["pose"], expected, atol=5e-3)
    for name in ("image", "who"):
        np.testing.assert_array_equal(shown[name], obs[name])
        assert shown[name].dtype == obs[name].dtype


def test_an_update_sees_the_observations_as_the_acting_side_did():
    agent = bound()
    acted = update(agent, agent.init(KEY), batch_of(0))  # the moments that act from here on
    batch = batch_of(1)
    learnt = update(agent, acted, batch)
    for name, inside in (("obs", learnt.agent.obs), ("next_obs", learnt.agent.next_obs)):
        for t in range(STEPS):
            shown = act(agent, acted, jax.tree.map(lambda leaf, t=t: leaf[t], getattr(batch, name)))
            np.testing.assert_allclose(inside["pose"][t], shown["pose"], rtol=1e-5, atol=1e-5)
    assert not np.allclose(learnt.obs.mean[0], acted.obs.mean[0]), "and learns new moments after"


def test_outliers_are_clipped():
    agent = bound(obs_clip=2.0)
    state = update(agent, agent.init(KEY), batch_of(0))
    obs = jax.tree.map(lambda leaf: leaf[0], batch_of(1).obs)
    obs["pose"] = np.full((ROWS, 2), [1e9, -1e9], np.float32)
    np.testing.assert_array_equal(act(agent, state, obs)["pose"], np.full((ROWS, 2), [2.0, -2.0]))


def test_each_of_the_two_can_be_switched_off():
    batch = batch_of(0)
    plain_obs = update(bound(observations=False), bound(observations=False).init(KEY), batch)
    np.testing.assert_array_equal(plain_obs.agent.obs["pose"], batch.obs["pose"])
    assert not np.allclose(plain_obs.agent.reward, batch.reward)
    plain_reward = update(bound(rewards=False), bound(rewards=False).init(KEY), batch)
    np.testing.assert_array_equal(plain_reward.agent.reward, batch.reward)
    assert plain_obs.obs.count == 0


# Rewards ----------------------------------------------------------------------------------------------------------


def test_rewards_are_divided_by_the_deviation_of_the_discounted_return_so_far():
    agent = bound(gamma=0.5, reward_clip=1e6)
    state, sums = agent.init(KEY), []
    for seed in range(3):
        batch = batch_of(seed)
        total = np.zeros(ROWS)
        for t in range(STEPS):
            total = batch.reward[t] + 0.5 * np.where(batch.first[t], 0, total)
            sums.append(total)
        state = update(agent, state, batch)
    np.testing.assert_allclose(state.agent.reward, batch.reward / np.std(sums), rtol=1e-4)


def test_rewards_keep_their_sign_and_are_clipped():
    agent = bound(reward_clip=1.5)
    reward = np.zeros((STEPS, ROWS))
    reward[0, 0], reward[1, 1], reward[2, 2] = 1000.0, -1000.0, 1.0
    found = update(agent, agent.init(KEY), batch_of(0, reward)).agent.reward
    assert (found[0, 0], found[1, 1]) == (1.5, -1.5)
    assert 0 < found[2, 2] < 0.1


@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_rewards_that_never_differ_stay_finite(constant):
    agent = bound(gamma=0.0)
    found = update(agent, agent.init(KEY), batch_of(0, np.full((STEPS, ROWS), constant))).agent.reward
    np.testing.assert_allclose(found, 10.0 * constant)


# The agent inside -------------------------------------------------------------------------------------------------


def test_memory_updates_and_spaces_are_those_of_the_agent_inside():
    agent = bound()
    assert (agent.memory, agent.updates, agent.spec) == (Latest(), 1, Spec(SPACE, Discrete(2)))


def test_only_what_acts_travels_with_the_view():
    agent = bound()
    view = agent.view(agent.init(KEY), 0.0)
    assert list(view.agent) == ["acts"]
    assert [leaf.shape for leaf in jax.tree.leaves(view.obs)] == [(), (2,), (2,)]
