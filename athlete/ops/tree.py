"""Functions on pytrees of arrays."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Tree


def flatten(tree: Tree) -> Array:
    """All leaves as one float32 vector `[N]`, in the order of the tree."""
    leaves = jax.tree.leaves(tree)
    return jnp.concatenate([jnp.ravel(leaf) for leaf in leaves]) if leaves else jnp.zeros(0)


def unflatten(vector: Array, like: Tree) -> Tree:
    """The inverse of `flatten`, into the structure and shapes of `like`."""
    leaves, structure = jax.tree.flatten(like)
    parts, start = [], 0
    for leaf in leaves:
        size = math.prod(leaf.shape)
        parts.append(vector[start : start + size].reshape(leaf.shape))
        start += size
    return jax.tree.unflatten(structure, parts)


def where(condition: Array, yes: Tree, no: Tree) -> Tree:
    """`condition ? yes : no` leaf by leaf; `condition` `[B]` (or a scalar) is spread over each leaf's trailing axes."""

    def pick(a: Array, b: Array) -> Array:
        return jnp.where(condition.reshape(condition.shape + (1,) * (a.ndim - condition.ndim)), a, b)

    return jax.tree.map(pick, yes, no)


def merge_time(tree: Tree) -> Tree:
    """Merge the first two axes of every leaf: `[T, B, ...]` to `[T * B, ...]`."""
    return jax.tree.map(lambda leaf: leaf.reshape((-1, *leaf.shape[2:])), tree)


NARROW = 64  # numbers; wider leaves move at memory speed on their own, narrower ones cost a kernel each


class Packed(NamedTuple):
    """A tree whose narrow leaves share one table: one kernel to store, gather or copy where there was one a leaf."""

    table: Array  # uint32 [..., K]
    wide: list[Array]


def pack(tree: Tree, leading: int) -> Packed:
    """Pack the leaves of `tree`, all with the same `leading` axes. Bits are kept: `unpack` gives the same tree back."""
    leaves = jax.tree.leaves(tree)
    parts = [as_words(leaf).reshape(*leaf.shape[:leading], -1) for leaf in leaves if _is_narrow(leaf, leading)]
    table = jnp.concatenate(parts, axis=-1) if parts else jnp.zeros((*leaves[0].shape[:leading], 0), jnp.uint32)
    return Packed(table, [leaf for leaf in leaves if not _is_narrow(leaf, leading)])


def unpack(packed: Packed, like: Tree, leading: int) -> Tree:
    """The inverse of `pack`. `like` has the structure, dtypes and, behind `leading` axes, the shapes."""
    likes, structure = jax.tree.flatten(like)
    leaves, wide, start = [], iter(packed.wide), 0
    for leaf in likes:
        if not _is_narrow(leaf, leading):
            leaves.append(next(wide))
            continue
        shape = leaf.shape[leading:]
        size = math.prod(shape)
        part = packed.table[..., start : start + size].reshape(*packed.table.shape[:-1], *shape)
        leaves.append(from_words(part, leaf.dtype))
        start += size
    return jax.tree.unflatten(structure, leaves)


def _is_narrow(leaf: Array, leading: int) -> bool:
    return math.prod(leaf.shape[leading:]) <= NARROW and leaf.dtype.itemsize <= 4


def as_words(leaf: Array) -> Array:
    """Numbers as 32 bits each, uint32: floats as their bits, integers as their value modulo 2^32.

    Unsigned, since a gather of floats may flush what looks like a denormal to 0, as the bits of small integers do.
    """
    if leaf.dtype.kind not in "iuf" or leaf.dtype.itemsize != 4:
        leaf = leaf.astype(np.int32 if leaf.dtype.kind in "iub" else np.float32)
    return leaf.view(np.uint32) if isinstance(leaf, np.ndarray) else jax.lax.bitcast_convert_type(leaf, jnp.uint32)


def from_words(words: Array, dtype: jnp.dtype) -> Array:
    """The inverse of `as_words`."""
    kind: Any = np.int32 if dtype.kind in "iub" else np.float32
    if dtype.itemsize == 4:
        kind = dtype
    numbers = words.view(kind) if isinstance(words, np.ndarray) else jax.lax.bitcast_convert_type(words, kind)
    return numbers.astype(dtype)


def packed_scan(step: Callable, carry: Tree, inputs: Tree, length: int | None = None, leading: int = 1) -> tuple:
    """`jax.lax.scan` that stores each step's narrow outputs in one table: same results, fewer kernels.

    Every output leaf of `step` has the same `leading` axes; stacked, `[T, ...]` comes before them.
    """
    noted: list[Tree] = []

    def packing_step(carry: Tree, inputs: Tree) -> tuple[Tree, Packed]:
        carry, outputs = step(carry, inputs)
        noted.append(jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((0, *leaf.shape), leaf.dtype), outputs))
        return carry, pack(outputs, leading)

    carry, packed = jax.lax.scan(packing_step, carry, inputs, length=length)
    return carry, unpack(packed, noted[0], leading + 1)


def pieces(array: Array, sizes: Sequence[int]) -> list[Array]:
    """Consecutive pieces `[..., size]` of the last axis."""
    ends = itertools.accumulate(sizes)
    return [array[..., end - size : end] for end, size in zip(ends, sizes, strict=True)]
