"""Running mean and variance, and standardising with them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Tree
from athlete.ops.statistics import weighted_mean
from athlete.ops.tree import where

MOST_SAMPLES = 1e7  # beyond, old samples fade: a float32 count stands still at 1.7e7


class Moments(NamedTuple):
    """Count, mean and variance of what was seen, each leaf in the shape of one observation."""

    count: Array
    mean: Tree
    variance: Tree


def initial_moments(example: Tree) -> Moments:
    """Of nothing seen: mean 0, variance 1."""
    return Moments(jnp.zeros(()), jax.tree.map(jnp.zeros_like, example), jax.tree.map(jnp.ones_like, example))


def update_moments(moments: Moments, batch: Tree, weight: Array | None = None) -> Moments:
    """Take in a batch `[T, B, ...]` (Chan et al. 1979, the parallel form of Welford's algorithm).

    `weight` `[T, B]` is 1 for steps and 0 for empty places; of empty places alone nothing is taken in.
    """
    leaves = jax.tree.leaves(batch)
    if not leaves:
        return moments
    size: Any = leaves[0].shape[0] * leaves[0].shape[1] if weight is None else jnp.sum(weight)
    total = moments.count + size
    if weight is not None:
        total = jnp.maximum(total, 1.0)

    def center(leaf: Array) -> Array:
        return jnp.mean(leaf, axis=(0, 1)) if weight is None else weighted_mean(_last(leaf), weight, (-2, -1))

    def spread(leaf: Array) -> Array:
        if weight is None:
            return jnp.var(leaf, axis=(0, 1))
        return weighted_mean(_last(jnp.square(leaf - center(leaf))), weight, (-2, -1))

    def mean_of(mean: Array, leaf: Array) -> Array:
        return mean + (center(leaf) - mean) * size / total

    def variance_of(variance: Array, mean: Array, leaf: Array) -> Array:
        shift = center(leaf) - mean
        squares = variance * moments.count + spread(leaf) * size
        return (squares + shift * shift * moments.count * size / total) / total

    mean = jax.tree.map(mean_of, moments.mean, batch)
    variance = jax.tree.map(variance_of, moments.variance, moments.mean, batch)
    after = Moments(jnp.minimum(total, MOST_SAMPLES), mean, variance)
    return after if weight is None else where(size > 0, after, moments)


def _last(leaf: Array) -> Array:
    """`[T, B, ...]` as `[..., T, B]`, which weights `[T, B]` fit."""
    return jnp.moveaxis(leaf, (0, 1), (-2, -1))


def standardize(leaf: Array, mean: Array, variance: Array, clip: float) -> Array:
    """(leaf - mean) / std, within [-clip, clip]."""
    return jnp.clip((leaf - mean) / jnp.sqrt(variance + 1e-8), -clip, clip)


def merge_moments(moments: Moments, others: Moments) -> Moments:
    """Take in what was counted apart: `others` has leaves `[B, ...]`, a count, mean and variance of each (as above)."""
    number = jnp.sum(others.count)
    total = jnp.maximum(moments.count + number, 1.0)

    def spread(count: Array, like: Array) -> Array:
        return count.reshape(count.shape + (1,) * (like.ndim - count.ndim))

    def mean_of(mean: Array, means: Array) -> Array:
        return mean + jnp.sum(spread(others.count, means) * (means - mean), axis=0) / total

    def variance_of(variance: Array, mean: Array, means: Array, variances: Array) -> Array:
        middle = mean_of(mean, means)
        within = jnp.sum(spread(others.count, means) * (variances + (means - middle) ** 2), axis=0)
        return (moments.count * (variance + (mean - middle) ** 2) + within) / total

    mean = jax.tree.map(mean_of, moments.mean, others.mean)
    variance = jax.tree.map(variance_of, moments.variance, moments.mean, others.mean, others.variance)
    return where(number > 0, Moments(jnp.minimum(total, MOST_SAMPLES), mean, variance), moments)
