"""Repeat what was seen some steps ago, as RLlib's `RepeatAfterMeEnv`."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Env, Key, Step, hyper
from athlete.spaces import Discrete


class RepeatAfterMeState(NamedTuple):
    tokens: Array  # int32 [repeat_delay + 1]: the last ones shown, the oldest first; zeros before the episode
    steps: Array  # int32: taken in this episode


@hyper
class RepeatAfterMe(Env):
    """Each step shows a random token, 0 or 1, and asks for the one of `repeat_delay` steps ago: +1 if right, else -1.

    For the first `repeat_delay` steps the answer is 0. An episode has `episode_len` steps (RLlib's has
    `repeat_delay - 1` fewer), so that the best return is `episode_len`. Without memory the answers after the first
    `repeat_delay` are guesses.

    Raises:
        ValueError: `repeat_delay` is below 0, or `episode_len` below 1.
    """

    repeat_delay: int = 1  # steps
    episode_len: int = 100  # steps

    def __post_init__(self) -> None:
        if self.repeat_delay < 0:
            raise ValueError(f"RepeatAfterMe(repeat_delay={self.repeat_delay}): expected at least 0 steps")
        if self.episode_len < 1:
            raise ValueError(f"RepeatAfterMe(episode_len={self.episode_len}): expected at least 1 step")

    @property
    def observation_space(self) -> Discrete:
        return Discrete(2)

    @property
    def action_space(self) -> Discrete:
        return Discrete(2)

    def reset(self, key: Key) -> tuple[RepeatAfterMeState, Array]:
        token = _token(key)
        tokens = jnp.zeros(self.repeat_delay + 1, jnp.int32).at[-1].set(token)
        return RepeatAfterMeState(tokens, jnp.int32(0)), token

    def step(self, state: RepeatAfterMeState, action: Array, key: Key) -> tuple[RepeatAfterMeState, Step]:
        reward = jnp.where(action == state.tokens[0], 1.0, -1.0)
        token, steps = _token(key), state.steps + 1
        tokens = jnp.append(state.tokens[1:], token)
        ended = steps >= self.episode_len
        return RepeatAfterMeState(tokens, steps), Step(token, reward, ended, jnp.asarray(False), {})


def _token(key: Key) -> Array:
    return jax.random.bernoulli(key).astype(jnp.int32)
