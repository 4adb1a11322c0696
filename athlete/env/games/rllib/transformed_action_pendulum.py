"""Pendulum with another range of actions, as RLlib's `TransformedActionPendulum`."""

from __future__ import annotations

import numpy as np

from athlete.core import Array, Key, Step, hyper
from athlete.env.games.classic.pendulum import Pendulum, PendulumState
from athlete.spaces import Box, Space


@hyper
class TransformedActionPendulum(Pendulum):
    """Pendulum whose torques, from the least to the largest, are asked for by the actions of `actions` `[1]`."""

    actions: Space = Box(-1.0, 1.0, (1,))

    @property
    def action_space(self) -> Box:
        assert isinstance(self.actions, Box)
        return self.actions

    def step(self, state: PendulumState, action: Array, key: Key) -> tuple[PendulumState, Step]:
        low, high = np.asarray(self.action_space.low), np.asarray(self.action_space.high)
        share = (action - low) / (high - low)
        return super().step(state, (2.0 * share - 1.0) * self.max_torque, key)
