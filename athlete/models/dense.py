"""Layers that every network shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

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


def activation(name: str) -> Callable[[Array], Array]:
    """The function of that name. Raises ValueError with the names there are."""
    if name not in ACTIVATIONS:
        raise ValueError(f"no activation {name!r}; there are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


class Layer(NamedTuple):
    """One dense layer to be: `scale` is the gain of its initial weights."""

    inputs: int
    outputs: int
    scale: float


def init_layers(key: Key, layers: Sequence[Layer]) -> list[Tree]:
    """`{"kernel": [inputs, outputs], "bias": [outputs]}` for each layer; biases 0.

    Weights are normal with standard deviation `scale / sqrt(max(inputs, outputs))`: entries as large as those of the
    orthogonal matrices that PPO codes start from, without a decomposition to compile. All are
    drawn at once, for the same reason.
    """
    sizes = [layer.inputs * layer.outputs for layer in layers]
    normal = jax.random.normal(key, (sum(sizes),))
    params, start = [], 0
    for layer, size in zip(layers, sizes, strict=True):
        deviation = layer.scale / math.sqrt(max(layer.inputs, layer.outputs))
        kernel = deviation * normal[start : start + size].reshape(layer.inputs, layer.outputs)
        params.append({"kernel": kernel, "bias": jnp.zeros(layer.outputs)})
        start += size
    return params


def dense(params: Tree, x: Array) -> Array:
    """`x @ kernel + bias` on the last axis. Leading axes are folded first: XLA's products of `[1, N, D]` are slow."""
    folded = x.reshape(-1, x.shape[-1]) @ params["kernel"] + params["bias"]
    return folded.reshape(*x.shape[:-1], folded.shape[-1])


def with_layer_norm(layers: Sequence[Tree]) -> list[Tree]:
    """The parameters of `init_layers` with those of a layer normalisation behind each: scale 1 and shift 0."""
    return [
        {**layer, "scale": jnp.ones_like(layer["bias"]), "shift": jnp.zeros_like(layer["bias"])} for layer in layers
    ]


def layer_norm(params: Tree, x: Array) -> Array:
    """Layer normalisation (Ba et al. 2016, arXiv:1607.06450, equation 4) on the last axis, then scale and shift."""
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    deviation = jnp.sqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + 1e-6)
    return centred / deviation * params["scale"] + params["shift"]


def hidden_layers(layers: Sequence[Tree], x: Array, squash: Callable[[Array], Array]) -> Array:
    """Dense layers in a row: each one's product, dropout and normalisation if it has them, its activation.

    Leading axes are folded for all of them: normalising `[1, N, D]` takes XLA several times as long as `[N, D]`.
    """
    folded = x.reshape(-1, x.shape[-1])
    for layer in layers:
        folded = dense(layer, folded)
        folded = folded * layer["keep"] if "keep" in layer else folded
        folded = squash(layer_norm(layer, folded) if "scale" in layer else folded)
    return folded.reshape(*x.shape[:-1], folded.shape[-1])
