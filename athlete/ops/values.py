"""Reading and comparing action values."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from athlete.core import Array, Tree
from athlete.ops.masks import masked
from athlete.ops.tree import where


def greedy(values: Array, mask: Array | None = None) -> Array:
    """The best action `[B]` of values `[B, n]` that `mask` allows, int32; the first of several."""
    return jnp.argmax(masked(values, mask), axis=-1).astype(jnp.int32)


def batched_index(values: Array, action: Array) -> Array:
    """The values `[B, ...]` of actions `[B]` among `[B, actions, ...]`. A product: its gradient needs no scatter."""
    chosen = action[:, None] == jnp.arange(values.shape[1])
    return jnp.sum(jnp.where(chosen.reshape(chosen.shape + (1,) * (values.ndim - 2)), values, 0.0), axis=1)


def dueling(value: Array, advantage: Array) -> Array:
    """Action values from a state's value `[B, 1, ...]` and advantages `[B, actions, ...]`.

    Q = V + A - mean A (Wang et al. 2016, arXiv:1511.06581, equation 9).
    """
    return value + advantage - jnp.mean(advantage, axis=1, keepdims=True)


def huber(error: Array, delta: float = 1.0) -> Array:
    """Half the square within `delta` of 0, linear beyond (Huber 1964)."""
    small = jnp.minimum(jnp.abs(error), delta)
    return small * (jnp.abs(error) - 0.5 * small)


def half_square(error: Array) -> Array:
    """Half the square of each error."""
    return 0.5 * error * error


def polyak_update(target: Tree, online: Tree, tau: Array) -> Tree:
    """Polyak averaging: (1 - tau) target + tau online, leaf by leaf."""
    return jax.tree.map(lambda old, new: old + tau * (new - old), target, online)


def periodic_update(target: Tree, online: Tree, tau: Array, since: Array, frequency: Array) -> tuple[Tree, Array]:
    """The target network, moved by `tau` once `since` reaches `frequency`, and the timesteps since it last moved."""
    due = since >= frequency
    moved = polyak_update(target, online, tau)
    return where(due, moved, target), jnp.where(due, jnp.maximum(since - frequency, 0.0), since)


def signed_hyperbolic(value: Array, epsilon: Array) -> Array:
    """h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x: large values brought near (Pohlen et al. 2018, arXiv:1805.11593,
    proposition A.2).
    """
    return jnp.sign(value) * (jnp.sqrt(jnp.abs(value) + 1.0) - 1.0) + epsilon * value


def signed_parabolic(value: Array, epsilon: Array) -> Array:
    """The inverse of `signed_hyperbolic`.

    sign(x) (((sqrt(1 + 4 epsilon (|x| + 1 + epsilon)) - 1) / (2 epsilon))^2 - 1), by the same proposition.
    Multiplied out so that nothing cancels in float32; an `epsilon` of 0 is right too.
    """
    size = jnp.abs(value) + 1.0 + epsilon
    root = 2.0 * size / (jnp.sqrt(1.0 + 4.0 * epsilon * size) + 1.0)
    return jnp.sign(value) * (root * root - 1.0)
