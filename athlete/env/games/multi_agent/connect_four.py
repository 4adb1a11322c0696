"""Connect four for two agents that take turns."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Group, Key, MultiEnv, MultiStep, Tree, hyper
from athlete.spaces import ACTION_MASK, Box, Dict, Discrete, MultiBinary

ROWS, COLUMNS = 6, 7
PLAYERS = np.arange(2)
DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))  # of lines, in rows and columns
CELL = 32  # pixels along a cell's side, in pictures
COLOURS = np.array([[245, 245, 245], [215, 60, 50], [245, 205, 60]], np.uint8)  # empty, first player, second player


class ConnectFourState(NamedTuple):
    board: Array  # int32 [6, 7], the highest row first: 0 empty, 1 the first player's, 2 the second's
    turn: Array  # int32: whose move it is, 0 or 1


@hyper
class ConnectFour(MultiEnv):
    """Stones fall down one of seven columns; four in a row, column or diagonal win. `player_0` moves first.

    Observations are `{"observations": [6, 7, 2], "action_mask": [7]}`: a player's own stones and the other's, as zeros
    and ones, the highest row first, and which columns have room. Actions are columns. The winner gets 1 and the loser
    -1 when the game ends, both 0 in a draw and before. A stone for a full column loses the game: masks prevent it.
    """

    render_fps: ClassVar[int] = 1

    @property
    def groups(self) -> dict[str, Group]:
        obs = Dict({"observations": Box(0.0, 1.0, (ROWS, COLUMNS, 2)), ACTION_MASK: MultiBinary((COLUMNS,))})
        return {"player": Group(2, obs, Discrete(COLUMNS))}

    def reset(self, key: Key) -> tuple[ConnectFourState, Tree, Tree]:
        state = ConnectFourState(jnp.zeros((ROWS, COLUMNS), jnp.int32), jnp.int32(0))
        return state, self._observe(state), {"player": jnp.asarray(PLAYERS == 0)}

    def step(self, state: ConnectFourState, action: Tree, key: Key) -> tuple[ConnectFourState, MultiStep]:
        mover = state.turn
        column = jnp.where(mover == 0, *action["player"])
        cell = landing(state.board != 0, column)
        legal = jnp.any(cell)
        board = jnp.where(cell, mover + 1, state.board)
        won = legal & has_four(board == mover + 1)
        over = won | ~legal | jnp.all(board != 0)
        gain = won.astype(jnp.float32) - (~legal).astype(jnp.float32)
        state = ConnectFourState(board, 1 - mover)
        nobody = jnp.zeros(2, bool)
        return state, MultiStep(
            obs=self._observe(state),
            reward={"player": jnp.where(mover == PLAYERS, gain, -gain)},
            all_terminated=over,
            all_truncated=jnp.asarray(False),
            acting={"player": (state.turn == PLAYERS) & ~over},
            terminated={"player": nobody | over},
            truncated={"player": nobody},
        )

    def render(self, state: ConnectFourState) -> np.ndarray:
        """A picture, uint8 `[192, 224, 3]`: the first player's stones are red, the second's yellow."""
        centred = np.arange(CELL) - (CELL - 1) / 2
        disc = np.hypot(centred[:, None], centred[None]) < 0.42 * CELL
        stones = COLOURS[np.asarray(state.board)].repeat(CELL, axis=0).repeat(CELL, axis=1)
        return np.where(np.tile(disc, (ROWS, COLUMNS))[..., None], stones, np.array([40, 80, 190], np.uint8))

    def _observe(self, state: ConnectFourState) -> Tree:
        own = jnp.stack([state.board == 1, state.board == 2])  # of each player
        stones = jnp.stack([own, own[::-1]], axis=-1).astype(jnp.float32)
        room = jnp.broadcast_to(state.board[0] == 0, (2, COLUMNS)).astype(jnp.int8)
        return {"player": {"observations": stones, ACTION_MASK: room}}


def landing(taken: Array, column: Array) -> Array:
    """The cell `[6, 7]` in which a stone for the column comes to lie, bool; none where the column is full."""
    height = jnp.sum(taken, axis=0)
    return (jnp.arange(ROWS)[:, None] == ROWS - 1 - height) & (jnp.arange(COLUMNS) == column)


def has_four(own: Array) -> Array:
    """Whether stones `[6, 7]`, bool, have four in a line."""
    found = jnp.asarray(False)
    for down, right in DIRECTIONS:
        # Cells from which a line in this direction stays on the board; to the left it starts three columns further in.
        rows, columns, start = ROWS - 3 * down, COLUMNS - 3 * abs(right), 3 * (right < 0)
        cells = [own[i * down :][:rows, start + i * right :][:, :columns] for i in range(4)]
        found |= jnp.any(cells[0] & cells[1] & cells[2] & cells[3])
    return found
