"""Normalisation around any agent: its moments are those of all data, and an update uses the ones that acted."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from modes import CARTPOLE, PENDULUM, assert_modes_are_equal
from modes import KEY as RUN_KEY
from witness import Witness

from athlete.algorithms.a2c import A2C
from athlete.algorithms.dqn import DQN
from athlete.algorithms.sac import SAC
from athlete.bonuses.counts import Counts
from athlete.combine.curious import Curious
from athlete.combine.normalize import Normalize
from athlete.core import Env, Spec, Step, Transition, hyper
from athlete.loops.collect import spec_of
from athlete.loops.host import HostedEnv
from athlete.loops.train import CompiledTraining, HostedTraining
from athlete.memory.replay import Replay
from athlete.memory.rollout import Rollout
from athlete.models.mlp import MLP
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
def take_in(agent, state, accumulators, batch):
    """State and accumulators after a trajectory that was collected and learned from."""
    state, accumulators = agent.observe(state, accumulators, batch)
    return agent.update(state, batch, KEY, 0.0)[0], accumulators


def update(agent, state, batch):
    return take_in(agent, state, agent.accumulators(ROWS), batch)[0]


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


def test_from_a_memory_an_update_sees_the_observations_by_all_that_was_visited():
    agent = Normalize(Witness(memory=Replay())).bind(Spec(SPACE, Discrete(2)))
    batch = batch_of(1)
    learnt = update(agent, update(agent, agent.init(KEY), batch_of(0)), batch)  # acts with what it has just taken in
    shown = act(agent, learnt, jax.tree.map(lambda leaf: leaf[0], batch.obs))
    np.testing.assert_allclose(learnt.agent.obs["pose"][0], shown["pose"], rtol=1e-5, atol=1e-5)


def test_a_mask_of_actions_is_not_standardised():
    space = Dict({"observations": Box(-9, 9, (1,)), "action_mask": Box(0, 1, (2,))})
    agent = Normalize(Witness()).bind(Spec(space, Discrete(2)))
    mask = np.float32([[1, 0], [0, 1], [1, 1]])
    shown = act(agent, agent.init(KEY), {"observations": np.ones((ROWS, 1), np.float32), "action_mask": mask})
    np.testing.assert_array_equal(shown["action_mask"], mask)
    assert [leaf.shape for leaf in agent.init(KEY).obs.mean] == [(1,)]


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
    state, accumulators, sums = agent.init(KEY), agent.accumulators(ROWS), []
    for seed in range(3):
        batch = batch_of(seed)
        total = np.zeros(ROWS)
        for t in range(STEPS):
            total = batch.reward[t] + 0.5 * np.where(batch.first[t], 0, total)
            sums.append(total)
        state, accumulators = take_in(agent, state, accumulators, batch)
    np.testing.assert_allclose(state.agent.reward, batch.reward / np.std(sums), rtol=1e-4)


@pytest.mark.parametrize("fragment", [1, 4, 32])
def test_the_return_goes_on_from_one_trajectory_to_the_next(fragment):
    """As in Stable-Baselines3's VecNormalize: returns = gamma * returns + reward; returns[dones] = 0."""
    steps, gamma = 400, 0.95
    first = np.zeros((steps, ROWS), bool)
    first[0] = first[100, 0] = first[150, 1] = True
    running, sums = np.zeros(ROWS), []
    for t in range(steps):
        running = gamma * np.where(first[t], 0, running) + 1.0
        sums.append(running)
    agent = bound(gamma=gamma)
    state, accumulators = agent.init(KEY), agent.accumulators(ROWS)
    obs = {"pose": np.zeros((fragment, ROWS, 2)), "image": np.zeros((fragment, ROWS, 2), np.uint8)}
    obs["who"] = np.zeros((fragment, ROWS), np.int32)
    for t in range(0, steps - fragment + 1, fragment):
        never = np.zeros((fragment, ROWS), bool)
        reward, start = np.ones((fragment, ROWS), np.float32), first[t : t + fragment]
        batch = Transition(obs, start, 0 * never, reward, obs, never, never, (), ())
        state, accumulators = take_in(agent, state, accumulators, batch)
    seen = sums[: t + fragment]
    np.testing.assert_allclose(state.agent.reward, 1 / np.std(seen), rtol=1e-3)
    np.testing.assert_allclose(accumulators.return_, seen[-1], rtol=1e-5)


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
    assert (agent.memory, agent.updates, agent.spec) == (Rollout(), 1, Spec(SPACE, Discrete(2)))


