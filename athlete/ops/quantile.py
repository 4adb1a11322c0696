"""Distributions of returns as quantiles: the regression of QR-DQN (Dabney et al. 2018, arXiv:1710.10044)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from athlete.core import Array
from athlete.ops.values import huber


def midpoints(number: int) -> Array:
    """The fractions whose quantiles are nearest to a distribution: (i + 1/2) / N, `[N]` (lemma 2)."""
    return (jnp.arange(number) + 0.5) / number


def quantile_huber(
    quantiles: Array, target: Array, fractions: Array, kappa: float = 1.0, weight: Array | None = None
) -> Array:
    """The quantile Huber loss of each sample, `[B]`: a sum over N of the mean over M (equation 10, algorithm 1).

    `quantiles` `[B, N]` at `fractions` `[N]` or `[B, N]` are compared with samples `target` `[B, M]`, u = target -
    quantile: |fraction - 1{u < 0}| L(u) / kappa, where L is Huber's loss (equation 9). The division is IQN's
    (arXiv:1806.06923, equation 3); by it, the loss of large errors does not depend on kappa. The mean is weighted
    where `weight` `[B, M]`, of sum 1 over M, is given. Gradients flow to `quantiles` alone.
    """
    share = jnp.full(target.shape, 1.0 / target.shape[1]) if weight is None else weight
    fixed = jax.lax.stop_gradient(quantiles)
    error = jax.lax.stop_gradient(target)[:, None, :] - fixed[:, :, None]  # [B, N, M]
    side = share[:, None, :] * jnp.abs(fractions[..., None] - (error < 0.0))
    loss = jnp.sum(side * huber(error, kappa), axis=(1, 2)) / kappa
    # The slope written out: by hand one loop over all pairs, by differentiation several times as long.
    slope = -jnp.sum(side * jnp.clip(error, -kappa, kappa), axis=2) / kappa
    return loss + jnp.sum(slope * (quantiles - fixed), axis=1)


def lowest_weights(values: Array, number: int) -> Array:
    """Equal weights of sum 1 on the `number` smallest of `values` `[B, M]`, 0 on the others; of equals the first.

    By counting how many are smaller: no sort, and no copy of the chosen.
    """
    other, own = values[:, None, :], values[:, :, None]
    earlier = jnp.arange(values.shape[1])[None, :] < jnp.arange(values.shape[1])[:, None]
    rank = jnp.sum((other < own) | ((other == own) & earlier), axis=2)
    return jnp.where(rank < number, 1.0 / number, 0.0)
