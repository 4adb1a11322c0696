"""Games that are given as a table of payoffs, among them two in which agents miss the best joint action."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Group, Key, MultiEnv, MultiStep, Tree, hyper
from athlete.spaces import Discrete


class MatrixGameState(NamedTuple):
    rounds: Array  # int32: played in this episode


@hyper
class MatrixGame(MultiEnv):
    """All agents choose one action each, and `payoff` `[agents, actions, ..., actions]` says what each of them gets.

    The axes behind the first are the actions of the agents in their order. An agent observes its own number, which is
    all there is to see. An episode ends after `rounds` rounds of the same game.

    Raises:
        ValueError: the shape of `payoff` does not fit that of a game, or `rounds` is below 1.
    """

    payoff: jax.Array | np.ndarray
    rounds: int = 1

    always_acting = True

    def __post_init__(self) -> None:
        shape = np.shape(self.payoff)
        if len(shape) < 2 or len(shape) != 1 + shape[0] or len(set(shape[1:])) > 1:
            raise ValueError(
                f"MatrixGame: the payoff has the shape {shape}; expected [n, k, ..., k], with one axis of k actions "
                "for each of n agents behind the first; where a team shares one table, `team_game` makes that of it"
            )
        if self.rounds < 1:
            raise ValueError(f"MatrixGame(rounds={self.rounds}): expected at least 1")

    @property
    def groups(self) -> dict[str, Group]:
        agents, actions = np.shape(self.payoff)[:2]
        return {"agent": Group(agents, Discrete(agents), Discrete(actions))}

    def reset(self, key: Key) -> tuple[MatrixGameState, Tree, Tree]:
        return MatrixGameState(jnp.int32(0)), self._observe(), ()

    def step(self, state: MatrixGameState, action: Tree, key: Key) -> tuple[MatrixGameState, MultiStep]:
        reward = jnp.asarray(self.payoff, jnp.float32)[(slice(None), *action["agent"])]
        state = MatrixGameState(state.rounds + 1)
        return state, MultiStep(self._observe(), {"agent": reward}, state.rounds >= self.rounds, jnp.asarray(False))

    def _observe(self) -> Tree:
        return {"agent": jnp.arange(np.shape(self.payoff)[0], dtype=jnp.int32)}


def matrix_game(payoff: Sequence[Any], rounds: int = 1, shared: bool = False) -> MatrixGame:
    """The game of nested lists: one table for each agent or, where `shared`, a single one of the whole team."""
    return team_game(payoff, rounds) if shared else MatrixGame(np.asarray(payoff, np.float32), rounds)


def team_game(payoff: Sequence[Any], rounds: int = 1) -> MatrixGame:
    """The game of a team: `payoff` `[actions, ..., actions]` is shared out evenly, so that returns sum to it."""
    table = np.asarray(payoff, np.float32)
    return MatrixGame(np.repeat(table[None] / table.ndim, table.ndim, axis=0), rounds)


def climbing_game(rounds: int = 1) -> MatrixGame:
    """The best is 11, where both take action 0, but who takes it alone loses 30: learners settle for 5 or 7.

    Claus & Boutilier 1998, "The Dynamics of Reinforcement Learning in Cooperative Multiagent Systems", AAAI, figure 5.
    The payoff is shared evenly, so that the agents' returns sum to the figures of the paper.
    """
    return team_game([[11, -30, 0], [-30, 7, 6], [0, 0, 5]], rounds)


def penalty_game(k: float = -100.0, rounds: int = 1) -> MatrixGame:
    """The best is 10, where both take action 0 or both take action 2; `k` if one takes 0 and the other 2.

    The lower `k`, the more learners settle for the safe 2 of action 1. Claus & Boutilier 1998, figure 4, shared evenly.
    """
    return team_game([[10, 0, k], [0, 2, 0], [k, 0, 10]], rounds)