def test_only_what_acts_travels_with_the_view():
    agent = bound()
    view = agent.view(agent.init(KEY), 0.0)
    assert list(view.agent) == ["acts"]
    assert [leaf.shape for leaf in jax.tree.leaves(view.obs)] == [(), (2,), (2,)]


# In a training ---------------------------------------------------------------------------------------------------


class Watched(HostedEnv):
    """Remembers every observation that was acted on."""

    def reset(self, key):
        self.visited, self.now = [], super().reset(key)
        return self.now

    def step(self, action, key):
        self.visited.append(self.now)
        step = super().step(action, key)
        self.now = step.obs
        return step

    def reset_where(self, done, obs, key):
        self.now = super().reset_where(done, obs, key)
        return self.now


LATE = {"num_steps_sampled_before_learning_starts": 24, "random_timesteps": 12, "model": MLP((8,))}
WITH_A_MEMORY = Normalize(DQN(lr=1e-2, memory=Replay(60, 8, window=1, unroll=3), updates=2, **LATE))
OF_ONE_ROW = Normalize(DQN(lr=1e-2, memory=Replay(64, 8), **LATE))


@pytest.mark.parametrize(
    ("agent", "rows", "length", "settings"),
    [
        (WITH_A_MEMORY, 2, 3, {}),
        (WITH_A_MEMORY, 2, 3, {"any_thread": True}),
        (OF_ONE_ROW, 1, 1, {}),
        (OF_ONE_ROW, 1, 1, {"sample_async": True}),
    ],
)
def test_each_observation_that_is_visited_counts_once_wherever_batches_come_from(agent, rows, length, settings):
    """In random steps, in the warm-up and when learning: batches from memory are no sample of what was visited."""
    agent = agent.bind(spec_of(CARTPOLE))
    source = Watched(CARTPOLE, rows, settings.get("any_thread", False))
    training = HostedTraining(agent, source, length, 500.0, RUN_KEY, settings.get("sample_async", False))
    training.advance(30)
    state, iteration = training.run.state, int(training.run.iteration)
    visited = np.stack(source.visited)[: iteration * length].reshape(-1, 4)
    assert state.obs.count == len(visited) == iteration * length * rows
    np.testing.assert_allclose(state.obs.mean[0], visited.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(state.obs.variance[0], visited.var(axis=0), rtol=1e-3)
    if not settings.get("sample_async"):  # where what acts is an update behind
        np.testing.assert_array_equal(state.acting.mean[0], state.obs.mean[0])


MODES = {
    "DQN": (CARTPOLE, WITH_A_MEMORY, 2, 3),
    "DQN, a bonus": (CARTPOLE, Curious(WITH_A_MEMORY, Counts(hash_bits=6)), 2, 3),
    "SAC": (
        PENDULUM,
        Normalize(
            SAC(
                policy_model=MLP((8,)),
                q_model=MLP((8,)),
                memory=Replay(64, 8),
                num_steps_sampled_before_learning_starts=16,
            )
        ),
        1,
        1,
    ),
}


@pytest.mark.parametrize("case", MODES)
def test_trainings_from_a_memory_are_the_same_compiled_and_hosted(case):
    env, agent, rows, length = MODES[case]
    assert_modes_are_equal(env, agent, rows=rows, length=length)


@hyper
class Steady(Env):
    """A reward of 1 in each step of an episode of 100."""

    observation_space = Box(-1, 1, (1,))
    action_space = Discrete(2)

    def reset(self, key):
        return jnp.int32(0), jnp.zeros(1)

    def step(self, state, action, key):
        state = state + 1
        return state, Step(jnp.zeros(1), jnp.float32(1), state >= 100, jnp.bool_(False), {})


@pytest.mark.parametrize("length", [4, 50])
def test_the_scale_of_rewards_does_not_depend_on_the_length_of_fragments(length):
    agent = Normalize(A2C(model=MLP((8,))), observations=False).bind(spec_of(Steady()))
    training = CompiledTraining(agent, Steady(), 1, length, 500.0, RUN_KEY)
    training.advance(200 // length)
    expected = np.var(np.cumsum(0.99 ** np.arange(100)))
    assert training.run.state.returns.variance == pytest.approx(expected, rel=1e-4)
