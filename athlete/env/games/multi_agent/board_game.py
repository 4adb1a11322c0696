"""What games have in common in which two agents place stones on a board in turns."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Group, Key, MultiStep, Tree, TurnGame, hyper
from athlete.env.masks import OBSERVATIONS
from athlete.spaces import ACTION_MASK, Box, Dict, Discrete, MultiBinary

PLAYERS = np.arange(2)


class BoardState(NamedTuple):
    board: Array  # int32 [rows, columns]: 0 empty, 1 the first player's stones, 2 the second's
    turn: Array  # int32: whose move it is, 0 or 1


@hyper
class BoardGame(TurnGame):
    """`player_0` and `player_1` place a stone each in turns, until one has a line or the board is full.

    Observations are `{"observations": [rows, columns, 2], "action_mask": [num_actions]}`: a player's own stones and the
    other's, as zeros and ones, and which actions are legal. The winner gets 1 and the loser -1 when the game ends, both
    0 in a draw and before. An action that is not legal loses the game: masks prevent it.

    Subclasses are `@hyper` classes with the board's `shape`, `num_actions` and the three methods.
    """

    render_fps: ClassVar[int] = 1
    shape: ClassVar[tuple[int, int]]
    num_actions: ClassVar[int]

    def placed(self, board: Array, action: Array) -> Array:
        """The cell in which the stone of an action comes to lie, bool `[rows, columns]`; none where it is not legal."""
        raise NotImplementedError

    def has_line(self, own: Array) -> Array:
        """Whether stones, bool `[rows, columns]`, win."""
        raise NotImplementedError

    def legal(self, board: Array) -> Array:
        """Which actions place a stone, bool `[num_actions]`."""
        raise NotImplementedError

    @property
    def groups(self) -> dict[str, Group]:
        mask = MultiBinary((self.num_actions,))
        obs = Dict({OBSERVATIONS: Box(0.0, 1.0, (*self.shape, 2)), ACTION_MASK: mask})
        return {"player": Group(2, obs, Discrete(self.num_actions))}

    def reset(self, key: Key) -> tuple[BoardState, Tree, Tree]:
        state = BoardState(jnp.zeros(self.shape, jnp.int32), jnp.int32(0))
        return state, self._observe(state), {"player": jnp.asarray(PLAYERS == 0)}

    def step(self, state: BoardState, action: Tree, key: Key) -> tuple[BoardState, MultiStep]:
        mover = state.turn
        cell = self.placed(state.board, jnp.where(mover == 0, *action["player"]))
        is_legal = jnp.any(cell)
        board = jnp.where(cell, mover + 1, state.board)
        won = is_legal & self.has_line(board == mover + 1)
        over = won | ~is_legal | jnp.all(board != 0)
        gain = won.astype(jnp.float32) - (~is_legal).astype(jnp.float32)
        state = BoardState(board, 1 - mover)
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

    def mover(self, state: BoardState) -> Array:
        return state.turn

    def state_of(self, obs: Tree) -> BoardState:
        """The first player moves on boards with as many stones of either."""
        own, other = jnp.moveaxis(obs[OBSERVATIONS] > 0, -1, 0)
        turn = jnp.where(jnp.sum(own) == jnp.sum(other), 0, 1).astype(jnp.int32)
        return BoardState(jnp.where(own, 1 + turn, jnp.where(other, 2 - turn, 0)), turn)

    def _observe(self, state: BoardState) -> Tree:
        own = jnp.stack([state.board == 1, state.board == 2])  # of each player
        stones = jnp.stack([own, own[::-1]], axis=-1).astype(jnp.float32)
        legal = jnp.broadcast_to(self.legal(state.board), (2, self.num_actions)).astype(jnp.int8)
        return {"player": {OBSERVATIONS: stones, ACTION_MASK: legal}}
