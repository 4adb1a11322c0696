"""Noise in given spaces, as RLlib's `RandomEnv`: for tests of shapes and of speed."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Env, Key, Step, Tree, hyper
from athlete.ops.sampling import sample
from athlete.spaces import Box, Discrete, Space


class RandomEnvState(NamedTuple):
    steps: Array  # int32: taken in this episode


@hyper
class RandomEnv(Env):
    """Observations and rewards are random elements of spaces, whatever the action; an episode terminates with
    probability `p_done` in each step, and after `max_episode_len` steps at the latest where that is not 0.
    """

    obs: Space = Discrete(2)
    actions: Space = Discrete(2)
    rewards: Space = Box(-1.0, 1.0, ())
    p_done: float = 0.1
    max_episode_len: int = 0

    @property
    def observation_space(self) -> Space:
        return self.obs

    @property
    def action_space(self) -> Space:
        return self.actions

    def reset(self, key: Key) -> tuple[RandomEnvState, Tree]:
        return RandomEnvState(jnp.int32(0)), sample(self.obs, key)

    def step(self, state: RandomEnvState, action: Tree, key: Key) -> tuple[RandomEnvState, Step]:
        obs_key, reward_key, done_key = jax.random.split(key, 3)
        steps = state.steps + 1
        done = jax.random.bernoulli(done_key, self.p_done)
        if self.max_episode_len:
            done |= steps >= self.max_episode_len
        reward = sample(self.rewards, reward_key).astype(jnp.float32)
        return RandomEnvState(steps), Step(sample(self.obs, obs_key), reward, done, jnp.asarray(False), {})
