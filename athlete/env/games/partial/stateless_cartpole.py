"""CartPole without velocities, as RLlib's `StatelessCartPole`."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from athlete import spaces
from athlete.core import Array, Key, Step, hyper
from athlete.env.games.classic.cartpole import CartPole, CartPoleState


@hyper
class StatelessCartPole(CartPole):
    """CartPole that shows only the cart's position (m) and the pole's angle (rad), `[2]`; all else is CartPole's.

    The velocities follow from two observations in a row, so a policy needs memory to balance.
    """

    render_fps: ClassVar[int] = 50

    @property
    def observation_space(self) -> spaces.Box:
        high = np.array([self.x_threshold * 2, self.theta_threshold_radians * 2], np.float32)
        return spaces.Box(-high, high)

    def reset(self, key: Key) -> tuple[CartPoleState, Array]:
        state, obs = super().reset(key)
        return state, obs[::2]

    def step(self, state: CartPoleState, action: Array, key: Key) -> tuple[CartPoleState, Step]:
        state, step = super().step(state, action, key)
        return state, step._replace(obs=step.obs[::2])

    def render(self, state: CartPoleState) -> Array:
        """Gymnasium's picture of the cart and the pole, uint8 `[400, 600, 3]`."""
        from athlete.env.adapters.gymnasium import draw_cartpole

        return draw_cartpole(np.asarray(state.physics, np.float64))
