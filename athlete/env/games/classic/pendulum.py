"""Pendulum in JAX: Gymnasium's `Pendulum-v1` without its time limit, in float32."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete import spaces
from athlete.core import Array, Env, Key, Step, hyper


class PendulumState(NamedTuple):
    physics: Array  # [2]: angle (rad in [-pi, pi), 0 is upright), its velocity


@hyper
class Pendulum(Env):
    """Swing a pendulum up and hold it there by a torque in [-2, 2]; an episode never terminates.

    The fields are the physics, in SI units, and may be swept. The limits are constants because they shape the spaces.
    The angle is kept in [-pi, pi), where Gymnasium lets it grow: the same observations and rewards, and float32 keeps
    its precision however long the episode.
    """

    g: float = 10.0
    m: float = 1.0
    l: float = 1.0
    dt: float = 0.05

    max_speed: ClassVar[float] = 8.0
    max_torque: ClassVar[float] = 2.0

    @property
    def observation_space(self) -> spaces.Box:
        high = np.array([1.0, 1.0, self.max_speed], np.float32)
        return spaces.Box(-high, high)

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-self.max_torque, self.max_torque, (1,))

    def reset(self, key: Key) -> tuple[PendulumState, Array]:
        high = np.array([math.pi, 1.0], np.float32)
        physics = jax.random.uniform(key, (2,), jnp.float32, -high, high)
        return PendulumState(physics), _observe(physics)

    def step(self, state: PendulumState, action: Array, key: Key) -> tuple[PendulumState, Step]:
        theta, theta_dot = state.physics
        torque = jnp.clip(action[0], -self.max_torque, self.max_torque)
        cost = theta**2 + 0.1 * theta_dot**2 + 0.001 * torque**2

        acceleration = (1.5 * jnp.sin(theta) * self.g + 3.0 * torque / self.m / self.l) / self.l
        theta_dot = jnp.clip(theta_dot + acceleration * self.dt, -self.max_speed, self.max_speed)
        theta = theta + theta_dot * self.dt
        theta = theta - 2 * math.pi * jnp.floor((theta + math.pi) / (2 * math.pi))
        physics = jnp.stack([theta, theta_dot])
        never = jnp.asarray(False)
        return PendulumState(physics), Step(_observe(physics), -cost, never, never, {})


def _observe(physics: Array) -> Array:
    theta, theta_dot = physics
    return jnp.stack([jnp.cos(theta), jnp.sin(theta), theta_dot])
