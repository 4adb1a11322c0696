"""Pendulum with goals: to bring it to any angle, and to rest there for a moment."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Env, Key, Step, Tree, hyper
from athlete.env.games.classic.pendulum import Pendulum, PendulumState
from athlete.spaces import Box, Dict, Space


class GoalPendulumState(NamedTuple):
    pendulum: PendulumState
    goal: Array  # [3], as observed: cos and sin of the angle, the velocity


@hyper
class GoalPendulum(Env):
    """Swing a pendulum that hangs at rest up to an angle within `spread` of upright, where its velocity is to be 0.

    A goal is what Pendulum shows of a state, [cos, sin, velocity]. It is reached within `angle_tolerance` (rad) and
    `velocity_tolerance` (rad/s). Each step costs 1, but the one that reaches the goal, which ends the episode. The
    motor is too weak to get there without swinging, so that random actions hardly ever do.
    """

    pendulum: Pendulum = Pendulum()
    spread: float = 0.5 * math.pi
    angle_tolerance: float = 0.2
    velocity_tolerance: float = 1.0

    @property
    def observation_space(self) -> Space:
        seen = self.pendulum.observation_space
        return Dict({"observation": seen, "achieved_goal": seen, "desired_goal": seen})

    @property
    def action_space(self) -> Box:
        return self.pendulum.action_space

    def reset(self, key: Key) -> tuple[GoalPendulumState, Tree]:
        angle = jax.random.uniform(key, (), jnp.float32, -self.spread, self.spread)
        goal = jnp.stack([jnp.cos(angle), jnp.sin(angle), jnp.zeros(())])
        state = GoalPendulumState(PendulumState(jnp.array([-math.pi, 0.0], jnp.float32)), goal)
        return state, _observe(state, jnp.array([-1.0, 0.0, 0.0], jnp.float32))

    def step(self, state: GoalPendulumState, action: Array, key: Key) -> tuple[GoalPendulumState, Step]:
        pendulum, step = self.pendulum.step(state.pendulum, action, key)
        state = state._replace(pendulum=pendulum)
        reached = self.compute_terminated(step.obs, state.goal, {})
        info = {"is_success": reached.astype(jnp.float32)}
        reward = self.compute_reward(step.obs, state.goal, {})
        return state, Step(_observe(state, step.obs), reward, reached, jnp.asarray(False), info)

    def compute_reward(self, achieved_goal: Array, desired_goal: Array, info: Tree) -> Array:
        """0 where the goal is reached, else -1."""
        return jnp.where(self.compute_terminated(achieved_goal, desired_goal, info), 0.0, -1.0)

    def compute_terminated(self, achieved_goal: Array, desired_goal: Array, info: Tree) -> Array:
        """Whether angle and velocity are within their tolerances of the goal's."""
        cosine = jnp.dot(achieved_goal[:2], desired_goal[:2])
        near = cosine >= jnp.cos(self.angle_tolerance)
        return near & (jnp.abs(achieved_goal[2] - desired_goal[2]) <= self.velocity_tolerance)


def _observe(state: GoalPendulumState, seen: Array) -> Tree:
    return {"observation": seen, "achieved_goal": seen, "desired_goal": state.goal}
