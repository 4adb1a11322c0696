"""Distributions of returns as quantiles: the regression of QR-DQN (Dabney et al. 2018, arXiv:1710.10044)."""

from __future__ import annotations

import jax.numpy as jnp

from athlete.core import Array
from athlete.ops.values import huber


def midpoints(number: int) -> Array:
    """The fractions whose quantiles are nearest to a distribution: (i + 1/2) / N, `[N]` (lemma 2)."""
    return (jnp.arange(number) + 0.5) / number


def quantile_huber(quantiles: Array, target: Array, fractions: Array, kappa: float = 1.0) -> Array:
    """The quantile Huber loss of each sample, `[B]`: a sum over N of the mean over M (equation 10, algorithm 1).

    `quantiles` `[B, N]` at `fractions` `[N]` or `[B, N]` are compared with samples `target` `[B, M]`, u = target -
    quantile: |fraction - 1{u < 0}| L(u) / kappa, where L is Huber's loss (equation 9). The division is IQN's
    (arXiv:1806.06923, equation 3); by it, the loss of large errors does not depend on kappa.
    """
    error = target[:, None, :] - quantiles[:, :, None]  # [B, N, M]
    side = jnp.abs(fractions[..., None] - (error < 0.0))
    return jnp.sum(jnp.mean(side * huber(error, kappa), axis=2), axis=1) / kappa
