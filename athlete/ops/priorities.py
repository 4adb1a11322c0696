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
        value = _sums(level.at[index].get(mode="promise_in_bounds"))
    return new


def tree_find(levels: list[Array], uniform: Array) -> tuple[Array, Array]:
    """Leaves `[n]` and their priorities `[n]` for `uniform` `[n]` in [0, 1]: in proportion to priority, never of 0.

    Leaves lie side by side on a line, each as long as its priority; the one under `uniform` of the line is found level
    by level from the root, and its place within each node is made relative to what that node's children really add up
    to, so that rounding never leads out of a node. Places are 2^-24 of the line apart: shares smaller than that are
    right on average only. Leaf 0 where all priorities are 0.

    The priorities are what the search read, not a second look: one that nothing orders before the next change of the
    tree would make the compiler copy the tree.
    """
    upto = jnp.triu(jnp.ones((WIDTH, WIDTH)))  # x @ upto are running sums
    order = jnp.arange(WIDTH)
    node, length = jnp.zeros(uniform.shape, jnp.int32), jnp.zeros((*uniform.shape, 1))
    for level in reversed(levels):
        children = level.at[node].get(mode="promise_in_bounds")  # [n, 32]
        ends = jnp.dot(children, upto, precision=jax.lax.Precision.HIGHEST)
        position = uniform[:, None] * ends[:, -1:]
        live = children > 0.0
        child = jnp.min(jnp.where(live & (ends > position), order, WIDTH), axis=-1, keepdims=True)
        # At the very end of the line no child ends later: then it is the last one with a priority.
        child = jnp.where(child < WIDTH, child, jnp.max(jnp.where(live, order, 0), axis=-1, keepdims=True))
        length = jnp.take_along_axis(children, child, axis=-1)
        start = jnp.take_along_axis(ends, child, axis=-1) - length
        uniform = jnp.clip((position - start) / length, 0.0, 1.0)[:, 0]
        node = node * WIDTH + child[:, 0]
    return node, length[:, 0]


def _sums(nodes: Array) -> Array:
    """What the children of each node `[n, 32]` add up to, `[n]`: in one order, however many nodes there are.

    Steps added one by one and many at once thus give the same tree to the last bit.
    """
    while nodes.shape[-1] > 1:
        half = nodes.shape[-1] // 2
        nodes = nodes[:, :half] + nodes[:, half:]
    return nodes[:, 0]


def sequence_priority(error: Array, eta: Array) -> Array:
    """One TD error for each sequence of `[T, B]`, `[B]`: eta max_t |error| + (1 - eta) mean_t |error|.

    Kapturowski et al. 2019, section 2.3: a mean alone hides a large error in a long sequence.
    """
    size = jnp.abs(error)
    return eta * jnp.max(size, axis=0) + (1.0 - eta) * jnp.mean(size, axis=0)
