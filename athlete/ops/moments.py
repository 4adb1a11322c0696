"""Running mean and variance, and standardising with them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Tree

MOST_SAMPLES = 1e7  # beyond, old samples fade: a float32 count stands still at 1.7e7


class Moments(NamedTuple):
    """Count, mean and variance of what was seen, each leaf in the shape of one observation."""

    count: Array
    mean: Tree
    variance: Tree


def initial_moments(example: Tree) -> Moments:
    """Of nothing seen: mean 0, variance 1."""
    return Moments(jnp.zeros(()), jax.tree.map(jnp.zeros_like, example), jax.tree.map(jnp.ones_like, example))


def update_moments(moments: Moments, batch: Tree) -> Moments:
    """Take in a batch `[T, B, ...]` (Chan et al. 1979, the parallel form of Welford's algorithm)."""
    leaves = jax.tree.leaves(batch)
    if not leaves:
        return moments
    size = leaves[0].shape[0] * leaves[0].shape[1]
    total = moments.count + size

    def mean_of(mean: Array, leaf: Array) -> Array:
        return mean + (jnp.mean(leaf, axis=(0, 1)) - mean) * size / total

    def variance_of(variance: Array, mean: Array, leaf: Array) -> Array:
        shift = jnp.mean(leaf, axis=(0, 1)) - mean
        squares = variance * moments.count + jnp.var(leaf, axis=(0, 1)) * size
        return (squares + shift * shift * moments.count * size / total) / total

    mean = jax.tree.map(mean_of, moments.mean, batch)
    variance = jax.tree.map(variance_of, moments.variance, moments.mean, batch)
    return Moments(jnp.minimum(total, MOST_SAMPLES), mean, variance)


def standardize(leaf: Array, mean: Array, variance: Array, clip: float) -> Array:
    """(leaf - mean) / std, within [-clip, clip]."""
    return jnp.clip((leaf - mean) / jnp.sqrt(variance + 1e-8), -clip, clip)
