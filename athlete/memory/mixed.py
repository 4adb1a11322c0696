"""Batches of which each part comes from a memory of its own: what was collected beside what was recorded."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from athlete.core import Array, Key, Memory, Transition, Tree, hyper


@hyper
class Mixed(Memory):
    """Each batch is one sample of every part, side by side: half and half in RLPD (Ball et al. 2023, arXiv:2302.02948,
    section 4.1).

    What is collected goes to all parts; those that are recorded leave it.
    """

    parts: tuple[Memory, ...] = ()

    @property
    def batch_size(self) -> int:  # type: ignore[override]
        return sum(part.batch_size for part in self.parts)

    @property
    def capacity(self) -> int:
        """Timesteps of what is collected."""
        return sum(getattr(part, "capacity", 0) for part in self.parts)

    def init(self, example: Transition, rows: int) -> Tree:
        return tuple(part.init(example, rows) for part in self.parts)

    def add(self, store: Tree, trajectory: Transition) -> Tree:
        return tuple(part.add(own, trajectory) for part, own in zip(self.parts, store, strict=True))

    def sample(self, store: Tree, trajectory: Transition, key: Key, progress: Array) -> Transition:
        """The key is split for the parts."""
        keys = jax.random.split(key, len(self.parts))
        samples = [
            part.sample(own, trajectory, keys[i], progress)
            for i, (part, own) in enumerate(zip(self.parts, store, strict=True))
        ]
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *samples)

    def ready(self, store: Tree) -> Array:
        return jnp.stack([part.ready(own) for part, own in zip(self.parts, store, strict=True)]).all()


def mixed(parts: Sequence[Memory]) -> Memory:
    """The memory of all `parts`; of one alone that one."""
    return parts[0] if len(parts) == 1 else Mixed(tuple(parts))
