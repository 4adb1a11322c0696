"""How much entropy is worth: the temperature of soft actor-critics, and its own small optimisation."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp

from athlete.core import Array
from athlete.ops.gradient import Adam, AdamState, adam_init
from athlete.spaces import Discrete, Space


class Temperature(NamedTuple):
    """The temperature alpha, as its logarithm so that it stays positive."""

    log_alpha: Array  # float32 scalar
    optimizer: AdamState

    def alpha(self) -> Array:
        return jnp.exp(self.log_alpha)


def temperature_init(alpha: Array) -> Temperature:
    log_alpha = jnp.log(jnp.asarray(alpha, jnp.float32))
    return Temperature(log_alpha, adam_init(log_alpha))


def temperature_update(temperature: Temperature, entropy: Array, target: Array, learning_rate: Array) -> Temperature:
    """One step towards a policy of `target` entropy, from samples or values of it, `[B]`.

    Haarnoja et al. 2018 (arXiv:1812.05905), equation 18, in log alpha instead of alpha, so that the gradient does not
    vanish with alpha: J = log alpha (entropy - target). A `learning_rate` of 0 holds alpha where it is.
    """
    gradient = jnp.mean(entropy) - target
    optimizer = Adam(grad_clip=None)
    log_alpha, state, _ = optimizer.step(temperature.log_alpha, gradient, temperature.optimizer, learning_rate)
    return Temperature(log_alpha, state)


DISCRETE_SHARE = 0.3  # of the largest entropy there is


def default_target_entropy(space: Space, mask: Array | None = None) -> Array | float:
    """-dim(A) where continuous (arXiv:1812.05905, appendix D), `DISCRETE_SHARE` of log n for n actions.

    The share of arXiv:1910.07207 is 0.98: a policy so near the uniform one collects little of what it knows.

    With a mask of actions `[B, n]`, n is how many are legal, and the target the mean over the batch.
    """
    if mask is not None:
        return DISCRETE_SHARE * jnp.mean(jnp.log(jnp.sum(mask, axis=-1, dtype=jnp.float32)))
    if isinstance(space, Discrete):
        return DISCRETE_SHARE * math.log(space.n)
    return -float(math.prod(space.shape))
