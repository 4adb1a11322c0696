"""Objectives of a policy that must stay near the one that acted, from the ratio of their probabilities."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from athlete.core import Array


def clipped_surrogate(ratio: Array, advantage: Array, clip: Array) -> Array:
    """min(r A, clip(r, 1 - clip, 1 + clip) A), elementwise (Schulman et al. 2017, arXiv:1707.06347, equation 7)."""
    clipped = jax.lax.clamp(1.0 - clip, ratio, 1.0 + clip)  # jnp.clip's gradient splits ties: 3 kernels more
    plain, clipped = ratio * advantage, clipped * advantage
    return jnp.where(plain < clipped, plain, clipped)  # jnp.minimum splits ties too


def discovered_surrogate(ratio: Array, log_ratio: Array, advantage: Array) -> Array:
    """Discovered policy optimisation (Lu et al. 2022, arXiv:2210.05639): r A - f(r, A), elementwise.

    f(r, A) = relu((r - 1) A - a tanh((r - 1) A / a))    where A >= 0, a = 2
              relu(log(r) A - b tanh(log(r) A / b))      where A < 0, b = 0.6

    It is at most r A and as steep at r = 1; it lets the ratio go far where advantages are small, and draws it
    back where an action was worse than expected and has become very unlikely.
    """
    gain, loss = (ratio - 1.0) * advantage, log_ratio * advantage
    drift = jnp.where(advantage >= 0.0, gain - 2.0 * jnp.tanh(gain / 2.0), loss - 0.6 * jnp.tanh(loss / 0.6))
    return ratio * advantage - jax.nn.relu(drift)
