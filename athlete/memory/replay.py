"""Uniform experience replay."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Key, Memory, Transition, Tree, hyper
from athlete.ops.tree import Packed, pack, unpack


class Ring(NamedTuple):
    """Transitions in a ring of time slots, `[slots, rows, ...]`, oldest overwritten first."""

    packed: Packed
    example: Transition  # of zeros, without leading axes: how to unpack
    cursor: Array  # int32, the slot that is written next
    filled: Array  # int32, slots written so far, at most all


def ring_init(example: Transition, slots: int, rows: int) -> Ring:
    """An empty ring. Its memory is taken here, all at once."""
    empty = pack(jax.tree.map(lambda leaf: jnp.zeros((1, 1, *leaf.shape), leaf.dtype), example), leading=2)
    packed = jax.tree.map(lambda leaf: jnp.zeros((slots, rows, *leaf.shape[2:]), leaf.dtype), empty)
    return Ring(packed, example, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def ring_add(ring: Ring, trajectory: Transition) -> Ring:
    """Write a trajectory `[T, B, ...]` in place; the number of slots must be a multiple of T."""
    length = trajectory.reward.shape[0]
    slots = ring.packed.table.shape[0]
    new = pack(trajectory, leading=2)
    packed = jax.tree.map(
        lambda old, part: jax.lax.dynamic_update_slice_in_dim(old, part, ring.cursor, axis=0), ring.packed, new
    )
    cursor = (ring.cursor + length) % slots
    return Ring(packed, ring.example, cursor, jnp.minimum(ring.filled + length, slots))


def ring_take(ring: Ring, age: Array, row: Array, length: int) -> Transition:
    """Windows of `length` consecutive steps, `[length, batch, ...]`, that begin `age` slots after the oldest."""
    slots = ring.packed.table.shape[0]
    start = ring.cursor - ring.filled + age
    slot = (start[None] + jnp.arange(length)[:, None]) % slots
    taken = jax.tree.map(lambda leaf: leaf.at[slot, row[None]].get(mode="promise_in_bounds"), ring.packed)
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, 1, *leaf.shape), leaf.dtype), ring.example)
    return unpack(taken, like, leading=2)


@hyper
class Replay(Memory):
    """Samples windows of `n_step` consecutive transitions uniformly from the last `capacity` timesteps.

    A window may run across the end of an episode; whoever reads it stops at the end (`ops.returns.n_step_return`).
    """

    capacity: int = 50_000
    batch_size: int = 32
    n_step: int = 1
    unroll: int = 1  # timesteps that each row adds at once; set by the algorithm when it is built

    def slots(self, rows: int) -> int:
        """Time slots of the ring: enough for `capacity`, and a multiple of the unroll, so that no write wraps."""
        needed = -(-self.capacity // rows)
        return -(-needed // self.unroll) * self.unroll

    def init(self, example: Transition, rows: int) -> Ring:
        return ring_init(example, self.slots(rows), rows)

    def add(self, store: Ring, trajectory: Transition) -> Ring:
        return ring_add(store, trajectory)

    def sample(self, store: Ring, trajectory: Transition, key: Key) -> Transition:
        age_key, row_key = jax.random.split(key)
        rows = store.packed.table.shape[1]
        uniform = jax.random.uniform(age_key, (self.batch_size,))
        windows = store.filled - self.n_step + 1
        age = jnp.minimum((uniform * windows).astype(jnp.int32), windows - 1)
        row = jax.random.randint(row_key, (self.batch_size,), 0, rows)
        return ring_take(store, age, row, self.n_step)


def memory_bytes(example: Tree, slots: int, rows: int) -> int:
    """What a ring for such transitions takes."""
    shapes = jax.eval_shape(lambda: ring_init(example, slots, rows)).packed
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
