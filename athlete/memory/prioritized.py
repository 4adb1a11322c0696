"""Prioritised experience replay (Schaul et al. 2016, arXiv:1511.05952), the proportional variant."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Key, Memory, Transition, Tree, hyper
from athlete.memory.ring import Ring, ring_add, ring_init, ring_take, slots_of
from athlete.ops.priorities import tree_find, tree_init, tree_set
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.shuffle import random_orders


class PrioritizedRing(NamedTuple):
    ring: Ring
    tree: list[Array]  # of p^alpha; leaf slot * rows + row is the window that begins there
    largest: Array  # the largest p^alpha given so far, that of new windows


@hyper
class Prioritized(Memory):
    """Samples windows in proportion to p^alpha, where p = |TD error| + epsilon at the last update on the window.

    Equation 1 of the paper, with stratified draws as in its appendix B.2.1, in random order. The weights of section
    3.4, (N P)^-beta over their largest in the batch, come as `extras["weight"]` `[1, B]`. A window has a priority
    from when its last step is there; new ones have the largest so far. The TD error is the update's metric
    `td_error` `[B]`. Windows are those of `Replay`, and each row must have added one before the first sample.
    """

    alpha: float = 0.6
    beta: float | Schedule = 0.4
    epsilon: float = 1e-6
    capacity: int = 50_000  # timesteps of all rows together
    batch_size: int = 32  # timesteps that a sample is learned from: `sequence` of each window
    window: int = 1
    unroll: int = 1  # steps that each row adds at once
    sequence: int = 1
    keep_carry: bool = False
    stack_axis: int | None = None
    apart: bool = False
    rated: bool = False  # new windows begin with their TD errors in the place of the largest priority

    def init(self, example: Transition, rows: int) -> PrioritizedRing:
        slots = slots_of(self.capacity, rows, self.unroll, self.window)
        ring = ring_init(self._kept(example), slots, rows, self.stack_axis, self.window + self.unroll)
        # The leaf behind the last window's is always 0: a place for writes that are to do nothing.
        return PrioritizedRing(ring, tree_init(slots * rows + 1), jnp.ones(()))

    def add(self, store: PrioritizedRing, trajectory: Transition) -> PrioritizedRing:
        slots, rows = store.ring.packed.table.shape[:2]
        length = trajectory.reward.shape[0]
        # The newest `window - 1` beginnings are not complete yet; as many before the new ones now are, unless windows
        # lie within a trajectory.
        offset = jnp.arange(0 if self.apart else 1 - self.window, length)
        new = self._priority_of_new(store, trajectory, len(offset))
        if store.ring.cursor.ndim:
            leaf, complete = self._leaves_of_valid(store.ring, trajectory, offset[:, None])
            priority = jnp.where(complete, new, 0.0)
        else:
            slot = (store.ring.cursor + offset) % slots
            there = (offset >= 0) | (store.ring.filled + offset >= 0)  # slots before the very first are empty
            complete = there & (offset <= length - self.window)
            leaf = slot[:, None] * rows + jnp.arange(rows)
            each = jnp.where(complete[:, None], new, 0.0) if self.rated else jnp.where(complete, new, 0.0)[:, None]
            priority = jnp.broadcast_to(each, leaf.shape)
        largest = jnp.max(priority, initial=store.largest) if self.rated else store.largest
        ring = ring_add(store.ring, self._kept(trajectory), self.stack_axis)
        if ring.frames is not None:
            forgotten = self._forgotten(ring, length)
            leaf = jnp.concatenate([leaf, forgotten])
            priority = jnp.concatenate([priority, jnp.zeros(forgotten.shape)])
        return PrioritizedRing(ring, tree_set(store.tree, leaf.reshape(-1), priority.reshape(-1)), largest)

    def _priority_of_new(self, store: PrioritizedRing, trajectory: Transition, count: int) -> Array:
        """p^alpha of the `count` beginnings that a trajectory may complete: `[count, rows]` where rated, else `[]`."""
        if not self.rated:
            return store.largest
        given = (jnp.abs(trajectory.extras["td_error"]) + self.epsilon) ** self.alpha
        # Those before it were begun by another trajectory, which could not tell.
        before = jnp.full((count - given.shape[0], given.shape[1]), store.largest)
        return jnp.concatenate([before, given])

    def _leaves_of_valid(self, ring: Ring, trajectory: Transition, offset: Array) -> tuple[Array, Array]:
        """Leaves `[n, rows]` of slots at `offset` `[n, 1]` from each row's cursor, and whether windows there are whole.

        Rows take in as many steps as are valid: what lies behind them stays as it was.
        """
        slots, rows = ring.packed.table.shape[:2]
        count = jnp.sum(trajectory.extras["valid"], axis=0, dtype=jnp.int32)
        there = (offset >= 0) | (ring.filled + offset >= 0)
        leaf = (ring.cursor + offset) % slots * rows + jnp.arange(rows)
        return jnp.where(there & (offset < count), leaf, slots * rows), there & (offset <= count - self.window)

    def _forgotten(self, ring: Ring, length: int) -> Array:
        """Leaves `[n, rows]` behind the oldest whole window: those that the last `length` steps may have forgotten."""
        assert ring.frames is not None and self.stack_axis is not None
        slots, rows = ring.packed.table.shape[:2]
        age = ring.frames.kept + 1 + jnp.arange(length * (1 + ring.frames.example.shape[self.stack_axis]))[:, None]
        leaf = (ring.cursor - age) % slots * rows + jnp.arange(rows)
        return jnp.where(age <= slots, leaf, slots * rows)

    def sample(self, store: PrioritizedRing, trajectory: Transition, key: Key, progress: Array) -> Transition:
        rows = store.ring.packed.table.shape[1]
        number = self.batch_size // self.sequence
        order_key, place_key = jax.random.split(key)
        # Strata follow one another in memory, and so in time: in a new order, each part of the batch is of all times.
        order = random_orders(order_key, 1, number)[0]
        strata = (order + jax.random.uniform(place_key, (number,))) / number
        leaf, priority = tree_find(store.tree, strata)
        # N and the sum of all priorities are the same for all weights: dividing by the largest cancels them.
        weight = (priority / jnp.min(priority)) ** -value_at(self.beta, progress)
        batch = ring_take(store.ring, leaf // rows, leaf % rows, self.window, self.stack_axis)
        return batch._replace(extras=dict(batch.extras) | {"weight": weight[None], "leaf": leaf[None]})

    def feedback(self, store: PrioritizedRing, batch: Transition, metrics: Tree) -> PrioritizedRing:
        priority = (jnp.abs(metrics["td_error"]) + self.epsilon) ** self.alpha
        tree = tree_set(store.tree, batch.extras["leaf"][0], priority)
        return PrioritizedRing(store.ring, tree, jnp.maximum(store.largest, jnp.max(priority)))

    def ready(self, store: PrioritizedRing) -> Array:
        return (store.ring.filled >= self.window).any()

    def _kept(self, trajectory: Transition) -> Transition:
        if self.rated:
            kept = {name: part for name, part in trajectory.extras.items() if name != "td_error"}
            trajectory = trajectory._replace(extras=kept)
        return trajectory if self.keep_carry else trajectory._replace(carry=())
