"""Remember what was shown first, as RLlib's `RepeatInitialObsEnv`."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Env, Key, Step, hyper
from athlete.spaces import Discrete


class RepeatInitialObsState(NamedTuple):
    token: Array  # int32: what the first observation was
    steps: Array  # int32: taken in this episode


@hyper
class RepeatInitialObs(Env):
    """The first observation is a random token, 0 or 1, all others are 0. Each action must be the token: +1, else -1.

    An episode has `episode_len` steps, so the best return is `episode_len`; without memory the mean is about 0.

    Raises:
        ValueError: `episode_len` is below 1.
    """

    episode_len: int = 100  # steps

    def __post_init__(self) -> None:
        if self.episode_len < 1:
            raise ValueError(f"RepeatInitialObs(episode_len={self.episode_len}): expected at least 1 step")

    @property
    def observation_space(self) -> Discrete:
        return Discrete(2)

    @property
    def action_space(self) -> Discrete:
        return Discrete(2)

    def reset(self, key: Key) -> tuple[RepeatInitialObsState, Array]:
        token = jax.random.bernoulli(key).astype(jnp.int32)
        return RepeatInitialObsState(token, jnp.int32(0)), token

    def step(self, state: RepeatInitialObsState, action: Array, key: Key) -> tuple[RepeatInitialObsState, Step]:
        steps = state.steps + 1
        reward = jnp.where(action == state.token, 1.0, -1.0)
        ended = steps >= self.episode_len
        return state._replace(steps=steps), Step(jnp.int32(0), reward, ended, jnp.asarray(False), {})
