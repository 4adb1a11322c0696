"""The last observations of any JAX environment as one, so that a network without memory sees what moves."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Env, EnvWrapper, Key, Step, Tree, hyper
from athlete.ops.random import wrap
from athlete.ops.sampling import sample
from athlete.spaces import Box, Space


class FrameStackState(NamedTuple):
    env_state: Tree
    frames: Array  # the last observation that was shown


@hyper
class FrameStack(EnvWrapper):
    """The last `stack_size` observations of `env`, joined along their last axis, the oldest first.

    Pictures `[H, W, C]` become `[H, W, stack_size * C]`. An episode begins with its first observation `stack_size`
    times, as `padding_type="reset"` of Gymnasium's FrameStackObservation has it (which stacks along a new first axis).

    Raises:
        ValueError: `stack_size` is below 1, or observations are no Box or have no axis.
    """

    stack_size: int = 4

    def __post_init__(self) -> None:
        shown = self.env.observation_space
        if self.stack_size < 1:
            raise ValueError(f"FrameStack(stack_size={self.stack_size}): expected at least 1")
        if not isinstance(shown, Box) or not shown.shape:
            raise ValueError(
                f"FrameStack: observations must be a Box with an axis to join along, and these are {shown}"
            )

    @property
    def observation_space(self) -> Space:
        shown = self.env.observation_space
        assert isinstance(shown, Box)
        low, high = (np.concatenate([bound] * self.stack_size, axis=-1) for bound in (shown.low, shown.high))
        return Box(low, high, dtype=shown.dtype)

    def reset(self, key: Key) -> tuple[FrameStackState, Array]:
        env_state, obs = self.env.reset(key)
        frames = jnp.concatenate([obs] * self.stack_size, axis=-1)
        return FrameStackState(env_state, frames), frames

    def step(self, state: FrameStackState, action: Tree, key: Key) -> tuple[FrameStackState, Step]:
        env_state, step = self.env.step(state.env_state, action, key)
        frames = jnp.concatenate([state.frames[..., step.obs.shape[-1] :], step.obs], axis=-1)
        return FrameStackState(env_state, frames), step._replace(obs=frames)

    def render(self, state: FrameStackState) -> Array:
        """The picture of `env`, where it draws one."""
        return self.env.render(state.env_state)  # type: ignore[attr-defined]


def require_stack(env: Env, axis: int) -> None:
    """Raise ValueError unless a step of `env` drops one index of its observations' `axis` and adds one at the end.

    Only then may a memory store each frame once.
    """

    def first_step(key: Key) -> tuple[Tree, Tree]:
        reset_key, action_key, step_key = jax.random.split(wrap(key), 3)
        state, obs = env.reset(reset_key)
        _, step = env.step(state, sample(env.action_space, action_key), step_key)
        return obs, step.obs

    obs, next_obs = (np.moveaxis(np.asarray(part), axis, 0) for part in jax.jit(first_step)(np.zeros(2, np.uint32)))
    if not np.array_equal(obs[1:], next_obs[:-1]):
        raise ValueError(
            f"replay_buffer_config={{'stack_axis': {axis}}}: a step does not move observations of shape "
            f"{list(env.observation_space.shape)} by one along this axis, so that they are no stack of single frames "
            "along it (FrameStack of frames with several channels is none); leave stack_axis out"
        )
