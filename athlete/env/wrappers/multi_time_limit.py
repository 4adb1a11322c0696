"""A time limit around any JAX environment of many agents."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from athlete.core import Array, Key, MultiEnvWrapper, MultiStep, Tree, hyper
from athlete.env.wrappers.time_limit import TimeLimitState


@hyper
class MultiTimeLimit(MultiEnvWrapper):
    """Cut every episode of `env` for all of its agents after `max_episode_steps` steps.

    Raises:
        ValueError: `max_episode_steps` is below 1.
    """

    max_episode_steps: int

    def __post_init__(self) -> None:
        if self.max_episode_steps < 1:
            raise ValueError(f"MultiTimeLimit(max_episode_steps={self.max_episode_steps}): expected at least 1")

    def reset(self, key: Key) -> tuple[TimeLimitState, Tree, Tree]:
        env_state, obs, acting = self.env.reset(key)
        return TimeLimitState(env_state, jnp.int32(0)), obs, acting

    def step(self, state: TimeLimitState, action: Tree, key: Key) -> tuple[TimeLimitState, MultiStep]:
        env_state, step = self.env.step(state.env_state, action, key)
        steps = state.steps + 1
        cut = steps >= self.max_episode_steps
        acting = jax.tree.map(lambda asked: asked & ~cut, step.acting)
        return TimeLimitState(env_state, steps), step._replace(all_truncated=step.all_truncated | cut, acting=acting)

    def render(self, state: TimeLimitState) -> Array:
        """The picture of `env`, where it draws one."""
        return self.env.render(state.env_state)  # type: ignore[attr-defined]
