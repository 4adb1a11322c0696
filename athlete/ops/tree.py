"""Functions on pytrees of arrays."""

from __future__ import annotations

import dataclasses
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


def fold(tree: Tree) -> Tree:
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
    parts = [_to_words(leaf).reshape(*leaf.shape[:leading], -1) for leaf in leaves if _is_narrow(leaf, leading)]
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
        leaves.append(_from_words(part, leaf.dtype))
        start += size
    return jax.tree.unflatten(structure, leaves)


def _is_narrow(leaf: Array, leading: int) -> bool:
    return math.prod(leaf.shape[leading:]) <= NARROW and leaf.dtype.itemsize <= 4


def _to_words(leaf: Array) -> Array:
    """Numbers as 32 bits each, uint32: floats as their bits, integers as their value modulo 2^32.

    Unsigned, since a gather of floats may flush what looks like a denormal to 0, as the bits of small integers do.
    """
    if leaf.dtype.kind not in "iuf" or leaf.dtype.itemsize != 4:
        leaf = leaf.astype(np.int32 if leaf.dtype.kind in "iub" else np.float32)
    return leaf.view(np.uint32) if isinstance(leaf, np.ndarray) else jax.lax.bitcast_convert_type(leaf, jnp.uint32)


def _from_words(words: Array, dtype: jnp.dtype) -> Array:
    """The inverse of `_to_words`."""
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


IN_ONE_PIECE = 1 << 16  # numbers; larger leaves are worth a transfer of their own


class Layout:
    """How a packet's tree is laid out: static, compared and hashed at every call, so by identity where that will do."""

    __slots__ = ("_hash", "most", "places", "shapes", "structure")

    def __init__(self, structure: Any, shapes: tuple[Any, ...], most: int):
        self.structure, self.shapes, self.most = structure, shapes, most
        sizes = [math.prod(shape) for shape, _ in shapes]
        ends = itertools.accumulate(size if size <= most else 0 for size in sizes)
        # Of each leaf in the vector; None for one that goes apart.
        self.places = [slice(end - size, end) if size <= most else None for end, size in zip(ends, sizes, strict=True)]
        self._hash = hash((structure, shapes, most))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Layout) and (self.structure, self.shapes, self.most) == (
            other.structure,
            other.shapes,
            other.most,
        )


@dataclasses.dataclass(frozen=True)
class Packet:
    """A tree as one vector: what crosses cheaply between Python and a compiled program.

    A call has a fixed cost for each argument and result, and more for one that is not on the device yet or is looked
    at: together more than a small network's arithmetic. Leaves of more than `layout.most` numbers go apart.
    """

    layout: Layout
    vector: jax.Array | np.ndarray
    wide: tuple[jax.Array | np.ndarray, ...]


jax.tree_util.register_dataclass(Packet, data_fields=["vector", "wide"], meta_fields=["layout"])


def to_packet(tree: Tree, most: int = IN_ONE_PIECE, layout: Layout | None = None) -> Packet:
    """Pack a tree of NumPy arrays, or of JAX arrays inside a program; none of 64 bits.

    `layout`, of an earlier tree of the same structure and shapes, saves describing it again.
    """
    leaves, structure = jax.tree.flatten(tree)
    if layout is None:
        layout = Layout(structure, tuple([(leaf.shape, leaf.dtype) for leaf in leaves]), most)
    wide = tuple([leaf for leaf in leaves if leaf.size > layout.most])
    parts = [_to_words(leaf.reshape(-1)) for leaf in leaves if leaf.size <= layout.most]
    array_module = np if all(isinstance(leaf, np.ndarray) for leaf in leaves) else jnp
    vector = array_module.concatenate(parts) if parts else array_module.zeros(0, np.uint32)
    return Packet(layout, vector, wide)


def from_packet(packet: Packet) -> Tree:
    """The inverse of `to_packet`, in NumPy where the packet's vector is a NumPy array."""
    layout, vector, wide = packet.layout, packet.vector, iter(packet.wide)
    leaves = [
        next(wide) if place is None else _from_words(vector[place], dtype).reshape(shape)
        for place, (shape, dtype) in zip(layout.places, layout.shapes, strict=True)
    ]
    return jax.tree.unflatten(layout.structure, leaves)


def write_packet(tree: Tree, packet: Packet) -> None:
    """Write a tree of NumPy arrays into the arrays of a packet that has its layout."""
    vector, wide = np.asarray(packet.vector), iter(packet.wide)
    for place, leaf in zip(packet.layout.places, jax.tree.leaves(tree), strict=True):
        if place is None:
            np.asarray(next(wide))[...] = leaf
        else:
            vector[place] = _to_words(leaf).reshape(-1)


def fetch(packet: Packet) -> Tree:
    """The tree of a packet that a program gave, as NumPy arrays: one wait and one look for all of it."""
    wide = tuple([np.asarray(leaf) for leaf in packet.wide])
    return from_packet(Packet(packet.layout, np.asarray(packet.vector), wide))
