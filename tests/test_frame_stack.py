"""The last observations of a JAX environment as one."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from modes import CARTPOLE, assert_modes_are_equal

from athlete.algorithms.dqn import DQNConfig
from athlete.algorithms.ppo import PPO
from athlete.core import Env, Step, hyper
from athlete.env.checks.check import check_env
from athlete.env.games.classic.cartpole import CartPole
from athlete.env.registry import resolve
from athlete.env.twins import find_twin
from athlete.env.wrappers.frame_stack import FrameStack, require_stack
from athlete.env.wrappers.time_limit import TimeLimit
from athlete.models.mlp import MLP
from athlete.ops.random import wrap
from athlete.spaces import Box, Discrete

KEY = wrap(np.array([0, 1], np.uint32))


def test_the_newest_observation_is_last_and_an_episode_begins_with_its_first_one_repeated():
    plain, stacked = CartPole(), FrameStack(CartPole(), 3)
    state, obs = plain.reset(KEY)
    states, shown = stacked.reset(KEY)
    seen = [obs, obs, obs]
    np.testing.assert_array_equal(shown, np.concatenate(seen))
    for _ in range(4):
        state, step = plain.step(state, 1, KEY)
        states, with_stack = stacked.step(states, 1, KEY)
        seen.append(step.obs)
        np.testing.assert_array_equal(with_stack.obs, np.concatenate(seen[-3:]))
        assert with_stack._replace(obs=0)[1:4] == step._replace(obs=0)[1:4]


def test_pictures_are_stacked_as_channels_and_the_environment_passes_the_check():
    env = FrameStack(resolve("MinAtar/Breakout-v1")({}), 2)
    assert env.observation_space.shape == (10, 10, 8)
    check_env(env)


def test_bounds_are_those_of_each_frame():
    shown = CartPole().observation_space
    assert FrameStack(CartPole(), 2).observation_space == Box(np.tile(shown.low, 2), np.tile(shown.high, 2))


def test_the_loops_reset_stacks_alike():
    agent = PPO(model=MLP((8,)), minibatch_size=8, num_epochs=1)
    assert_modes_are_equal(TimeLimit(FrameStack(CartPole(), 2), 5), agent, rows=2, length=8)


def test_what_cannot_be_stacked_is_refused():
    with pytest.raises(ValueError, match=r"FrameStack\(stack_size=0\): expected at least 1"):
        FrameStack(CartPole(), 0)
    with pytest.raises(
        ValueError, match="observations must be a Box with an axis to join along, and these are Discrete"
    ):
        FrameStack(find_twin("FrozenLake-v1", {})[0])


@hyper
class Counter(Env):
    """Shows how many steps were taken, as a picture of one pixel."""

    observation_space = Box(0.0, np.inf, (1, 1, 1))
    action_space = Discrete(2)

    def reset(self, key):
        return jnp.zeros(()), jnp.zeros((1, 1, 1))

    def step(self, state, action, key):
        never = jnp.asarray(False)
        return state + 1, Step((state + 1).reshape(1, 1, 1), jnp.zeros(()), never, never, {})


def test_only_stacks_of_single_frames_are_stored_once():
    require_stack(FrameStack(Counter(), 3), -1)
    with pytest.raises(ValueError, match=r"'stack_axis': -1.*no stack of single frames"):
        require_stack(FrameStack(CARTPOLE, 2), -1)


def test_a_memory_of_what_is_no_stack_is_refused_at_build():
    config = DQNConfig().environment(FrameStack(CARTPOLE, 2))
    config.training(replay_buffer_config={"stack_axis": -1, "capacity": 2000})
    with pytest.raises(ValueError, match="no stack of single frames"):
        config.build()
