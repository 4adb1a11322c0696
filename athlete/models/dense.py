"""Layers that every network shares."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from athlete.core import Array, Key, Tree

ACTIVATIONS = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "swish": jax.nn.silu,
    "silu": jax.nn.silu,
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "linear": lambda x: x,
}


def activation(name: str):
    """The function of that name. Raises ValueError with the names there are."""
    if name not in ACTIVATIONS:
        raise ValueError(f"no activation {name!r}; there are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def orthogonal(key: Key, inputs: int, outputs: int, scale: float) -> Array:
    """A random `[inputs, outputs]` matrix whose shorter side is orthonormal, times `scale` (Saxe et al. 2014).

    The orthogonal factor of a Gaussian matrix, by Newton-Schulz iteration: products only, where a QR
    decomposition took more time to compile than CartPole takes to train.
    """
    matrix = jax.random.normal(key, (max(inputs, outputs), min(inputs, outputs)))
    size = matrix.shape[1]
    if size == 1:
        matrix = matrix / jnp.linalg.norm(matrix)
    else:
        # Condition first: a Gaussian's smallest singular value is near 0 when square, and the iteration is slow there.
        matrix = matrix / (jnp.sqrt(matrix.shape[0]) + math.sqrt(size))
        identity = jnp.eye(size)

        def improve(_, matrix):
            gram = matrix.T @ matrix
            return matrix @ (1.5 * identity - 0.5 * gram)

        matrix = jax.lax.fori_loop(0, 40, improve, matrix)
    return scale * (matrix if inputs >= outputs else matrix.T)


def init_dense(key: Key, inputs: int, outputs: int, scale: float) -> Tree:
    """`{"kernel": [inputs, outputs], "bias": [outputs]}`: orthogonal weights times `scale`, biases 0."""
    return {"kernel": orthogonal(key, inputs, outputs, scale), "bias": jnp.zeros(outputs)}


def dense(params: Tree, x: Array) -> Array:
    """`x @ kernel + bias` on the last axis. Leading axes are folded first: XLA's products of `[1, N, D]` are slow."""
    folded = x.reshape(-1, x.shape[-1]) @ params["kernel"] + params["bias"]
    return folded.reshape(*x.shape[:-1], folded.shape[-1])
