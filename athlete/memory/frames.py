"""Frames of stacked observations, each stored once.

Where an observation is a stack of the last k frames, a step's `obs` and `next_obs` are 2k frames, of which one is new.
Here each row has a ring of frames, and a step keeps one number: which frame is the newest of its `obs`. `obs` are the k
frames up to it, `next_obs` the k up to the one behind. An episode begins with k new frames, its first `obs` as it came:
padding, of whatever kind, is stored and not guessed.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Transition
from athlete.ops.tree import Packed, pack, unpack


class Frames(NamedTuple):
    """The last frames of every row, `[frames, rows, ...]`."""

    packed: Packed
    example: Array  # an observation of zeros: how many frames it stacks and how to unpack them
    newest: Array  # int32 [rows], how many frames came before the newest one, modulo `_period`
    kept: Array  # int32 [rows], of so many last steps all frames are still there


def frames_init(obs: Array, slots: int, rows: int, axis: int, at_least: int) -> Frames:
    """No frames yet, but room for those of `slots` steps of each row; `obs` is an observation without leading axes.

    An episode costs as many frames as its steps and a stack. There is room for a stack every eighth step per frame
    of it (a stack of 4 every 32 steps), and for `at_least` steps in any case; where episodes are shorter, the oldest
    steps are forgotten before their slots are written over. Raises ValueError where `obs` has no such axis.
    """
    shapes = [leaf.shape for leaf in jax.tree.leaves(obs)]
    if not jax.tree_util.all_leaves([obs]) or not -len(shapes[0]) <= axis < len(shapes[0]):
        raise ValueError(f"replay memory: stack_axis={axis} is no axis of one array; observations have shapes {shapes}")
    depth = obs.shape[axis]
    count = slots + slots // 8 + (depth + 1) * at_least
    one = jax.eval_shape(lambda obs: pack(_apart(obs, axis)[:1, None], leading=2), obs)
    packed = jax.tree.map(lambda leaf: jnp.zeros((count, rows, *leaf.shape[2:]), leaf.dtype), one)
    newest = jnp.full(rows, depth - 1, jnp.int32)
    return Frames(packed, jnp.zeros(obs.shape, obs.dtype), newest, jnp.zeros(rows, jnp.int32))


def frames_add(frames: Frames, trajectory: Transition, axis: int) -> tuple[Frames, Array]:
    """Write a trajectory's frames in place: also the number of the newest frame of each `obs`, int32 `[T, B]`."""
    count, depth = frames.packed.table.shape[0], frames.example.shape[axis]
    new = 1 + depth * trajectory.first.astype(jnp.int32)
    after = frames.newest + jnp.cumsum(new, axis=0)
    # All of `obs` is written, though in the middle of an episode only the newest frame of `next_obs` is new: a branch
    # would cost more, and a memory that begins in the middle of an episode is right too.
    stacks = jnp.concatenate([_apart(trajectory.obs, axis, 2), _apart(trajectory.next_obs, axis, 2)[:, :, -1:]], axis=2)
    place = (after[:, :, None] + jnp.arange(-depth, 1)) % count
    row = jnp.arange(place.shape[1])[None, :, None]
    packed = jax.tree.map(
        lambda old, new: old.at[place, row].set(new, mode="promise_in_bounds"), frames.packed, pack(stacks, leading=3)
    )
    return frames._replace(packed=packed, newest=after[-1] % _period(count)), (after - 1) % _period(count)


def frames_take(frames: Frames, pointer: Array, row: Array, axis: int) -> tuple[Array, Array]:
    """`obs` and `next_obs` `[length, N, ...]` of steps with these `pointer` `[length, N]`, in rows `row` `[N]`."""
    count, depth = frames.packed.table.shape[0], frames.example.shape[axis]
    place = (pointer[:, :, None] + jnp.arange(1 - depth, 2)) % count
    taken = jax.tree.map(lambda leaf: leaf.at[place, row[None, :, None]].get(mode="promise_in_bounds"), frames.packed)
    like = jax.eval_shape(lambda obs: _apart(obs, axis)[None, None], frames.example)
    stacks = unpack(taken, like, leading=3)
    to = axis % frames.example.ndim + 2
    return jnp.moveaxis(stacks[:, :, :-1], 2, to), jnp.moveaxis(stacks[:, :, 1:], 2, to)


def frames_gone(frames: Frames, pointer: Array, axis: int) -> Array:
    """Whether the oldest frame of a step is written over, for `pointer` `[..., rows]`."""
    count, depth = frames.packed.table.shape[0], frames.example.shape[axis]
    return (frames.newest - pointer) % _period(count) + depth > count


def _period(count: int) -> int:
    """Frames are counted modulo this: the count never overflows, and the places of frames do not notice."""
    return 2**30 // count * count


def _apart(obs: Array, axis: int, leading: int = 0) -> Array:
    """The frames of stacks as the first axis behind `leading` ones; `axis` is that of the stack without them."""
    return jnp.moveaxis(obs, axis % (jnp.ndim(obs) - leading) + leading, leading)
