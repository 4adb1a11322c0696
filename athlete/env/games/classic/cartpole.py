"""CartPole in JAX: Gymnasium's `CartPole-v1` without its time limit, in float32."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete import spaces
from athlete.core import Array, Env, Key, Step, hyper


class CartPoleState(NamedTuple):
    physics: Array  # [4]: cart position (m), its velocity, pole angle (rad, 0 is upright), its velocity


@hyper
class CartPole(Env):
    """Keep a pole upright on a cart by pushing the cart left (0) or right (1), until it falls or leaves the track.

    The fields are the physics, in SI units, and may be swept. The limits are constants because they shape the spaces.
    """

    gravity: float = 9.8
    masscart: float = 1.0
    masspole: float = 0.1
    length: float = 0.5  # half of the pole's length
    force_mag: float = 10.0
    tau: float = 0.02  # seconds a step
    sutton_barto_reward: bool = False  # 0 a step and -1 at the end, instead of 1 a step

    render_fps: ClassVar[int] = 50
    x_threshold: ClassVar[float] = 2.4
    theta_threshold_radians: ClassVar[float] = 12 * 2 * math.pi / 360

    @property
    def observation_space(self) -> spaces.Box:
        # Twice the limits, so that the failing observation is still inside.
        high = np.array([self.x_threshold * 2, np.inf, self.theta_threshold_radians * 2, np.inf], np.float32)
        return spaces.Box(-high, high)

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(2)

    def reset(self, key: Key) -> tuple[CartPoleState, Array]:
        physics = jax.random.uniform(key, (4,), jnp.float32, -0.05, 0.05)
        return CartPoleState(physics), physics

    def step(self, state: CartPoleState, action: Array, key: Key) -> tuple[CartPoleState, Step]:
        _, x_dot, theta, theta_dot = state.physics
        force = (2 * action - 1) * self.force_mag
        cos, sin = jnp.cos(theta), jnp.sin(theta)
        total_mass = self.masspole + self.masscart

        # Florian, "Correct equations for the dynamics of the cart-pole system" (2007), without friction.
        # Fields multiply what varies by row, not each other: a product of two scalars compiles to a loop of its own.
        temp = (force + theta_dot**2 * sin * self.masspole * self.length) / total_mass
        theta_acc = (sin * self.gravity - cos * temp) / (4.0 / 3.0 - cos**2 * self.masspole / total_mass) / self.length
        x_acc = temp - theta_acc * cos * self.masspole * self.length / total_mass
        physics = state.physics + self.tau * jnp.stack([x_dot, x_acc, theta_dot, theta_acc])

        fallen = (abs(physics[0]) > self.x_threshold) | (abs(physics[2]) > self.theta_threshold_radians)
        reward = -fallen.astype(jnp.float32) if self.sutton_barto_reward else jnp.float32(1.0)
        return CartPoleState(physics), Step(physics, jnp.asarray(reward), fallen, jnp.asarray(False), {})

    def render(self, state: CartPoleState) -> np.ndarray:
        """A picture, uint8 `[96, 160, 3]`, of the whole track: the cart is dark, the pole brown."""
        x, _, angle, _ = np.asarray(state.physics)
        metres = (np.arange(160) - 79.5) / 160 * 2 * self.x_threshold
        across, up = metres[None, :] - x, -(np.arange(96)[:, None] - 71.5) / 160 * 2 * self.x_threshold
        along, aside = across * math.sin(angle) + up * math.cos(angle), across * math.cos(angle) - up * math.sin(angle)
        picture = np.full((96, 160, 3), 255, np.uint8)
        picture[72] = 120  # the track
        picture[(np.abs(across) < 0.25) & (np.abs(up) < 0.15)] = (40, 40, 40)
        picture[(along > 0) & (along < 2 * float(self.length)) & (np.abs(aside) < 0.05)] = (200, 150, 100)
        return picture
