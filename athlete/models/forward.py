"""Running a network over the rows of one moment: what acts, and what learns from single steps."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from athlete.core import Array, Model, Tree


def forward(model: Model, params: Tree, obs: Array) -> dict[str, Array]:
    """`{head: [B, outputs]}` of features `[B, n]`, as at the start of an episode."""
    first = jnp.zeros(obs.shape[0], bool)
    return forward_step(model, params, model.start(obs.shape[0]), obs, first)[1]


def forward_step(model: Model, params: Tree, carry: Tree, obs: Array, first: Array) -> tuple[Tree, dict[str, Array]]:
    """The carry after one step `[B, ...]` and `{head: [B, outputs]}`, of features `[B, n]`, `first` `[B]` and the carry
    before it.
    """
    carries, heads = model.apply(params, carry, obs[None], first[None])
    return jax.tree.map(lambda leaf: leaf[0], carries), {name: out[0] for name, out in heads.items()}
