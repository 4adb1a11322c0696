"""Past selves of a policy as one agent: opponents that it has beaten, so that it does not forget how.

Whoever learns only against its present self may run in circles, as in rock-paper-scissors. Playing also against what
it was before, over all of its history, is fictitious self-play (Heinrich, Lanctot and Silver 2015) with snapshots, as
in Bansal et al. 2018 (arXiv:1710.03748, section 4.2) and in the league of AlphaStar. Departure from both: who plays in
which environment is fixed, where they draw opponents at random.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.combine.side_by_side import each_by_its_own, taken
from athlete.combine.wrapper import AgentWrapper
from athlete.core import Agent, Array, Key, Transition, Tree, hyper


class PastState(NamedTuple):
    """What acts of a policy, now and at earlier times."""

    present: Tree
    snapshots: Tree  # [size, ...]; those from number `kept` on are still to come
    kept: Array  # int32
    distance: Array  # int32: trajectories between two snapshots
    seen: Array  # int32: trajectories so far


class PastView(NamedTuple):
    """The selves that play: where there are few snapshots yet, each stands there several times."""

    present: Tree
    snapshots: Tree  # [size, ...]
    seen: Array


@hyper
class PastSelves(AgentWrapper):
    """The present self and snapshots of the policy `of`, whose `agent` this is around.

    The present self plays in a share `present` of the environments, spread evenly, and snapshot `r % size` in the r-th
    of the others. Where these are fewer than snapshots, they take the next ones with every trajectory.

    Snapshots lie `every` trajectories apart, the first is the policy before it learned. Once there are `size`, every
    second one is dropped and the distance doubles, so that they are spread over all of the training.
    """

    agent: Agent
    of: str
    size: int = 16
    every: int = 10
    present: Fraction = Fraction(1, 2)
    agents: int = 1  # for which it acts in each environment

    updates: int = 0  # type: ignore[assignment]  # it does not learn

    def init(self, key: Key) -> PastState:
        """Without snapshots: `follow` takes the first one."""
        view = self.agent.view(self.agent.init(key), jnp.zeros(()))
        snapshots = jax.tree.map(lambda leaf: jnp.zeros((self.size, *leaf.shape), leaf.dtype), view)
        return PastState(view, snapshots, jnp.int32(0), jnp.int32(self.every), jnp.int32(0))

    def follow(self, state: PastState, source: Tree, progress: Array) -> PastState:
        """The state after a trajectory that left the state `source` of the policy `of`."""
        present, numbers = self.agent.view(source, progress), jnp.arange(self.size)
        thins = (state.seen % state.distance == 0) & (state.kept == self.size)
        order = jnp.where(thins, jnp.minimum(2 * numbers, self.size - 1), numbers)
        kept = jnp.where(thins, (self.size + 1) // 2, state.kept)
        distance = jnp.where(thins, 2 * state.distance, state.distance)
        due = state.seen % distance == 0
        place = jnp.where(due, kept, self.size)  # behind the end, where nothing is written
        snapshots = jax.tree.map(
            lambda then, now: then[order].at[place].set(now, mode="drop"), state.snapshots, present
        )
        return PastState(present, snapshots, kept + due, distance, state.seen + 1)

    def view(self, state: PastState, progress: Array) -> PastView:
        order = jnp.arange(self.size) % jnp.maximum(state.kept, 1)
        return PastView(state.present, jax.tree.map(lambda leaf: leaf[order], state.snapshots), state.seen)

    def start(self, view: PastView, rows: int, key: Key) -> Tree:
        def begin(view: Tree, rows: Array, key: Key) -> Tree:
            return self.agent.start(view, rows.shape[0], key)

        return self._each(begin, view, jnp.zeros(rows), key)

    def act(self, view: PastView, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        def choose(view: Tree, rows: tuple, key: Key) -> tuple[Tree, Tree]:
            carry, obs, first = rows
            return self.agent.act(view, carry, obs, first, key, explore)[:2]

        return *self._each(choose, view, (carry, obs, first), key), {}

    def update(self, state: Tree, batch: Transition, key: Key, progress: Array) -> tuple[Tree, dict[str, Array]]:
        return state, {}

    def players(self, rows: int) -> np.ndarray:
        """Who plays in each of the rows: -1 is the present self, others are numbers of snapshots. Static."""
        numbers = np.arange(rows // self.agents)
        before = [int(number * self.present) for number in (*numbers, len(numbers))]
        is_present = np.diff(before) > 0
        nth_past = np.cumsum(~is_present) - 1
        return np.repeat(np.where(is_present, -1, nth_past % self.size), self.agents)

    def _each(self, function: Callable[[Tree, Tree, Key], Tree], view: PastView, rows: Tree, key: Key) -> Tree:
        """What `function(view, rows, key)` gives for rows `[B, ...]`, each with the view of who plays in it."""
        players = self.players(jax.tree.leaves(rows)[0].shape[0])
        present_key, past_key = jax.random.split(key)
        present, past = np.flatnonzero(players < 0), np.flatnonzero(players >= 0)
        parts = []
        if present.size:
            parts.append(function(view.present, taken(rows, present), present_key))
        if past.size:
            snapshots, used = view.snapshots, int(players.max()) + 1
            if used < self.size:
                turn = (jnp.arange(used) + view.seen) % self.size
                snapshots = jax.tree.map(lambda leaf: leaf[turn], snapshots)
            parts.append(each_by_its_own(function, snapshots, players[past], taken(rows, past), past_key))
        order = np.argsort(np.concatenate([present, past]))
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[order], *parts)
