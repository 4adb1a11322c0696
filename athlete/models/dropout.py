"""Dropout as a draw of parameters, so that a network's contract needs no random key."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from athlete.core import Array, Key


def with_dropout(params: dict[str, Any], rows: int, rate: Array, key: Key) -> dict[str, Any]:
    """The parameters of an `MLP`, to be applied to `rows` samples, with what to keep of each hidden layer's outputs.

    A number is dropped with probability `rate` and multiplied by 1 / (1 - rate) otherwise (Srivastava et al. 2014,
    section 10), before the layer's normalisation and activation. All masks are drawn at once.
    """
    sizes = [layer["bias"].shape[-1] for layer in params["layers"]]
    uniform = (jax.random.bits(key, (rows, sum(sizes)), jnp.uint32) >> 8).astype(jnp.float32) / 2**24
    kept = jnp.where(uniform < rate, 0.0, 1.0 / (1.0 - rate))
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    layers = [
        {**layer, "keep": kept[:, end - size : end]}
        for layer, size, end in zip(params["layers"], sizes, ends, strict=True)
    ]
    return {**params, "layers": layers}
