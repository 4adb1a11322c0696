"""From gradients to new parameters. The only place that clips gradients or averages them over devices."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Tree
from athlete.ops.tree import flatten, unflatten


class AdamState(NamedTuple):
    """Moments of the gradient, one flat vector `[N]` each, and the number of steps taken.

    Flat, since one fused loop over all parameters compiles and runs faster than a loop a leaf.
    """

    mean: Array
    square: Array
    count: Array


def adam_init(params: Tree) -> AdamState:
    """Moments of zero for `params`."""
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    return AdamState(jnp.zeros(size), jnp.zeros(size), jnp.zeros((), jnp.int32))


def adam(
    params: Tree,
    gradients: Tree,
    state: AdamState,
    learning_rate: Array,
    grad_clip: float | None = None,
    epsilon: float = 1e-8,
    axis_name: str | None = None,
) -> tuple[Tree, AdamState, Array]:
    """One step of Adam (Kingma & Ba 2015, arXiv:1412.6980, algorithm 1): new parameters, state, gradient norm.

    The norm is the global one, before clipping; gradients with a larger norm than `grad_clip` are scaled down to it.
    With `axis_name` the gradients are first averaged over that mapped axis (devices).
    """
    gradient = flatten(gradients)
    if axis_name is not None:
        gradient = jax.lax.pmean(gradient, axis_name)
    norm = jnp.sqrt(jnp.sum(gradient * gradient))
    if grad_clip is not None:
        gradient = gradient * jnp.minimum(1.0, grad_clip / (norm + 1e-6))
    count = state.count + 1
    mean = 0.9 * state.mean + 0.1 * gradient
    square = 0.999 * state.square + 0.001 * gradient * gradient
    steps = count.astype(jnp.float32)
    unbiased_mean = mean / (1.0 - 0.9**steps)
    unbiased_square = square / (1.0 - 0.999**steps)
    vector = flatten(params) - learning_rate * unbiased_mean / (jnp.sqrt(unbiased_square) + epsilon)
    return unflatten(vector, params), AdamState(mean, square, count), norm


def l2_penalized(gradients: Tree, params: Tree, coefficient: Array | None) -> Tree:
    """The gradients with that of `coefficient` times half the squared weights of all matrices; None: as they are."""
    if coefficient is None:
        return gradients
    return jax.tree.map(lambda g, w: g + coefficient * w if w.ndim > 1 else g, gradients, params)
