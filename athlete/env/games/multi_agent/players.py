"""Players of the games that need no learning: what policies are measured against.

A player is a function `(obs, key) -> action` of what one agent observes, without leading axes; `as_heuristic` makes it
a policy. All choose at random among moves that are equally good to them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Key, Tree
from athlete.env.games.multi_agent.connect_four import COLUMNS, has_four, landing
from athlete.env.games.multi_agent.tic_tac_toe import LINES
from athlete.spaces import ACTION_MASK

POWERS = 3 ** np.arange(9)  # of the cells, in the number of a board


@functools.cache
def as_heuristic(player: Callable[[Tree, Key], Array]) -> Callable[[Tree, Key], Array]:
    """A player as a policy, as `PolicySpec` takes it: of observations `[B, ...]`."""

    def act(obs: Tree, key: Key) -> Array:
        keys = jax.random.split(key, jax.tree.leaves(obs)[0].shape[0])
        return jax.vmap(player)(obs, keys)

    return act


def random_legal(obs: Tree, key: Key) -> Array:
    """Any action that the mask of the observation allows."""
    return _any_of(obs[ACTION_MASK] > 0, key)


def beat_last(obs: Array, key: Key) -> Array:
    """Rock-paper-scissors: what beats the other's last move. RLlib's `BeatLastHeuristic`."""
    return (obs + 1) % 3


@functools.cache
def tic_tac_toe_values() -> np.ndarray:
    """What each board is worth to who moves: 1 won, 0 drawn, -1 lost, int8 `[3**9]`; by dynamic programming.

    The number of a board is the sum over cells of `3**cell`, once for a stone of the mover's and twice for one of the
    other's.
    """
    boards = np.arange(3**9)[:, None] // POWERS % 3
    placed = boards[:, None] + np.eye(9, dtype=int)  # [board, cell, 9]: with a stone of the mover's more
    after = (np.array([0, 2, 1, 0])[placed] * POWERS).sum(axis=2)  # as the other sees it; nonsense on a taken cell
    lost = (boards[:, LINES] == 2).all(axis=2).any(axis=1)
    stones = (boards > 0).sum(axis=1)
    values = np.where(lost, -1, 0).astype(np.int8)
    for count in range(8, -1, -1):
        open_ = (stones == count) & ~lost
        best = np.where(boards[open_] == 0, -values[after[open_]], -1).max(axis=1)
        values[open_] = best
    return values


def perfect_tic_tac_toe(obs: Tree, key: Key) -> Array:
    """A move of tic-tac-toe with the best outcome that the other cannot prevent."""
    own, other = jnp.moveaxis(obs["observations"].reshape(9, 2), 1, 0).astype(jnp.int32)
    empty = (own + other) == 0
    # The other's own stones count once and the mover's twice in the boards that the other will see.
    after = jnp.sum((other + 2 * own) * POWERS) + 2 * POWERS
    worth = -jnp.asarray(tic_tac_toe_values(), jnp.int32)[jnp.where(empty, after, 0)]
    worth = jnp.where(empty, worth, -2)
    return _any_of(worth == jnp.max(worth), key)


def connect_four_minimax(obs: Tree, key: Key, depth: int = 2) -> Array:
    """A move of connect four that is best when looking `depth` moves ahead; who has not won or lost by then has drawn.

    With 1 it wins where it can at once; with 2 it also prevents that the other can. Of two ways to win, or to lose,
    none is preferred for being shorter. Costs grow as `7**depth`.
    """
    own, other = jnp.moveaxis(obs["observations"] > 0, -1, 0)
    worth = _worth_of_moves(own, other, depth)
    return _any_of(worth == jnp.max(worth), key)


def _worth_of_moves(own: Array, other: Array, depth: int) -> Array:
    """What each column is worth to who moves, `[7]`: 1, 0 or -1, and -2 where it is full."""

    def of_column(column: Array) -> Array:
        cell = landing(own | other, column)
        mine = own | cell
        reply = jnp.zeros(())
        if depth > 1:
            replies = _worth_of_moves(other, mine, depth - 1)
            reply = jnp.where(jnp.max(replies) == -2, 0.0, -jnp.max(replies))  # a full board is a draw
        return jnp.where(jnp.any(cell), jnp.where(has_four(mine), 1.0, reply), -2.0)

    return jax.vmap(of_column)(jnp.arange(COLUMNS))


def _any_of(good: Array, key: Key) -> Array:
    """One of the actions `[n]` for which it holds, all alike."""
    return jnp.argmax(jnp.where(good, jax.random.uniform(key, good.shape, minval=0.1), 0.0)).astype(jnp.int32)
