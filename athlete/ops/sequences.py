"""Trajectories cut into sequences, and minibatches of these: what on-policy algorithms learn from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from athlete.core import Array, Key, Tree
from athlete.ops.devices import everywhere, spread
from athlete.ops.shuffle import random_orders
from athlete.ops.tree import Packed, pack, unpack

Batch = TypeVar("Batch", bound=Any)  # a named tuple


def to_sequences(tree: Tree, length: int) -> Tree:
    """Leaves `[T, B, ...]` as sequences `[length, T / length * B, ...]`."""

    def cut_leaf(leaf: Array) -> Array:
        pieces = leaf.reshape(-1, length, *leaf.shape[1:])
        return jnp.moveaxis(pieces, 0, 1).reshape(length, -1, *leaf.shape[2:])

    return jax.tree.map(cut_leaf, tree)


def sequences_with_carry(batch: Batch, length: int) -> Batch:
    """`to_sequences` of a batch whose field `carry` is the recurrent state before each step.

    What remains of it are the states before the first step of each sequence, `[N, ...]`.
    """
    sequences = to_sequences(batch, length)
    return sequences._replace(carry=jax.tree.map(lambda leaf: leaf[0], sequences.carry))


def in_shares(sequences: Batch) -> Batch:
    """Sequences `[L, N, ...]` with the field `carry` that are learned from all at once: each device has its share."""
    return spread(sequences._replace(carry=()), 1)._replace(carry=spread(sequences.carry, 0))


def windows(tree: Tree, length: int) -> Tree:
    """All runs of `length` consecutive steps of leaves `[T, B, ...]`, side by side: `[length, N, ...]`.

    N is (T - length + 1) * B: B rows that begin at step 0, then B at step 1, in the order of `ops.tree.merge_time`.
    """

    def slide(leaf: Array) -> Array:
        number = leaf.shape[0] - length + 1
        return jnp.stack([leaf[i : i + number].reshape(-1, *leaf.shape[2:]) for i in range(length)])

    return jax.tree.map(slide, tree)


def minibatch_orders(key: Key, epochs: int, number: int, size: int) -> Array:
    """Which of `number` sequences make each minibatch, `[epochs * minibatches, size]`: each epoch in a new order.

    Where `size` does not divide `number`, each epoch leaves out the remainder, another one each time.
    """
    size = min(max(1, size), number)
    orders = random_orders(key, epochs, number)
    return orders[:, : number // size * size].reshape(-1, size)


def minibatches(sequences: Batch, key: Key, epochs: int, timesteps: int) -> tuple[Array, Callable[[Array], Batch]]:
    """Orders `[minibatches, size]` of sequences for some epochs of minibatches, and what gathers one by its order.

    `sequences` `[L, N, ...]` has the field `carry`, the recurrent state at the start of each, `[N, ...]`. A minibatch
    is `timesteps` of them, as near as whole sequences come to it.
    """
    length, number = sequences.first.shape
    like = sequences._replace(carry=())
    # On several devices all of them get the whole table once, and then a share of each minibatch.
    packed, carries = everywhere((pack(like, leading=2), sequences.carry))

    def gather(order: Array) -> Batch:
        minibatch, carry = gather_sequences(packed, carries, order, like)
        return minibatch._replace(carry=carry)

    return minibatch_orders(key, epochs, number, timesteps // length), gather


def gather_sequences(packed: Packed, carry: Tree, order: Array, like: Tree) -> tuple[Tree, Tree]:
    """The sequences numbered `order`, gathered from one table, in the form of `like`, and their carries.

    `packed` is `pack(sequences, leading=2)`, `carry` the states at their starts, `[N, ...]`.
    """
    taken = jax.tree.map(lambda leaf: leaf.at[:, order].get(mode="promise_in_bounds"), packed)
    carry = jax.tree.map(lambda leaf: leaf.at[order].get(mode="promise_in_bounds"), carry)
    return unpack(spread(taken, 1), like, leading=2), spread(carry, 0)
