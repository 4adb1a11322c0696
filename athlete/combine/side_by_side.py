"""Several agents of one kind side by side: each acts for rows of its own, in one batch of programs."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from athlete.combine.wrapper import AgentWrapper
from athlete.core import Agent, Array, Key, Transition, Tree, hyper


def each_by_its_own(
    function: Callable[[Tree, Tree, Key], Tree], views: Tree, numbers: np.ndarray, rows: Tree, key: Key
) -> Tree:
    """What `function(view, rows, key)` gives for rows `[B, ...]`, each with the view of its number `[B]`. Static.

    `views` have a first axis, of numbers. Where they have unlike many rows, some rows are given twice.
    """
    used = int(numbers.max()) + 1
    most = np.bincount(numbers).max()
    places = np.stack([np.resize(np.flatnonzero(numbers == number), most) for number in range(used)])
    own = jax.tree.map(lambda leaf: leaf[:used], views)
    found = jax.vmap(function)(own, taken(rows, places), jax.random.split(key, used))
    _, order = np.unique(places.ravel(), return_index=True)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[order], found)


def taken(rows: Tree, places: np.ndarray) -> Tree:
    """The rows `[*places.shape, ...]` at these places."""
    return jax.tree.map(lambda leaf: leaf[places], rows)


@hyper
class SideBySide(AgentWrapper):
    """`number` agents like `agent`, of which the i-th has every `number`-th row from row i on."""

    agent: Agent
    number: int = 1

    def init(self, key: Key) -> Tree:
        return jax.vmap(self.agent.init)(jax.random.split(key, self.number))

    def view(self, state: Tree, progress: Array) -> Tree:
        return jax.vmap(lambda state: self.agent.view(state, progress))(state)

    def start(self, view: Tree, rows: int, key: Key) -> Tree:
        def begin(view: Tree, rows: Array, key: Key) -> Tree:
            return self.agent.start(view, rows.shape[0], key)

        return each_by_its_own(begin, view, np.arange(rows) % self.number, jnp.zeros(rows), key)

    def act(self, view: Tree, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        def choose(view: Tree, rows: tuple, key: Key) -> tuple:
            carry, obs, first = rows
            return self.agent.act(view, carry, obs, first, key, explore)

        return each_by_its_own(choose, view, np.arange(first.shape[0]) % self.number, (carry, obs, first), key)

    def observe(self, state: Tree, accumulators: Tree, trajectory: Transition) -> tuple[Tree, Tree]:
        own, steps = self._apart(accumulators, 0), self._apart(trajectory, 1)
        state, own = jax.vmap(self.agent.observe, in_axes=(0, 1, 2), out_axes=(0, 1))(state, own, steps)
        return state, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), own)

    def update(self, state: Tree, batch: Transition, key: Key, progress: Array) -> tuple[Tree, dict[str, Array]]:
        """Metrics are those of the first one, the main agent."""

        def one(state: Tree, batch: Transition, key: Key) -> tuple[Tree, dict[str, Array]]:
            return self.agent.update(state, batch, key, progress)

        keys = jax.random.split(key, self.number)
        state, metrics = jax.vmap(one, in_axes=(0, 2, 0))(state, self._apart(batch, 1), keys)
        return state, {name: values[0] for name, values in metrics.items()}

    def _apart(self, tree: Tree, axis: int) -> Tree:
        """Leaves whose axis of rows, `axis`, is two: rows and agents."""

        def split(leaf: Array) -> Array:
            return leaf.reshape(*leaf.shape[:axis], -1, self.number, *leaf.shape[axis + 1 :])

        return jax.tree.map(split, tree)
