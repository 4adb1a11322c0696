"""Mountain Car with a continuous force in JAX: Gymnasium's `MountainCarContinuous-v0` without its time limit."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp

from athlete import spaces
from athlete.core import Array, Key, Step, hyper
from athlete.env.games.classic.mountain_car import MountainCar, MountainCarState


@hyper
class MountainCarContinuous(MountainCar):
    """Mountain Car driven by a force in [-1, 1]: 100 at the goal, minus a tenth of the force's square every step.

    The hill, the limits and the start are those of `MountainCar`; `force` is the engine's power.
    """

    force: float = 0.0015
    goal_position: float = 0.45

    max_force: ClassVar[float] = 1.0

    @property
    def action_space(self) -> spaces.Box:  # type: ignore[override]
        return spaces.Box(-self.max_force, self.max_force, (1,))

    def step(self, state: MountainCarState, action: Array, key: Key) -> tuple[MountainCarState, Step]:
        force = action[0]
        physics, arrived = self.drive(state.physics, jnp.clip(force, -self.max_force, self.max_force) * self.force)
        reward = jnp.where(arrived, 100.0, 0.0) - 0.1 * force**2
        return MountainCarState(physics), Step(physics, reward, arrived, jnp.asarray(False), {})
