"""Pendulum without its velocity, as RLlib's `StatelessPendulum`."""

from __future__ import annotations

import numpy as np

from athlete import spaces
from athlete.core import Array, Key, Step, hyper
from athlete.env.games.classic.pendulum import Pendulum, PendulumState


@hyper
class StatelessPendulum(Pendulum):
    """Pendulum that shows only the cosine and the sine of its angle, `[2]`; all else is Pendulum's.

    The velocity follows from two observations in a row, so a policy needs memory to swing the pendulum up.
    """

    @property
    def observation_space(self) -> spaces.Box:
        high = np.ones(2, np.float32)
        return spaces.Box(-high, high)

    def reset(self, key: Key) -> tuple[PendulumState, Array]:
        state, obs = super().reset(key)
        return state, obs[:2]

    def step(self, state: PendulumState, action: Array, key: Key) -> tuple[PendulumState, Step]:
        state, step = super().step(state, action, key)
        return state, step._replace(obs=step.obs[:2])
