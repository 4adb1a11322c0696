"""Distributions of returns over fixed atoms: C51's projection (Bellemare et al. 2017, arXiv:1707.06887)."""

from __future__ import annotations

import jax.numpy as jnp

from athlete.core import Array


def atoms(v_min: Array, v_max: Array, number: int) -> Array:
    """`number` evenly spaced returns from `v_min` to `v_max`: the support z, `[N]`."""
    return v_min + (v_max - v_min) * jnp.arange(number) / (number - 1)


def project(probabilities: Array, returns: Array, support: Array) -> Array:
    """Distributions over `returns` `[B, N]` with `probabilities` `[B, N]` as ones over `support` `[M]`: `[B, M]`.

    Equation 7: each return, held within the support, gives its probability to the two atoms around it in proportion to
    how near they are. As a sum over triangles rather than a scatter: M N products, which vectorise.
    """
    spacing = support[1] - support[0]
    held = jnp.clip(returns, support[0], support[-1])
    nearness = jnp.clip(1.0 - jnp.abs(held[:, None, :] - support[None, :, None]) / spacing, 0.0, 1.0)  # [B, M, N]
    return jnp.sum(nearness * probabilities[:, None, :], axis=-1)
