"""A ring of time slots: where the last steps of every row are kept, written in place."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Key, Transition
from athlete.memory.frames import Frames, frames_add, frames_gone, frames_init, frames_take
from athlete.ops.devices import spread
from athlete.ops.tree import Packed, pack, unpack


class Ring(NamedTuple):
    """Transitions in a ring of time slots, `[slots, rows, ...]`, the oldest overwritten first."""

    packed: Packed
    example: Transition  # of zeros, without leading axes: how to unpack
    cursor: Array  # int32, the slot that is written next; `[rows]` where rows fill at paces of their own
    filled: Array  # int32, slots written so far, at most all; so too
    frames: Frames | None = None  # where observations are stacks; `obs` then points to them


Ring.__hyper__ = True  # type: ignore[attr-defined]  # arrays: traced where it is a field


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


def ring_init(example: Transition, slots: int, rows: int, stack_axis: int | None = None, at_least: int = 1) -> Ring:
    """An empty ring for transitions like `example`, one of one row. Its memory is taken here, all at once.

    With a `stack_axis`, that of the stack of frames in an observation, each frame is stored once, and there is room
    for those of `at_least` steps whatever their episodes. Raises ValueError where observations have no such axis.
    """
    frames = None
    if stack_axis is not None:
        frames = frames_init(example.obs, slots, rows, stack_axis, at_least)
        example = example._replace(obs=jnp.zeros((), jnp.int32), next_obs=())
    valid = example.extras.get("valid") if isinstance(example.extras, dict) else None
    if valid is not None:
        if stack_axis is not None:
            raise ValueError("replay memory: stack_axis is for agents that act at every step; leave it out")
        example = without_valid(example)
    shapes = jax.eval_shape(lambda example: pack(_lead(example), leading=2), example)
    packed = jax.tree.map(lambda leaf: jnp.zeros((slots, rows, *leaf.shape[2:]), leaf.dtype), shapes)
    example = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), example)
    count = jnp.zeros(() if valid is None else rows, jnp.int32)
    return Ring(packed, example, count, jnp.copy(count), frames)


def ring_of(trajectory: Transition) -> Ring:
    """A ring that is full of the steps of a trajectory `[T, B, ...]`."""
    example = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[2:], leaf.dtype), trajectory)
    steps = jnp.full((), trajectory.reward.shape[0], jnp.int32)
    return Ring(pack(trajectory, leading=2), example, jnp.zeros((), jnp.int32), steps)


def ring_add(ring: Ring, trajectory: Transition, stack_axis: int | None = None) -> Ring:
    """Write a trajectory `[T, B, ...]` in place. Raises ValueError where T does not divide the number of slots.

    The cursor then is a multiple of T, so no write runs over the ring's seam, as long as all trajectories have the
    same T, or as many of a smaller one come together as make up a whole one.
    """
    if ring.cursor.ndim:
        return _add_valid(ring, trajectory)
    length = trajectory.reward.shape[0]
    slots = ring.packed.table.shape[0]
    if slots % length:
        raise ValueError(f"replay memory: {length} steps at once do not divide its {slots}; set unroll={length}")
    frames = ring.frames
    if frames is not None and stack_axis is not None:
        frames, pointer = frames_add(frames, trajectory, stack_axis)
        trajectory = trajectory._replace(obs=pointer, next_obs=())
    packed = jax.tree.map(
        lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, ring.cursor, axis=0),
        ring.packed,
        pack(trajectory, leading=2),
    )
    cursor = (ring.cursor + length) % slots
    ring = _spread(Ring(packed, ring.example, cursor, jnp.minimum(ring.filled + length, slots), frames))
    return ring if stack_axis is None else _forget(ring, length, stack_axis)


def without_valid(trajectory: Transition) -> Transition:
    """A trajectory whose extras do not say which places are steps: what is kept of it are steps."""
    return trajectory._replace(extras={name: part for name, part in trajectory.extras.items() if name != "valid"})


def _add_valid(ring: Ring, trajectory: Transition) -> Ring:
    """Write the steps of a trajectory `[T, B, ...]`, which in each row come before its empty places."""
    slots, rows = ring.packed.table.shape[:2]
    valid = trajectory.extras["valid"]
    time, row = jnp.arange(valid.shape[0])[:, None], jnp.arange(rows)[None]
    slot = jnp.where(valid, (ring.cursor + time) % slots, slots)  # behind the last: dropped
    packed = jax.tree.map(
        lambda old, new: old.at[slot, row].set(new, mode="drop"),
        ring.packed,
        pack(without_valid(trajectory), leading=2),
    )
    count = jnp.sum(valid, axis=0, dtype=jnp.int32)
    return _spread(Ring(packed, ring.example, (ring.cursor + count) % slots, jnp.minimum(ring.filled + count, slots)))


def _spread(ring: Ring) -> Ring:
    """The ring, the slots of each row on the device that has the row."""
    frames = ring.frames
    if frames is not None:
        frames = frames._replace(packed=spread(frames.packed, 1))
    return ring._replace(packed=spread(ring.packed, 1), frames=frames)


def _forget(ring: Ring, length: int, stack_axis: int) -> Ring:
    """Of the steps kept, leave out those whose frames the last `length` steps have written over."""
    frames = ring.frames
    assert frames is not None
    slots, rows = ring.packed.table.shape[:2]
    kept = jnp.minimum(frames.kept + length, slots)
    # A step has a frame of its own at least: no more steps are lost than frames have come.
    age = jnp.arange(length * (1 + frames.example.shape[stack_axis]))[:, None]
    slot = (ring.cursor - kept + age) % slots
    pointer = _take(ring, slot, jnp.arange(rows)).obs
    gone = (age < kept) & frames_gone(frames, pointer, stack_axis)
    return ring._replace(frames=frames._replace(kept=kept - jnp.sum(gone, axis=0, dtype=jnp.int32)))


def ring_draw(ring: Ring, key: Key, batch_size: int, window: int, unroll: int | None = None) -> tuple[Array, Array]:
    """Slots and rows `[batch_size]` in which whole windows begin, each of them as likely as the other.

    With `unroll` these lie within trajectories of so many steps.
    """
    slots, rows = ring.packed.table.shape[:2]
    if unroll is not None:
        each = unroll - window + 1  # of a trajectory
        drawn = jax.random.randint(key, (batch_size,), 0, ring.filled // unroll * each * rows)
        begins = drawn // rows
        return (ring.cursor - ring.filled + begins // each * unroll + begins % each) % slots, drawn % rows
    if ring.frames is None and not ring.cursor.ndim:
        drawn = jax.random.randint(key, (batch_size,), 0, (ring.filled - window + 1) * rows)
        return (ring.cursor - ring.filled + drawn // rows) % slots, drawn % rows
    kept = ring.filled if ring.frames is None else ring.frames.kept
    ends = jnp.cumsum(jnp.maximum(kept - window + 1, 0))
    drawn = jax.random.randint(key, (batch_size,), 0, ends[-1])
    row = jnp.minimum(jnp.sum(drawn[:, None] >= ends, axis=-1), rows - 1)
    later = ends[row] - drawn  # windows of the row that are not older
    cursor = ring.cursor[row] if ring.cursor.ndim else ring.cursor
    return (cursor - window + 1 - later) % slots, row


def ring_take(ring: Ring, slot: Array, row: Array, length: int, stack_axis: int | None = None) -> Transition:
    """Windows of consecutive steps `[length, N, ...]`, of rows `row` `[N]`, beginning in slots `slot` `[N]`."""
    slots = ring.packed.table.shape[0]
    taken = _take(ring, (slot[None] + jnp.arange(length)[:, None]) % slots, row)
    if ring.frames is None or stack_axis is None:
        return taken
    obs, next_obs = frames_take(ring.frames, taken.obs, row, stack_axis)
    return taken._replace(obs=obs, next_obs=next_obs)


def _take(ring: Ring, slot: Array, row: Array) -> Transition:
    """What stands in slots `[length, N]` of rows `[N]`."""
    taken = jax.tree.map(lambda leaf: leaf.at[slot, row[None]].get(mode="promise_in_bounds"), ring.packed)
    return unpack(spread(taken, 1), jax.eval_shape(_lead, ring.example), leading=2)


def _lead(example: Transition) -> Transition:
    """The one transition as a trajectory of one step of one row."""
    return jax.tree.map(lambda leaf: leaf[None, None], example)
