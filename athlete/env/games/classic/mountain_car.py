"""Mountain Car in JAX: Gymnasium's `MountainCar-v0` without its time limit, in float32."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete import spaces
from athlete.core import Array, Env, Key, Step, hyper


class MountainCarState(NamedTuple):
    physics: Array  # [2]: position, velocity a step


@hyper
class MountainCar(Env):
    """Drive an underpowered car up a hill: accelerate left (0), not at all (1) or right (2); -1 a step to the goal.

    The fields are the physics and may be swept. The limits are constants because they shape the spaces.
    """

    force: float = 0.001
    gravity: float = 0.0025
    goal_position: float = 0.5
    goal_velocity: float = 0.0

    min_position: ClassVar[float] = -1.2
    max_position: ClassVar[float] = 0.6
    max_speed: ClassVar[float] = 0.07

    @property
    def observation_space(self) -> spaces.Box:
        low = np.array([self.min_position, -self.max_speed], np.float32)
        return spaces.Box(low, np.array([self.max_position, self.max_speed], np.float32))

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(3)

    def reset(self, key: Key) -> tuple[MountainCarState, Array]:
        position = jax.random.uniform(key, (), jnp.float32, -0.6, -0.4)
        physics = jnp.stack([position, jnp.zeros_like(position)])
        return MountainCarState(physics), physics

    def step(self, state: MountainCarState, action: Array, key: Key) -> tuple[MountainCarState, Step]:
        physics, arrived = self.drive(state.physics, (action - 1) * self.force)
        return MountainCarState(physics), Step(physics, jnp.float32(-1.0), arrived, jnp.asarray(False), {})

    def drive(self, physics: Array, acceleration: Array) -> tuple[Array, Array]:
        """A step along the hill: the new physics and whether the car is at the goal, fast enough."""
        position, velocity = physics
        velocity = velocity + acceleration - jnp.cos(3 * position) * self.gravity
        velocity = jnp.clip(velocity, -self.max_speed, self.max_speed)
        position = jnp.clip(position + velocity, self.min_position, self.max_position)
        velocity = jnp.where((position == self.min_position) & (velocity < 0), 0.0, velocity)
        arrived = (position >= self.goal_position) & (velocity >= self.goal_velocity)
        return jnp.stack([position, velocity]), arrived
