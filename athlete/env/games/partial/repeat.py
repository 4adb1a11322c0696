"""Show a token again, as RLlib's `RepeatAfterMeEnv` and `RepeatInitialObsEnv`: some steps later, or all along."""

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
        _require_steps(self)

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
        _require_steps(self)

    @property
    def observation_space(self) -> Discrete:
        return Discrete(2)

    @property
    def action_space(self) -> Discrete:
        return Discrete(2)

    def reset(self, key: Key) -> tuple[RepeatInitialObsState, Array]:
        token = _token(key)
        return RepeatInitialObsState(token, jnp.int32(0)), token

    def step(self, state: RepeatInitialObsState, action: Array, key: Key) -> tuple[RepeatInitialObsState, Step]:
        steps = state.steps + 1
        reward = jnp.where(action == state.token, 1.0, -1.0)
        ended = steps >= self.episode_len
        return state._replace(steps=steps), Step(jnp.int32(0), reward, ended, jnp.asarray(False), {})


def _token(key: Key) -> Array:
    return jax.random.bernoulli(key).astype(jnp.int32)


def _require_steps(env: RepeatAfterMe | RepeatInitialObs) -> None:
    if env.episode_len < 1:
        raise ValueError(f"{type(env).__name__}(episode_len={env.episode_len}): expected at least 1 step")
