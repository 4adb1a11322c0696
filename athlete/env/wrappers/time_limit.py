"""A time limit around any JAX environment."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from athlete.core import Array, EnvWrapper, Key, Step, Tree, hyper


class TimeLimitState(NamedTuple):
    env_state: Tree
    steps: Array  # int32: taken in this episode


@hyper
class TimeLimit(EnvWrapper):
    """Cut every episode of `env` after `max_episode_steps` steps: `truncated` is then true, even if it also terminated.

    Raises:
        ValueError: `max_episode_steps` is below 1.
    """

    max_episode_steps: int

    def __post_init__(self) -> None:
        if self.max_episode_steps < 1:
            raise ValueError(f"TimeLimit(max_episode_steps={self.max_episode_steps}): expected at least 1")

    def reset(self, key: Key) -> tuple[TimeLimitState, Tree]:
        env_state, obs = self.env.reset(key)
        return TimeLimitState(env_state, jnp.int32(0)), obs

    def step(self, state: TimeLimitState, action: Tree, key: Key) -> tuple[TimeLimitState, Step]:
        env_state, step = self.env.step(state.env_state, action, key)
        steps = state.steps + 1
        truncated = step.truncated | (steps >= self.max_episode_steps)
        return TimeLimitState(env_state, steps), step._replace(truncated=truncated)

    def render(self, state: TimeLimitState) -> Array:
        """The picture of `env`, where it draws one."""
        return self.env.render(state.env_state)  # type: ignore[attr-defined]
