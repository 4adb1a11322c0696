"""Objectives of a policy that must stay near the one that acted, from the ratio of their probabilities."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from athlete.core import Array


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
