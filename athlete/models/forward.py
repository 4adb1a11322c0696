"""Networks without memory, seen as functions of rows."""

from __future__ import annotations

import jax.numpy as jnp

from athlete.core import Array, Model, Tree


def forward(model: Model, params: Tree, obs: Array) -> dict[str, Array]:
    """`{head: [B, outputs]}` of features `[B, n]`, as at the start of an episode."""
    first = jnp.zeros((1, obs.shape[0]), bool)
    _, heads = model.apply(params, model.start(obs.shape[0]), obs[None], first)
    return {name: out[0] for name, out in heads.items()}
