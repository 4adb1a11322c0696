"""Numbers of any size as targets of a network (Hafner et al. 2023, arXiv:2301.04104v1): symlog and two-hot encoding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array

MOST = 20.0  # the bins reach to symexp(20), 485 million, on either side


def symlog(x: Array) -> Array:
    """sign(x) log(|x| + 1): large numbers brought near, small ones left alone (equation 2)."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp(x: Array) -> Array:
    """The inverse of `symlog`, sign(x) (exp(|x|) - 1)."""
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))


def bins(number: int) -> np.ndarray:
    """Where the bins stand, `[number]`, at equal distances in symlog's scale."""
    return np.linspace(-MOST, MOST, number, dtype=np.float32)


def two_hot(x: Array, number: int) -> Array:
    """Weights `[..., number]` of the two bins next to symlog(x), of which symlog(x) is the mean; zeros elsewhere
    (equation 9).

    Beyond the last bin all weight is on it.
    """
    distance = jnp.abs(jnp.clip(symlog(x), -MOST, MOST)[..., None] - bins(number))
    return jnp.maximum(0.0, 1.0 - distance * (number - 1) / (2.0 * MOST))


def two_hot_mean(logits: Array) -> Array:
    """The number `[...]` that probabilities of bins stand for: symexp of their mean; `logits` `[..., bins]`."""
    return symexp(jnp.sum(jax.nn.softmax(logits) * bins(logits.shape[-1]), axis=-1))


def two_hot_loss(logits: Array, x: Array) -> Array:
    """Cross entropy `[...]` of the bins' probabilities, as `logits` `[..., bins]`, with the two-hot encoding of x."""
    return -jnp.sum(two_hot(x, logits.shape[-1]) * jax.nn.log_softmax(logits), axis=-1)
