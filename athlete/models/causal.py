"""Causal self-attention: the blocks of GPT-2 (Radford et al. 2019), over tokens of any meaning.

    y = x + attention(norm(x))        output = y + mlp(norm(y))

with softmax attention (Vaswani et al. 2017, arXiv:1706.03762, equation 1) in heads, an mlp of four times the width with
GELU, and one more normalisation behind the last block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Key, Tree
from athlete.models.dense import Layer, dense, layer_norm


class Dropout(NamedTuple):
    """Shares of numbers that are dropped while learning, and the key that says which."""

    key: Key
    attention: Array  # of the weights of what is attended to
    residual: Array  # of what a block adds


def drop(x: Array, share: Array, key: Key) -> Array:
    """`x` with a `share` of its numbers set to 0, the others divided by 1 - share (Srivastava et al. 2014)."""
    uniform = (jax.random.bits(key, x.shape, jnp.uint32) >> 8).astype(jnp.float32) / 2**24
    return jnp.where(uniform < share, 0.0, x / (1.0 - share))


def block_layers(dim: int, number: int) -> list[Layer]:
    """The dense layers of `number` blocks, in their order; those that add to the stream start smaller, as in GPT-2."""
    small = 1.0 / math.sqrt(2.0 * number)
    one = [Layer(dim, 3 * dim, 1.0), Layer(dim, dim, small), Layer(dim, 4 * dim, 1.0), Layer(4 * dim, dim, small)]
    return one * number


def init_norm(dim: int) -> Tree:
    """Parameters of a layer normalisation."""
    return {"scale": jnp.ones(dim), "shift": jnp.zeros(dim)}


def blocks_of(layers: list[Tree], dim: int) -> Tree:
    """The parameters of blocks from those of `block_layers`."""
    names = ("attend", "out", "in", "back")
    blocks = [
        {**dict(zip(names, layers[i : i + 4], strict=True)), "norm1": init_norm(dim), "norm2": init_norm(dim)}
        for i in range(0, len(layers), 4)
    ]
    return {"blocks": blocks, "norm": init_norm(dim)}


def apply_blocks(params: Tree, x: Array, visible: Array, heads: int, dropout: Dropout | None = None) -> Array:
    """What tokens `[B, N, dim]` become; token i sees token j where `visible[b, i, j]`, and itself at least."""
    keys: Iterator[Key] = iter([] if dropout is None else jax.random.split(dropout.key, 3 * len(params["blocks"])))

    def kept(x: Array, share: Array | None) -> Array:
        return x if share is None else drop(x, share, next(keys))

    attention, residual = (None, None) if dropout is None else (dropout.attention, dropout.residual)
    for block in params["blocks"]:
        weights, value = _attention(block, layer_norm(block["norm1"], x), visible, heads)
        seen = jnp.einsum("bhnm,bmhd->bnhd", kept(weights, attention), value).reshape(x.shape)
        x = x + kept(dense(block["out"], seen), residual)
        wide = jax.nn.gelu(dense(block["in"], layer_norm(block["norm2"], x)))
        x = x + kept(dense(block["back"], wide), residual)
    return layer_norm(params["norm"], x)


def _attention(params: Tree, x: Array, visible: Array, heads: int) -> tuple[Array, Array]:
    """What each token attends to, `[B, heads, N, N]`, and the values there, `[B, N, heads, dim / heads]`."""
    parts = jnp.split(dense(params["attend"], x), 3, axis=-1)
    query, key, value = (part.reshape(*x.shape[:2], heads, -1) for part in parts)
    scores = jnp.einsum("bnhd,bmhd->bhnm", query, key) / math.sqrt(query.shape[-1])
    return jax.nn.softmax(jnp.where(visible[:, None], scores, -jnp.inf), axis=-1), value
