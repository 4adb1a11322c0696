"""Deep exploration in its purest form: bsuite's Deep Sea (Osband et al. 2020, arXiv:1908.03568, section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Env, Key, Step, hyper
from athlete.env.registry import EnvContext, create
from athlete.spaces import Box, Discrete

MOVE_COST = 0.01  # of `size` moves to the right together
TREASURE = 1.0


class DeepSeaState(NamedTuple):
    row: Array  # int32: steps taken
    column: Array  # int32


@hyper
class DeepSea(Env):
    """A diver sinks through a grid of `size` by `size`, a row a step, one column to the left or to the right.

    The observation is the grid `[size, size]`, 1 where the diver is and else 0; all 0 after the last step. It starts
    in the upper left corner, and an episode has `size` steps. A move to the right costs `0.01 / size`, one to the left
    nothing (at the edge the diver stays in its column). A move to the right in the lower right corner finds the
    treasure, 1: so only the episode of `size` moves to the right does, whose return, 0.99, is the best one. Staying on
    the left gives 0, and uniformly random actions find the treasure once in `2 ** size` episodes.

    Which of the two actions is the right one differs from cell to cell: it is drawn once from `mapping_seed`, and every
    episode and row has the same. With `randomize_actions=False` action 1 is to the right everywhere. The treasure is
    always there and the moves always succeed: bsuite's stochastic version is not served.

    Raises:
        ValueError: `size` is below 1.
    """

    size: int = 10
    randomize_actions: bool = True
    mapping_seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"DeepSea(size={self.size}): expected a grid of at least 1 cell")

    @property
    def observation_space(self) -> Box:
        return Box(0.0, 1.0, (self.size, self.size))

    @property
    def action_space(self) -> Discrete:
        return Discrete(2)

    @property
    def right_actions(self) -> np.ndarray:
        """The action that moves to the right in each cell, `[size, size]` int32."""
        shape = (self.size, self.size)
        if not self.randomize_actions:
            return np.ones(shape, np.int32)
        return np.random.default_rng(self.mapping_seed).integers(0, 2, shape, np.int32)

    def reset(self, key: Key) -> tuple[DeepSeaState, Array]:
        state = DeepSeaState(jnp.int32(0), jnp.int32(0))
        return state, self._observe(state)

    def step(self, state: DeepSeaState, action: Array, key: Key) -> tuple[DeepSeaState, Step]:
        right = action == jnp.asarray(self.right_actions)[state.row, state.column]
        found = right & (state.column == self.size - 1)
        reward = jnp.where(right, -MOVE_COST / self.size, 0.0) + jnp.where(found, TREASURE, 0.0)
        column = jnp.clip(state.column + jnp.where(right, 1, -1), 0, self.size - 1)
        state = DeepSeaState(state.row + 1, column)
        return state, Step(self._observe(state), reward, state.row >= self.size, jnp.asarray(False), {})

    def _observe(self, state: DeepSeaState) -> Array:
        cells = jnp.arange(self.size)
        return ((cells[:, None] == state.row) & (cells == state.column)).astype(jnp.float32)


def make_deep_sea(env_id: str, env_config: Mapping[str, Any] | None = None) -> Env:
    """The environment of `"DeepSea-v0"`; `env_config` has its fields. Raises ValueError for an entry that is none."""
    return create(DeepSea, EnvContext(env_config))
