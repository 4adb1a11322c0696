"""One compiled environment for every finite Markov decision process that is given as a table of its transitions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Env, Key, Step, hyper
from athlete.spaces import Discrete

_TOLERANCE = 1e-6  # how far a sum of probabilities may be from 1


class TabularState(NamedTuple):
    state: Array  # int32, 0 ... S - 1


@hyper
class Tabular(Env):
    """S states, A actions, at most K outcomes of each pair; made by `from_table`. It observes its state's number.

    An outcome is drawn as Gymnasium's toy environments draw it: the first whose cumulative probability exceeds a
    uniform number. Where K is 1 nothing is drawn. Arrays are leaves: tables of equal shapes share one program.
    """

    cumulative: jax.Array | np.ndarray  # [S, A, K] float32: cumulative probabilities; the last is 1
    outcomes: jax.Array | np.ndarray  # [S, A, K, 3] float32: next state, reward, whether it terminates
    start_cumulative: jax.Array | np.ndarray  # [M] float32, over the states in which an episode may start
    start_states: jax.Array | np.ndarray  # [M] int32

    @property
    def observation_space(self) -> Discrete:
        return Discrete(self.cumulative.shape[0])

    @property
    def action_space(self) -> Discrete:
        return Discrete(self.cumulative.shape[1])

    def reset(self, key: Key) -> tuple[TabularState, Array]:
        cumulative = jnp.asarray(self.start_cumulative)
        start = jnp.asarray(self.start_states)[_draw(cumulative, key)]
        return TabularState(start), start

    def step(self, state: TabularState, action: Array, key: Key) -> tuple[TabularState, Step]:
        cumulative = jnp.asarray(self.cumulative)[state.state, action]
        outcome = jnp.asarray(self.outcomes)[state.state, action, _draw(cumulative, key)]
        next_state = outcome[0].astype(jnp.int32)
        step = Step(next_state, outcome[1], outcome[2] > 0, jnp.asarray(False), {})
        return TabularState(next_state), step


def _draw(cumulative: Array, key: Key) -> Array:
    """The index of an outcome, from cumulative probabilities `[K]`."""
    if cumulative.shape[0] == 1:
        return jnp.int32(0)
    return choose(cumulative, jax.random.uniform(key))


def choose(cumulative: Array, uniform: Array) -> Array:
    """The first index of `cumulative` `[K]` whose entry exceeds `uniform`, a number in [0, 1)."""
    return jnp.sum(cumulative <= uniform, dtype=jnp.int32)


def from_table(P: Any, initial_distribution: Sequence[float] | np.ndarray) -> Tabular:
    """The environment of a transition table in Gymnasium's form.

    Args:
        P: `P[state][action]` is a list of outcomes `(probability, next state, reward, terminated)`. States and
            actions count from 0; `P` and its entries are dictionaries or lists. Every state has the same actions.
        initial_distribution: the probability of each state to be the first of an episode, `[S]`.

    Raises:
        ValueError: names the state and the action whose entry is missing or malformed, whose probabilities are
            negative or do not sum to 1, whose next state does not exist or whose reward is not finite.
    """
    states = len(P)
    if states == 0:
        raise ValueError("from_table: P is empty; it needs at least one state")
    actions = len(_entry(P, 0, "state 0"))
    cells = [[_outcomes(P, state, action, states, actions) for action in range(actions)] for state in range(states)]
    most = max(len(cell) for row in cells for cell in row)
    outcomes = np.zeros((states, actions, most, 3), np.float32)
    cumulative = np.ones((states, actions, most), np.float32)
    for state, row in enumerate(cells):
        for action, cell in enumerate(row):
            cumulative[state, action, : len(cell) - 1] = np.cumsum(cell[:, 0])[:-1]
            outcomes[state, action, : len(cell)] = cell[:, 1:]

    initial = np.asarray(initial_distribution, np.float64)
    if initial.shape != (states,):
        raise ValueError(
            f"from_table: initial_distribution has shape {initial.shape}; expected one probability for each of the "
            f"{states} states of P"
        )
    _require_probabilities(initial, "initial_distribution")
    start_states = np.flatnonzero(initial)
    start_cumulative = np.cumsum(initial[start_states])
    start_cumulative[-1] = 1.0
    return Tabular(cumulative, outcomes, start_cumulative.astype(np.float32), start_states.astype(np.int32))


def _outcomes(P: Any, state: int, action: int, states: int, actions: int) -> np.ndarray:
    """The checked outcomes of one pair, `[K, 4]` float64."""
    place = f"state {state}, action {action}"
    row = _entry(P, state, f"state {state}")
    if len(row) != actions:
        raise ValueError(f"from_table: state {state} has {len(row)} actions and state 0 has {actions}; they must agree")
    listed = list(_entry(row, action, place))
    if not listed:
        raise ValueError(f"from_table: {place} has no outcomes; give at least (1.0, next state, reward, terminated)")
    for outcome in listed:
        if not isinstance(outcome, Sequence) or len(outcome) != 4:
            raise ValueError(
                f"from_table: {place} has the outcome {outcome!r}; "
                "expected (probability, next state, reward, terminated)"
            )
        _, next_state, reward, _ = outcome
        if int(next_state) != next_state or not 0 <= next_state < states:
            raise ValueError(f"from_table: {place} leads to state {next_state}; states are 0 ... {states - 1}")
        if not math.isfinite(reward):
            raise ValueError(f"from_table: {place} has the reward {reward}; it must be finite")
    cell = np.array(listed, np.float64)
    _require_probabilities(cell[:, 0], place)
    return cell


def _entry(table: Any, index: int, place: str) -> Any:
    missing = index not in table if isinstance(table, Mapping) else index >= len(table)
    if missing:
        raise ValueError(f"from_table: P has no entry for {place}; states and actions count from 0 without gaps")
    return table[index]


def _require_probabilities(probabilities: np.ndarray, place: str) -> None:
    negative = probabilities[~(probabilities >= 0)]  # NaN is none either
    if negative.size:
        raise ValueError(f"from_table: {place} has the probability {negative[0]}; it must not be negative")
    total = probabilities.sum()
    if abs(total - 1) > _TOLERANCE:
        raise ValueError(f"from_table: the probabilities of {place} sum to {total:.6g}, not to 1")
