"""A ring of time slots: where the last steps of every row are kept, written in place."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Transition
from athlete.ops.tree import Packed, pack, unpack


class Ring(NamedTuple):
    """Transitions in a ring of time slots, `[slots, rows, ...]`, the oldest overwritten first."""

    packed: Packed
    example: Transition  # of zeros, without leading axes: how to unpack
    cursor: Array  # int32, the slot that is written next
    filled: Array  # int32, slots written so far, at most all


def slots_of(capacity: int, rows: int, unroll: int, window: int) -> int:
    """Time slots for `capacity` timesteps of `rows` rows: a multiple of `unroll`, the steps a row adds at once.

    Raises ValueError where a size is below 1, or where a row would not hold a window beside the steps being added.
    """
    for name, size in {"capacity": capacity, "unroll": unroll, "window": window}.items():
        if size < 1:
            raise ValueError(f"replay memory: {name}={size}; it must be at least 1")
    slots = -(-capacity // (rows * unroll)) * unroll
    least = window + unroll - 1
    if slots < least:
        raise ValueError(
            f"replay memory: capacity={capacity} is {slots} timesteps for each of {rows} environments, too few for "
            f"windows of {window} while {unroll} are added at once; take capacity={rows * least} or more"
        )
    return slots


def ring_init(example: Transition, slots: int, rows: int) -> Ring:
    """An empty ring for transitions like `example`, one of one row. Its memory is taken here, all at once."""
    shapes = jax.eval_shape(lambda example: pack(_lead(example), leading=2), example)
    packed = jax.tree.map(lambda leaf: jnp.zeros((slots, rows, *leaf.shape[2:]), leaf.dtype), shapes)
    example = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), example)
    return Ring(packed, example, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def ring_add(ring: Ring, trajectory: Transition) -> Ring:
    """Write a trajectory `[T, B, ...]` in place. Raises ValueError where T does not divide the number of slots.

    The cursor then is a multiple of T, so no write runs over the ring's seam, as long as all trajectories have the
    same T, or as many of a smaller one come together as make up a whole one.
    """
    length = trajectory.reward.shape[0]
    slots = ring.packed.table.shape[0]
    if slots % length:
        raise ValueError(f"replay memory: {length} steps at once do not divide its {slots}; set unroll={length}")
    packed = jax.tree.map(
        lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, ring.cursor, axis=0),
        ring.packed,
        pack(trajectory, leading=2),
    )
    cursor = (ring.cursor + length) % slots
    return Ring(packed, ring.example, cursor, jnp.minimum(ring.filled + length, slots))


def ring_take(ring: Ring, slot: Array, row: Array, length: int) -> Transition:
    """Windows of consecutive steps `[length, N, ...]`, of rows `row` `[N]`, beginning in slots `slot` `[N]`."""
    slots = ring.packed.table.shape[0]
    steps = (slot[None] + jnp.arange(length)[:, None]) % slots
    taken = jax.tree.map(lambda leaf: leaf.at[steps, row[None]].get(mode="promise_in_bounds"), ring.packed)
    return unpack(taken, jax.eval_shape(_lead, ring.example), leading=2)


def _lead(example: Transition) -> Transition:
    """The one transition as a trajectory of one step of one row."""
    return jax.tree.map(lambda leaf: leaf[None, None], example)
