"""What every exploration bonus is. `combine/curious.py` gives its reward to an agent."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from athlete.core import Array, Key, Spec, Transition, Tree
from athlete.ops.gradient import Adam, AdamState
from athlete.ops.sequences import minibatch_orders


class Bonus:
    """The contract. Subclasses are `@hyper` classes; their state is a pytree of arrays."""

    __hyper__ = True

    def bind(self, spec: Spec) -> Bonus:
        """The same bonus, knowing its spaces. Raises ValueError on spaces that it cannot serve."""
        raise NotImplementedError

    def init(self, key: Key) -> Tree:
        """The state before anything was seen."""
        raise NotImplementedError

    def accumulators(self, rows: int) -> Tree:
        """What `observe` carries along each row, at the start of a run: see `Agent.accumulators`."""
        return ()

    def observe(self, state: Tree, accumulators: Tree, trajectory: Transition) -> tuple[Tree, Tree]:
        """State and accumulators after a trajectory `[T, B, ...]` that was just collected: see `Agent.observe`."""
        return state, accumulators

    def reward(self, state: Tree, batch: Transition) -> Array:
        """Intrinsic rewards `[T, B]` of a batch, as new as it is now."""
        raise NotImplementedError

    def update(self, state: Tree, batch: Transition, key: Key) -> tuple[Tree, dict[str, Array]]:
        """The state after learning from a batch, and metrics."""
        return state, {}


def fit(
    loss_of: Callable[[Tree, Tree], tuple[Array, dict[str, Array]]],
    params: Tree,
    optimizer: AdamState,
    samples: Tree,
    minibatch_size: int,
    lr: float,
    key: Key,
) -> tuple[Tree, AdamState, dict[str, Array]]:
    """Go once through `samples` `[N, ...]` in random minibatches, with a step of Adam on each.

    `loss_of(params, samples)` gives a loss and metrics. Returns the new parameters, the optimiser's state and the
    metrics' means. Agents without a memory update once on thousands of steps: one step of Adam on all of them teaches
    little.
    """

    def step(learned: tuple[Tree, AdamState], order: Array) -> tuple[tuple[Tree, AdamState], dict[str, Array]]:
        params, optimizer = learned
        part = jax.tree.map(lambda leaf: jnp.asarray(leaf)[order], samples)
        gradients, metrics = jax.grad(loss_of, has_aux=True)(params, part)
        params, optimizer, _ = Adam(grad_clip=None).step(params, gradients, optimizer, lr)
        return (params, optimizer), metrics

    number = jax.tree.leaves(samples)[0].shape[0]
    if number <= minibatch_size:
        learned, metrics = step((params, optimizer), jnp.arange(number))
        return *learned, metrics
    learned, metrics = jax.lax.scan(step, (params, optimizer), minibatch_orders(key, 1, number, minibatch_size))
    return *learned, jax.tree.map(jnp.mean, metrics)
