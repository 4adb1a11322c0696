"""Which agents of the groups a policy acts for, and its own rows among theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Group, Tree


class Seats(NamedTuple):
    """The agents of one policy: `((group, (numbers)), ...)`, groups in the order of their names. Static.

    Where a group `[B, n, ...]` has all rows of n agents, a policy's own rows are `[B * agents, ...]`: those of one
    environment side by side, in the order of these seats.
    """

    taken: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def agents(self) -> int:
        """For how many agents the policy acts in each environment."""
        return sum(len(numbers) for _, numbers in self.taken)

    def rows_of(self, groups: Tree, sizes: dict[str, int], axis: int) -> Tree:
        """The policy's rows of leaves by group whose axes `axis - 1` and `axis` are environments and agents."""
        parts = [self._part(groups[name], numbers, sizes[name], axis) for name, numbers in self.taken]
        if len(parts) > 1:
            parts = [jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=axis), *parts)]
        return jax.tree.map(lambda leaf: merge(leaf, axis - 1), parts[0])

    def _part(self, group: Tree, numbers: tuple[int, ...], size: int, axis: int) -> Tree:
        if numbers == tuple(range(size)):
            return group
        return jax.tree.map(lambda leaf: leaf[(slice(None),) * axis + (np.array(numbers),)], group)


def merge(leaf: Array, axis: int) -> Array:
    """A leaf whose axes `axis` and `axis + 1` are one."""
    return leaf.reshape(*leaf.shape[:axis], -1, *leaf.shape[axis + 2 :])


def apart(tree: Tree, rows: int) -> Tree:
    """A policy's rows `[B * agents, ...]` as `[B, agents, ...]`."""
    return jax.tree.map(lambda leaf: leaf.reshape(rows, -1, *leaf.shape[1:]), tree)


def together(tree: Tree, axis: int = 0) -> Tree:
    """The inverse of `apart`, of leaves that have `axis` axes before the rows."""
    return jax.tree.map(lambda leaf: merge(leaf, axis), tree)


def by_group(parts: Sequence[tuple[Seats, Tree]], groups: tuple[tuple[str, Group], ...], rows: int) -> Tree:
    """What several policies have for their rows `[B * agents, ...]`, by group: `[B, n, ...]`. All agents are seated."""
    pieces: dict[str, list[tuple[tuple[int, ...], Tree]]] = {name: [] for name, _ in groups}
    for seats, tree in parts:
        own, start = apart(tree, rows), 0
        for name, numbers in seats.taken:
            end = start + len(numbers)
            pieces[name].append((numbers, jax.tree.map(lambda leaf, s=start, e=end: leaf[:, s:e], own)))
            start = end
    return {name: _in_order(found) for name, found in pieces.items()}


def _in_order(pieces: list[tuple[tuple[int, ...], Tree]]) -> Tree:
    """Pieces `[B, k, ...]` of a group, each with the numbers of its agents, as the group."""
    numbers = [number for piece, _ in pieces for number in piece]
    trees = [tree for _, tree in pieces]
    whole = trees[0] if len(trees) == 1 else jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *trees)
    if numbers == sorted(numbers):
        return whole
    order = np.argsort(numbers)
    return jax.tree.map(lambda leaf: leaf[:, order], whole)


def rewards_by_group(reward: Array, groups: tuple[tuple[str, Group], ...]) -> dict[str, Array]:
    """Rewards `[..., agents]` of all agents by group: `[..., n]`."""
    found, start = {}, 0
    for name, group in groups:
        found[name] = reward[..., start : start + group.size]
        start += group.size
    return found
