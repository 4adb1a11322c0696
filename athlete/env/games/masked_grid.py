"""A grid whose edges must not be walked into: what masks of actions are for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Env, Key, Step, Tree, hyper
from athlete.spaces import ACTION_MASK, Dict, Discrete, MultiBinary, MultiDiscrete, Space

MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # up, down, left, right


class MaskedGridState(NamedTuple):
    position: Array  # int32 [2], row and column
    goal: Array
    steps: Array


@hyper
class MaskedGrid(Env):
    """Find the way from one random cell to another; a step over the edge is illegal and ends the episode with -1.

    Observations are `{"observations": [row, column, goal's row, goal's column], "action_mask": [4]}`. Reaching the goal
    gives 1 and ends the episode, any other step costs 0.04. After 20 steps the episode is cut: so its return is at most
    -1 where it took an illegal action, and above it else. The best mean return on the grid of 5 by 5 is 0.907: cells
    are 10/3 steps apart on average, and the last step is free.
    """

    size: int = 5
    limit: int = 20  # steps

    @property
    def observation_space(self) -> Space:
        return Dict({"observations": MultiDiscrete((self.size,) * 4), ACTION_MASK: MultiBinary((4,))})

    @property
    def action_space(self) -> Space:
        return Discrete(4)

    def reset(self, key: Key) -> tuple[MaskedGridState, Tree]:
        cells, draws = self.size**2, jax.random.randint(key, (2,), 0, jnp.array([self.size**2, self.size**2 - 1]))
        start, goal = draws[0], (draws[0] + 1 + draws[1]) % cells  # any cell but the first
        state = MaskedGridState(self._cell(start), self._cell(goal), jnp.zeros((), jnp.int32))
        return state, self._observe(state)

    def step(self, state: MaskedGridState, action: Array, key: Key) -> tuple[MaskedGridState, Step]:
        legal = self._legal(state)[action]
        position = state.position + jnp.where(legal, jnp.array(MOVES)[action], 0)
        state = MaskedGridState(position, state.goal, state.steps + 1)
        reached = jnp.all(position == state.goal) & legal
        reward = jnp.where(legal, jnp.where(reached, 1.0, -0.04), -1.0)
        ended = reached | ~legal
        return state, Step(self._observe(state), reward, ended, ~ended & (state.steps >= self.limit), {})

    def _cell(self, number: Array) -> Array:
        return jnp.stack([number // self.size, number % self.size]).astype(jnp.int32)

    def _legal(self, state: MaskedGridState) -> Array:
        reached = state.position + jnp.array(MOVES)
        return jnp.all((reached >= 0) & (reached < self.size), axis=-1)

    def _observe(self, state: MaskedGridState) -> Tree:
        seen = jnp.concatenate([state.position, state.goal])
        return {"observations": seen, ACTION_MASK: self._legal(state).astype(jnp.int8)}


def make_masked_grid(env_id: str, env_config: Mapping[str, Any]) -> MaskedGrid:
    """`"MaskedGrid-v0"`; `env_config` holds its fields."""
    return MaskedGrid(**env_config)
