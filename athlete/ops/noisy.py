"""Noisy networks (Fortunato et al. 2018, arXiv:1706.10295): parameters with a mean and a learned noise of their own."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from athlete.core import Array, Key, Tree


def noisy_init(params: Tree, sigma0: float) -> Tree:
    """`{"mean": params, "sigma": ...}`: sigma0 / sqrt(inputs) for every weight (section 3.2, factorised noise).

    A bias takes the sigma of the widest thing known of its layer, its own size.
    """

    def sigma(leaf: Array) -> Array:
        return jnp.full(leaf.shape, sigma0 / math.sqrt(leaf.shape[0]))

    return {"mean": params, "sigma": jax.tree.map(sigma, params)}


def noisy_sample(params: Tree, key: Key) -> Tree:
    """One draw of all parameters: mean + sigma * noise, with the factorised noise of equation 10 and 11 for matrices.

    f(x) = sign(x) sqrt(|x|) of normal numbers, one for each input and output of a matrix; vectors have their own.
    """
    means, structure = jax.tree.flatten(params["mean"])
    sigmas = jax.tree.leaves(params["sigma"])
    normal = jax.random.normal(key, (sum(sum(leaf.shape) for leaf in means),))
    noise = jnp.sign(normal) * jnp.sqrt(jnp.abs(normal))
    leaves, start = [], 0
    for mean, sigma in zip(means, sigmas, strict=True):
        size = sum(mean.shape)
        part = noise[start : start + size]
        drawn = part if mean.ndim == 1 else part[: mean.shape[0], None] * part[None, mean.shape[0] :]
        leaves.append(mean + sigma * drawn)
        start += size
    return jax.tree.unflatten(structure, leaves)
