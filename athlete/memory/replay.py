"""Experience replay (Lin 1992): the last transitions, sampled uniformly."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Key, Memory, Transition, Tree, hyper
from athlete.ops.tree import Packed, pack, unpack


class Ring(NamedTuple):
    """Transitions in a ring of time slots, `[slots, rows, ...]`, the oldest overwritten first."""

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
    """Write a trajectory `[T, B, ...]` in place; the number of slots is a multiple of T, so no write wraps around."""
    length = trajectory.reward.shape[0]
    slots = ring.packed.table.shape[0]
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
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, 1, *leaf.shape), leaf.dtype), ring.example)
    return unpack(taken, like, leading=2)


def slots_of(capacity: int, rows: int, unroll: int) -> int:
    """Time slots for `capacity` timesteps of `rows` rows: a multiple of `unroll`, the steps a row adds at once."""
    needed = -(-capacity // rows)
    return -(-needed // unroll) * unroll


@hyper
class Replay(Memory):
    """Samples windows of `window` consecutive steps uniformly from the last `capacity` timesteps.

    A window may run across the end of an episode: whoever reads it stops there (`ops.returns.n_step_return`).
    """

    capacity: int = 50_000  # timesteps of all rows together
    batch_size: int = 32  # windows
    window: int = 1
    unroll: int = 1  # steps that each row adds at once
    keep_carry: bool = False  # store recurrent states too

    def init(self, example: Transition, rows: int) -> Ring:
        return ring_init(self._kept(example), slots_of(self.capacity, rows, self.unroll), rows)

    def add(self, store: Ring, trajectory: Transition) -> Ring:
        return ring_add(store, self._kept(trajectory))

    def sample(self, store: Ring, trajectory: Transition, key: Key, progress: Array) -> Transition:
        bits = jax.random.bits(key, (2, self.batch_size), jnp.uint32)
        slots, rows = store.packed.table.shape[:2]
        windows = (store.filled - self.window + 1).astype(jnp.uint32)
        age = (bits[0] % jnp.maximum(windows, 1)).astype(jnp.int32)  # 0: the oldest window
        row = (bits[1] % rows).astype(jnp.int32)
        return ring_take(store, (store.cursor - store.filled + age) % slots, row, self.window)

    def _kept(self, trajectory: Transition) -> Transition:
        return trajectory if self.keep_carry else trajectory._replace(carry=())


def store_bytes(memory: Memory, example: Transition, rows: int) -> int:
    """How many bytes the memory's store takes, without taking them."""
    shapes: Tree = jax.eval_shape(lambda example: memory.init(example, rows), example)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
