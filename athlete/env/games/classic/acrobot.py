"""Acrobot in JAX: Gymnasium's `Acrobot-v1` without its time limit, in float32."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete import spaces
from athlete.core import Array, Env, Key, Step, hyper


class AcrobotState(NamedTuple):
    physics: Array  # [4]: angle of the upper link (0 hangs), of the lower relative to it, their velocities


@hyper
class Acrobot(Env):
    """Swing the tip of two links above the bar by a torque of -1, 0 or 1 on the joint between; -1 a step until then.

    The fields are the physics, in SI units, and may be swept; `book_or_nips` chooses the equations of Sutton and
    Barto's book ("book") or of Sutton's paper of 1996 ("nips"). The speed limits shape the space and are constants.
    """

    gravity: float = 9.8
    dt: float = 0.2
    link_length_1: float = 1.0
    link_mass_1: float = 1.0
    link_mass_2: float = 1.0
    link_com_pos_1: float = 0.5
    link_com_pos_2: float = 0.5
    link_moi: float = 1.0
    book_or_nips: str = "book"

    max_vel_1: ClassVar[float] = 4 * math.pi
    max_vel_2: ClassVar[float] = 9 * math.pi

    @property
    def observation_space(self) -> spaces.Box:
        high = np.array([1.0, 1.0, 1.0, 1.0, self.max_vel_1, self.max_vel_2], np.float32)
        return spaces.Box(-high, high)

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(3)

    def reset(self, key: Key) -> tuple[AcrobotState, Array]:
        physics = jax.random.uniform(key, (4,), jnp.float32, -0.1, 0.1)
        return AcrobotState(physics), _observe(physics)

    def step(self, state: AcrobotState, action: Array, key: Key) -> tuple[AcrobotState, Step]:
        y, dt, torque = state.physics, self.dt, action - 1.0
        k1 = self._derivative(y, torque)
        k2 = self._derivative(y + dt / 2 * k1, torque)
        k3 = self._derivative(y + dt / 2 * k2, torque)
        k4 = self._derivative(y + dt * k3, torque)
        y = y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

        angles = y[:2] - 2 * math.pi * jnp.round(y[:2] / (2 * math.pi))
        limits = np.array([self.max_vel_1, self.max_vel_2], np.float32)
        physics = jnp.concatenate([angles, jnp.clip(y[2:], -limits, limits)])
        above = -jnp.cos(physics[0]) - jnp.cos(physics[0] + physics[1]) > 1.0
        reward = above.astype(jnp.float32) - 1.0
        return AcrobotState(physics), Step(_observe(physics), reward, above, jnp.asarray(False), {})

    def _derivative(self, physics: Array, torque: Array) -> Array:
        """Velocities and accelerations, `[4]`: the manipulator equation, solved for the two accelerations."""
        theta1, theta2, dtheta1, dtheta2 = physics
        m1, m2, l1, inertia = self.link_mass_1, self.link_mass_2, self.link_length_1, self.link_moi
        lc1, lc2, g = self.link_com_pos_1, self.link_com_pos_2, self.gravity
        coupling_cos = m2 * l1 * lc2 * jnp.cos(theta2)
        coupling_sin = m2 * l1 * lc2 * jnp.sin(theta2)

        # The mass matrix [[d1, d2], [d2, d3]] and the forces on the two joints.
        d3 = m2 * lc2**2 + inertia
        d2 = d3 + coupling_cos
        d1 = m1 * lc1**2 + m2 * l1**2 + inertia + d3 + 2 * coupling_cos
        weight2 = m2 * lc2 * g * jnp.sin(theta1 + theta2)
        weight1 = (m1 * lc1 + m2 * l1) * g * jnp.sin(theta1) + weight2
        force1 = coupling_sin * dtheta2 * (dtheta2 + 2 * dtheta1) - weight1
        force2 = torque - weight2
        if self.book_or_nips == "book":
            force2 = force2 - coupling_sin * dtheta1**2
        determinant = d1 * d3 - d2**2
        acceleration1 = (d3 * force1 - d2 * force2) / determinant
        acceleration2 = (d1 * force2 - d2 * force1) / determinant
        return jnp.stack([dtheta1, dtheta2, acceleration1, acceleration2])


def _observe(physics: Array) -> Array:
    theta1, theta2, dtheta1, dtheta2 = physics
    return jnp.stack([jnp.cos(theta1), jnp.sin(theta1), jnp.cos(theta2), jnp.sin(theta2), dtheta1, dtheta2])
