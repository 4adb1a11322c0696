"""How trees cross between Python and compiled programs: as one vector."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Tree
from athlete.ops.devices import everywhere
from athlete.ops.tree import as_words, from_words

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
    parts = [as_words(leaf.reshape(-1)) for leaf in leaves if leaf.size <= layout.most]
    array_module = np if all(isinstance(leaf, np.ndarray) for leaf in leaves) else jnp
    vector = array_module.concatenate(parts) if parts else array_module.zeros(0, np.uint32)
    return Packet(layout, vector if array_module is np else everywhere(vector), wide)


def from_packet(packet: Packet) -> Tree:
    """The inverse of `to_packet`, in NumPy where the packet's vector is a NumPy array."""
    layout, vector, wide = packet.layout, packet.vector, iter(packet.wide)
    leaves = [
        next(wide) if place is None else from_words(vector[place], dtype).reshape(shape)
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
            vector[place] = as_words(leaf).reshape(-1)


def on_device(leaf: Any) -> jax.Array:
    """An argument of many calls, sent once: Python's numbers would travel with each."""
    return jax.device_put(np.asarray(leaf, np.float32) if isinstance(leaf, float | int) else leaf)


def fetch(packet: Packet) -> Tree:
    """The tree of a packet that a program gave, as NumPy arrays: one wait and one look for all of it."""
    wide = tuple([np.asarray(leaf) for leaf in packet.wide])
    return from_packet(Packet(packet.layout, np.asarray(packet.vector), wide))
