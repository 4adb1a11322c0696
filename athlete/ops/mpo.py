"""The parts of maximum a posteriori policy optimisation (Abdolmaleki et al. 2018, arXiv:1806.06920).

A state has candidates: actions that were drawn, or all of them. Their values are `[N, B]`, and `log_prior` `[N, B]` is
how probable each was, `-log N` for each of N that were drawn.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from athlete.core import Array


def candidate_weights(values: Array, log_prior: Array, temperature: Array) -> Array:
    """q(a | s) in proportion to prior(a) exp(Q(s, a) / eta), `[N, B]`: the E-step."""
    return jax.lax.stop_gradient(jax.nn.softmax(values / temperature + log_prior, axis=0))


def temperature_dual(values: Array, log_prior: Array, temperature: Array, epsilon: Array) -> Array:
    """eta epsilon + eta E_s log sum_a prior(a) exp(Q(s, a) / eta), a scalar: the dual of the E-step.

    Where it is smallest in eta, the weights are on average `epsilon` away from the prior, as a KL divergence.
    """
    spread = jax.nn.logsumexp(values / temperature + log_prior, axis=0)
    return temperature * (epsilon + jnp.mean(spread))


def multiplier_dual(divergence: Array, multiplier: Array, epsilon: Array) -> Array:
    """alpha (epsilon - KL), summed over constraints `[k]`: to make it small, alpha rises where KL is too large."""
    return jnp.sum(multiplier * (epsilon - jax.lax.stop_gradient(divergence)))
