"""Noisy networks (Fortunato et al. 2018, arXiv:1706.10295): parameters with a mean and a learned noise of their own."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from athlete.core import Array, Key, Tree


def noisy_init(params: Tree, sigma0: float) -> Tree:
    """`{"mean": params, "sigma": ...}`: sigma0 / sqrt(inputs) for weights and biases of layers (section 3.2).

    A layer's inputs are the rows of its weights. What is no part of a layer, such as the scale and shift of a
    normalisation, has no noise: its sigma is None.
    """
    named, structure = _named(params)
    sigmas = []
    for path, leaf in named.items():
        weights = _weights_of(named, path)
        sigmas.append(None if weights is None else jnp.full(leaf.shape, sigma0 / math.sqrt(_shape(weights)[0])))
    return {"mean": params, "sigma": jax.tree.unflatten(structure, sigmas)}


def noisy_sample(params: Tree, key: Key) -> Tree:
    """One draw of all parameters: mean + sigma * noise, with the factorised noise of equations 10 and 11.

    f(x) = sign(x) sqrt(|x|) of normal numbers, one for each input and output of a layer: weights have the products,
    biases what their layer's outputs have.
    """
    means, structure = _named(params["mean"])
    sigmas = structure.flatten_up_to(params["sigma"])
    shapes = {path: _shape(leaf) for path, leaf in means.items() if leaf.ndim > 1}
    normal = jax.random.normal(key, (sum(sum(shape) for shape in shapes.values()),))
    noise, start = jnp.sign(normal) * jnp.sqrt(jnp.abs(normal)), 0
    products, outputs = {}, {}
    for path, (rows, columns) in shapes.items():
        into, out = noise[start : start + rows], noise[start + rows : start + rows + columns]
        products[path], outputs[path[:-1]] = into[:, None] * out, out
        start += rows + columns
    leaves = []
    for (path, mean), sigma in zip(means.items(), sigmas, strict=True):
        if sigma is None:
            leaves.append(mean)
            continue
        drawn = products[path] if path in products else outputs[path[:-1]]
        leaves.append(mean + sigma * drawn.reshape(mean.shape))
    return jax.tree.unflatten(structure, leaves)


def of_layers(params: Tree) -> Tree:
    """For each leaf, whether it is a layer's weight or bias: what noise is for, and not for a normalisation's."""
    named, structure = _named(params)
    return jax.tree.unflatten(structure, [_weights_of(named, path) is not None for path in named])


def _named(params: Tree) -> tuple[dict[tuple, Array], Any]:
    paths, structure = jax.tree_util.tree_flatten_with_path(params)
    return {tuple(map(str, path)): leaf for path, leaf in paths}, structure


def _weights_of(named: dict[tuple, Array], path: tuple) -> Array | None:
    """The weights of the layer that a leaf belongs to: itself, or beside a bias the kernel. None if there are none."""
    if named[path].ndim > 1:
        return named[path]
    *layer, name = path
    return named.get((*layer, "['kernel']")) if name == "['bias']" else None


def _shape(weights: Array) -> tuple[int, int]:
    """Weights as a matrix of inputs and outputs."""
    return math.prod(weights.shape[:-1]), weights.shape[-1]
