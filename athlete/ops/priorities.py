"""Sampling in proportion to priorities that change: a tree of sums, wide instead of binary."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from athlete.core import Array

WIDTH = 32  # children of a node: few levels, and each a small matrix product instead of a chain of steps


def tree_init(leaves: int) -> list[Array]:
    """Sums of nothing, from the leaves (at least `leaves`) to the root: `[n, 32]` each, the last one `[1, 32]`."""
    nodes = -(-max(leaves, 1) // WIDTH)
    levels = [jnp.zeros((nodes, WIDTH))]
    while nodes > 1:
        nodes = -(-nodes // WIDTH)
        levels.append(jnp.zeros((nodes, WIDTH)))
    return levels


def tree_set(levels: list[Array], leaf: Array, priority: Array) -> list[Array]:
    """Give leaves `[n]` new priorities `[n]`: O(n log leaves). Sums are made anew, so errors do not build up.

    Where a leaf is named twice, one of its two priorities holds, the same on every level.
    """
    new, index, value = [], leaf, priority
    for level in levels:
        level = level.at[index // WIDTH, index % WIDTH].set(value, mode="promise_in_bounds")
        new.append(level)
        index = index // WIDTH
        value = jnp.sum(level.at[index].get(mode="promise_in_bounds"), axis=-1)
    return new


def tree_get(levels: list[Array], leaf: Array) -> Array:
    """The priorities of leaves `[n]`."""
    return levels[0].at[leaf // WIDTH, leaf % WIDTH].get(mode="promise_in_bounds")


def tree_total(levels: list[Array]) -> Array:
    """The sum of all priorities."""
    return jnp.sum(levels[-1])


def tree_find(levels: list[Array], uniform: Array) -> Array:
    """Leaves `[n]` for `uniform` `[n]` in [0, 1): each leaf in proportion to its priority, never one of 0.

    Leaves lie side by side on a line, each as long as its priority; the one under `uniform * total` is found level by
    level from the root.
    """
    upto = jnp.triu(jnp.ones((WIDTH, WIDTH)))  # x @ upto are running sums
    node = jnp.zeros(uniform.shape, jnp.int32)
    position = uniform * tree_total(levels)
    for level in reversed(levels):
        children = level.at[node].get(mode="promise_in_bounds")  # [n, 32]
        ends = jnp.dot(children, upto, precision=jax.lax.Precision.HIGHEST)
        # Rounding may push a position past the last end: then it is the last child with a priority.
        candidates = (children > 0.0) & (ends > position[:, None])
        last = WIDTH - 1 - jnp.argmax(children[:, ::-1] > 0.0, axis=-1)
        child = jnp.where(jnp.any(candidates, axis=-1), jnp.argmax(candidates, axis=-1), last).astype(jnp.int32)
        start = jnp.take_along_axis(ends - children, child[:, None], axis=-1)[:, 0]
        position = jnp.maximum(position - start, 0.0)
        node = node * WIDTH + child
    return node
