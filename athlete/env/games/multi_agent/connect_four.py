"""Connect four for two agents that take turns."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from athlete.core import Array, hyper
from athlete.env.games.multi_agent.board_game import BoardGame, BoardState

ROWS, COLUMNS = 6, 7
DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))  # of lines, in rows and columns
CELL = 32  # pixels along a cell's side, in pictures
COLOURS = np.array([[245, 245, 245], [215, 60, 50], [245, 205, 60]], np.uint8)  # empty, first player, second player


@hyper
class ConnectFour(BoardGame):
    """Stones fall down one of seven columns; four in a row, column or diagonal win. `player_0` moves first.

    Observations are `{"observations": [6, 7, 2], "action_mask": [7]}`: a player's own stones and the other's, as zeros
    and ones, the highest row first, and which columns have room. Actions are columns. The winner gets 1 and the loser
    -1 when the game ends, both 0 in a draw and before. A stone for a full column loses the game: masks prevent it.
    """

    shape = (ROWS, COLUMNS)
    num_actions = COLUMNS

    def placed(self, board: Array, action: Array) -> Array:
        return landing(board != 0, action)

    def has_line(self, own: Array) -> Array:
        return has_four(own)

    def legal(self, board: Array) -> Array:
        return board[0] == 0

    def render(self, state: BoardState) -> np.ndarray:
        """A picture, uint8 `[192, 224, 3]`: the first player's stones are red, the second's yellow."""
        centred = np.arange(CELL) - (CELL - 1) / 2
        disc = np.hypot(centred[:, None], centred[None]) < 0.42 * CELL
        stones = COLOURS[np.asarray(state.board)].repeat(CELL, axis=0).repeat(CELL, axis=1)
        return np.where(np.tile(disc, (ROWS, COLUMNS))[..., None], stones, np.array([40, 80, 190], np.uint8))


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
