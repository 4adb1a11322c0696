"""The arena of RLlib's tutorial: one agent covers a grid, the other gets into its way."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Group, Key, MultiEnv, MultiStep, Tree, hyper
from athlete.spaces import Discrete, MultiDiscrete

MOVES = np.array([[-1, 0], [0, 1], [1, 0], [0, -1]], np.int32)  # up, right, down, left
CELL = 24  # pixels along a cell's side, in pictures
EMPTY, VISITED, FIRST, SECOND = (235, 235, 230), (170, 200, 235), (40, 90, 200), (220, 90, 40)


class ArenaState(NamedTuple):
    first: Array  # int32 [2]: row and column of agent1
    second: Array  # of agent2
    visited: Array  # bool [height, width]: by agent1
    steps: Array  # int32: taken in this episode


@hyper
class MultiAgentArena(MultiEnv):
    """`agent1` is to visit as many cells as it can, `agent2` to run into it, on a grid of `height` by `width` cells.

    They start in the upper left and the lower right corner. In a step `agent2` moves first, then `agent1`: up, right,
    down, left, and nowhere against a wall. Who would step onto the other stays where it is, which is a collision.
    In a step with a collision `agent1` gets -1 and `agent2` 1; in others `agent1` gets 1 for a cell that it had not
    visited and -0.5 else, and `agent2` -0.1. Each observes the numbers of its own cell and the other's, counted row by
    row. An episode is cut after `timestep_limit` steps.

    The environment of the RLlib tutorials of 2021 and 2022 (S. Mika), of the same name.
    """

    width: int = 10
    height: int = 10
    timestep_limit: int = 100

    always_acting = True
    render_fps: ClassVar[int] = 8

    @property
    def groups(self) -> dict[str, Group]:
        group = Group(1, MultiDiscrete((self.width * self.height,) * 2), Discrete(4))
        return {"agent1": group, "agent2": group}

    def reset(self, key: Key) -> tuple[ArenaState, Tree, Tree]:
        first, second = jnp.zeros(2, jnp.int32), jnp.array([self.height - 1, self.width - 1], jnp.int32)
        state = ArenaState(first, second, self._cell(first), jnp.int32(0))
        return state, self._observe(state), ()

    def step(self, state: ArenaState, action: Tree, key: Key) -> tuple[ArenaState, MultiStep]:
        second, ran_into = self._move(state.second, action["agent2"][0], state.first)
        first, was_blocked = self._move(state.first, action["agent1"][0], second)
        collision, cell = ran_into | was_blocked, self._cell(first)
        is_new = ~jnp.any(state.visited & cell)
        state = ArenaState(first, second, state.visited | cell, state.steps + 1)
        reward = {
            "agent1": jnp.where(collision, -1.0, jnp.where(is_new, 1.0, -0.5))[None],
            "agent2": jnp.where(collision, 1.0, -0.1)[None],
        }
        return state, MultiStep(self._observe(state), reward, jnp.asarray(False), state.steps >= self.timestep_limit)

    def render(self, state: ArenaState) -> np.ndarray:
        """A picture, uint8 `[24 height, 24 width, 3]`: `agent1` is blue, its cells light blue, `agent2` orange."""
        picture = np.where(np.asarray(state.visited)[..., None], VISITED, EMPTY).astype(np.uint8)
        picture = picture.repeat(CELL, axis=0).repeat(CELL, axis=1)
        picture[::CELL] = picture[:, ::CELL] = 120
        for (row, column), colour in ((np.asarray(state.first), FIRST), (np.asarray(state.second), SECOND)):
            top, left = row * CELL, column * CELL
            picture[top + 5 : top + CELL - 4, left + 5 : left + CELL - 4] = colour
        return picture

    def _move(self, position: Array, action: Array, other: Array) -> tuple[Array, Array]:
        """Where an agent comes to, and whether the other was in its way."""
        reached = position + jnp.asarray(MOVES)[action]
        blocked = jnp.all(reached == other)
        inside = jnp.clip(reached, 0, jnp.array([self.height - 1, self.width - 1]))
        return jnp.where(blocked, position, inside), blocked

    def _cell(self, position: Array) -> Array:
        """The grid, bool `[height, width]`, with one cell marked."""
        return (jnp.arange(self.height)[:, None] == position[0]) & (jnp.arange(self.width) == position[1])

    def _observe(self, state: ArenaState) -> Tree:
        numbers = jnp.stack([at[0] * self.width + at[1] for at in (state.first, state.second)])
        return {"agent1": numbers[None], "agent2": numbers[None, ::-1]}
