"""What of a program is shared out among several devices, and what each of them has. On one device nothing happens."""

from __future__ import annotations

from typing import TypeVar

import jax
from jax.sharding import PartitionSpec

from athlete.core import Tree

ROWS = "rows"  # the axis of the mesh that rows and minibatches are spread over

_Tree = TypeVar("_Tree", bound=Tree)


def devices() -> int:
    """How many devices the program that is traced has together: those of the mesh that is set (`jax.set_mesh`)."""
    mesh = jax.sharding.get_abstract_mesh()
    return dict(mesh.shape).get(ROWS, 1)


def spread(tree: _Tree, axis: int) -> _Tree:
    """The same tree, `axis` of every leaf shared out among the devices; one that they do not divide stays as it is."""
    number, part = devices(), PartitionSpec(*[None] * axis, ROWS)
    if number == 1:
        return tree
    return jax.tree.map(lambda leaf: leaf if leaf.shape[axis] % number else constrained(leaf, part), tree)


def everywhere(tree: _Tree) -> _Tree:
    """The same tree, all of it on each device."""
    return constrained(tree, PartitionSpec())


def constrained(tree: _Tree, part: Tree) -> _Tree:
    """The same tree in such parts: a `PartitionSpec`, or a tree of them."""
    return tree if devices() == 1 else jax.lax.with_sharding_constraint(tree, part)
