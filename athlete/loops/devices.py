"""The devices that a training is spread over, and how its arrays are placed on them."""

from __future__ import annotations

import contextlib
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from athlete.core import Array, Run, Tree
from athlete.memory.ring import Ring
from athlete.ops.devices import ROWS, constrained, devices

EVERYWHERE = PartitionSpec()


class Devices:
    """`number` of the devices that JAX sees, as one mesh. With one nothing is placed: JAX's default device has all.

    Rows, the replay of each row and minibatches are shared out; the learner's state is on every device. Programs are
    the same as on one device: XLA splits them, and adds up what devices must know of each other.
    """

    def __init__(self, number: int = 1):
        self.mesh = Mesh(np.array(_chosen(number)), (ROWS,)) if number > 1 else None

    def set(self) -> contextlib.AbstractContextManager[Any]:
        """Inside it programs are those of these devices."""
        return contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)

    def everywhere(self, tree: Tree) -> Tree:
        """The tree on each device."""
        return tree if self.mesh is None else _put(tree, NamedSharding(self.mesh, EVERYWHERE))

    def in_shares(self, tree: Tree, axis: int) -> Tree:
        """The tree with `axis` of every leaf shared out, where the devices divide it."""
        if self.mesh is None:
            return tree
        shared, whole = (NamedSharding(self.mesh, part) for part in (PartitionSpec(*[None] * axis, ROWS), EVERYWHERE))
        size = self.mesh.size
        return jax.device_put(tree, jax.tree.map(lambda leaf: whole if leaf.shape[axis] % size else shared, tree))

    def place(self, run: Run) -> Run:
        """A copy of the run on these devices. Its buffers may be given away."""
        if self.mesh is None:
            return jax.device_put(run, may_alias=False)
        mesh = self.mesh
        shardings = jax.tree.map(lambda part: NamedSharding(mesh, part), parts_of(run, mesh.size), is_leaf=_is_part)
        return jax.tree.map(_put, run, shardings)

    def place_learner(self, run: Run) -> Run:
        """The run, its state and memory on these devices; all else is where environments outside JAX need it."""
        if self.mesh is None:
            return run
        placed = self.place(Run(run.state, run.store, *[()] * 4))  # type: ignore[arg-type]
        return run._replace(state=placed.state, store=placed.store)


ONE_DEVICE = Devices()


def _chosen(number: int) -> list[jax.Device]:
    """So many devices, of each process as many."""
    processes = jax.process_count()
    own = [[device for device in jax.devices() if device.process_index == index] for index in range(processes)]
    return [device for devices in own for device in devices[: number // processes]]


def _put(tree: Tree, sharding: NamedSharding) -> Tree:
    """A copy of the tree in such parts; where there are several processes, each has all of it to begin with."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding, may_alias=False)

    def placed(leaf: Array) -> Array:
        if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
            return leaf
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(placed, tree)


def gathered(tree: Tree) -> Tree:
    """NumPy arrays of a tree, whole in every process."""

    def whole(leaf: Array) -> Array:
        if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            return multihost_utils.process_allgather(leaf, tiled=True)
        return leaf

    return jax.device_get(jax.tree.map(whole, tree))


def parts_of(run: Run, number: int) -> Run:
    """The `PartitionSpec` of every array of a run that so many devices have together."""
    rows = jax.tree.map(lambda leaf: PartitionSpec(ROWS), run.rows)
    store = jax.tree.map(lambda part: _parts_of_memory(part, number), run.store, is_leaf=_is_ring)
    return jax.tree.map(lambda leaf: EVERYWHERE, run)._replace(rows=rows, store=store)


def spread_run(run: Run) -> Run:
    """Inside a program: the run in its parts, where there are several devices."""
    number = devices()
    return run if number == 1 else constrained(run, parts_of(run, number))


def here(tree: Tree) -> Tree:
    """What is on every device as it is on this process's first one: acting and looking need no others."""
    return jax.tree.map(_first_copy, tree)


def _first_copy(leaf: Array) -> Array:
    if isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1 and leaf.is_fully_replicated:
        return leaf.addressable_data(0)
    return leaf


def _parts_of_memory(part: Tree, number: int) -> Tree:
    """Of a ring the axis of rows; all else, such as a tree of priorities, is on every device."""
    parts = jax.tree.map(lambda leaf: EVERYWHERE, part)
    if not _is_ring(part) or part.packed.table.shape[1] % number:
        return parts
    packed = jax.tree.map(lambda leaf: PartitionSpec(None, ROWS), part.packed)
    frames = part.frames
    if frames is not None:
        frames = parts.frames._replace(packed=jax.tree.map(lambda leaf: PartitionSpec(None, ROWS), frames.packed))
    return parts._replace(packed=packed, frames=frames)


def _is_ring(part: Tree) -> bool:
    return isinstance(part, Ring)


def _is_part(part: Tree) -> bool:
    return isinstance(part, PartitionSpec)
