"""Who judges goals: the `compute_reward` of an environment, compiled or called back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.buffer_callback import buffer_callback

from athlete.core import Array, Env, EnvWrapper, hyper
from athlete.core.goals import ACHIEVED_GOAL, DESIRED_GOAL, OBSERVATION, Goals
from athlete.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space

_FORM = (
    f"observations {{{OBSERVATION!r}, {ACHIEVED_GOAL!r}, {DESIRED_GOAL!r}}} and a method "
    f"compute_reward({ACHIEVED_GOAL}, {DESIRED_GOAL}, info)"
)


@hyper
class CompiledGoals(Goals):
    """By the methods of a JAX environment, which see one row: `compute_reward` and, where it has it,
    `compute_terminated`.
    """

    env: Env

    def judge(self, achieved_goal: Array, desired_goal: Array, terminated: Array) -> tuple[Array, Array]:
        env: Any = self.env
        reward = jax.vmap(lambda *goals: env.compute_reward(*goals, {}))(achieved_goal, desired_goal)
        if hasattr(env, "compute_terminated"):
            terminated = jax.vmap(lambda *goals: env.compute_terminated(*goals, {}))(achieved_goal, desired_goal)
        return reward.astype(jnp.float32), jnp.asarray(terminated, bool)


@hyper
class HostedGoals(Goals):
    """By functions of NumPy, which see batches `[N, ...]`: `compute_reward` of Gymnasium-Robotics' environments.

    Compiled programs call them back; `compute_terminated` may be None.
    """

    compute_reward: Callable[..., Any]
    compute_terminated: Callable[..., Any] | None = None

    def judge(self, achieved_goal: Array, desired_goal: Array, terminated: Array) -> tuple[Array, Array]:
        number = terminated.shape
        results = jax.ShapeDtypeStruct(number, np.float32), jax.ShapeDtypeStruct(number, np.bool_)
        arguments = achieved_goal, desired_goal, terminated
        # In place, as environments are stepped: what a callback puts on the device may wait for the program itself.
        in_place = buffer_callback(self._write, results)
        copied = functools.partial(jax.pure_callback, self.found, results)
        return jax.lax.platform_dependent(*arguments, cpu=in_place, default=copied)

    def found(self, achieved_goal: Any, desired_goal: Any, terminated: Any) -> tuple[np.ndarray, np.ndarray]:
        """What the functions say, in NumPy."""
        goals = np.asarray(achieved_goal), np.asarray(desired_goal)
        ended = np.asarray(terminated) if self.compute_terminated is None else self.compute_terminated(*goals, {})
        number = np.shape(terminated)
        return np.asarray(self.compute_reward(*goals, {}), np.float32), np.broadcast_to(np.asarray(ended, bool), number)

    def _write(self, _: Any, results: Any, *arguments: Any) -> None:
        for result, found in zip(results, self.found(*arguments), strict=True):
            np.asarray(result)[...] = found


def goals_of(env: Any, obs_space: Space, name: str) -> Goals:
    """Who judges the goals of an environment, of JAX or of Gymnasium, whose observations are of `obs_space`.

    Raises ValueError, calling it `name`, where it has none, or where its `compute_reward` does not see batches.
    """
    env = env if isinstance(env, Env) else env.unwrapped
    while isinstance(env, EnvWrapper) and not hasattr(env, "compute_reward"):
        env = env.env
    goal = _goal_space(obs_space)
    if goal is None or not callable(getattr(env, "compute_reward", None)):
        raise ValueError(f"hindsight needs an environment with goals: {_FORM}; {name} has observations {obs_space}")
    if isinstance(env, Env):
        return CompiledGoals(env)
    goals = HostedGoals(env.compute_reward, getattr(env, "compute_terminated", None))
    zeros = np.zeros((2, *goal.shape), goal.dtype)
    try:
        rewards = goals.found(zeros, zeros, np.zeros(2, bool))[0]
    except Exception as error:
        raise ValueError(f"{name}: compute_reward of two goals {list(zeros.shape)} raises {error!r}") from error
    if rewards.shape != (2,):
        raise ValueError(
            f"{name}: compute_reward of two goals {list(zeros.shape)} gives {list(rewards.shape)}; it must give two "
            "rewards [2], as hindsight asks for many at once"
        )
    return goals


def _goal_space(obs_space: Space) -> Space | None:
    """The space of goals, where observations have them as arrays."""
    parts = dict(obs_space.items) if isinstance(obs_space, Dict) else {}
    goal = parts.get(DESIRED_GOAL)
    arrays = isinstance(goal, Box | Discrete | MultiBinary | MultiDiscrete)
    return goal if arrays and parts.get(ACHIEVED_GOAL) == goal and OBSERVATION in parts else None
