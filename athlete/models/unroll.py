"""Networks with memory along sequences of steps, as they come out of a replay memory."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from athlete.core import Array, Model, Tree
from athlete.ops.tree import merge_time


def unroll(
    model: Model, params: Tree, carry: Tree, obs: Array, first: Array, burn_in: int = 0
) -> tuple[Tree, dict[str, Array]]:
    """`Model.apply` on the steps behind the first `burn_in` of `[T, B, ...]`, which only make the recurrent state.

    No gradient flows into the burn-in (Kapturowski et al. 2019, section 3). `carry` `[B, ...]` is the state before the
    first step of all. Gives the state before the first step behind the burn-in and after each of these,
    `[T - burn_in + 1, B, ...]`, and `{head: [T - burn_in, B, outputs]}`.
    """
    if burn_in:
        warmed, _ = model.apply(jax.lax.stop_gradient(params), carry, obs[:burn_in], first[:burn_in])
        carry = jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf[-1]), warmed)
    after, heads = model.apply(params, carry, obs[burn_in:], first[burn_in:])
    return jax.tree.map(lambda start, rest: jnp.concatenate([start[None], rest]), carry, after), heads


def step_from(model: Model, params: Tree, carries: Tree, obs: Array, first: Array | None = None) -> dict[str, Array]:
    """`{head: [T, B, outputs]}` of a single step on `obs` `[T, B, n]` from each of the states `carries` `[T, B, ...]`.

    Each is a row of its own. With the states after each step and `next_obs` that is what a bootstrap needs: right
    across every ending, where the following row belongs to another episode.
    """
    length, rows = obs.shape[:2]
    first = jnp.zeros((length, rows), bool) if first is None else first
    _, heads = model.apply(params, merge_time(carries), merge_time(obs)[None], first.reshape(1, -1))
    return {name: out.reshape(length, rows, -1) for name, out in heads.items()}
