"""Ranked rewards (Laterre et al. 2018, arXiv:1807.01672): one player is won or lost against what it did lately."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from athlete.core import Array


class Returns(NamedTuple):
    """The last returns, in a ring."""

    values: Array  # [N]
    number: Array  # int32: that came in so far


def no_returns(length: int) -> Returns:
    """An empty ring for the last `length` returns."""
    return Returns(jnp.zeros(length), jnp.zeros((), jnp.int32))


def add_returns(returns: Returns, value: Array, over: Array) -> Returns:
    """The ring with the `value` `[T, B]` of episodes that are `over` `[T, B]`, in the order of time, then of rows."""
    length, over = len(returns.values), over.reshape(-1)
    place = returns.number + jnp.cumsum(over) - 1
    number = returns.number + jnp.sum(over)
    # Of two that want one place, nothing says which would come to stand there.
    kept = over & (place >= number - length)
    values = returns.values.at[jnp.where(kept, place % length, length)].set(value.reshape(-1), mode="drop")
    return Returns(values, number)


def percentile_of(returns: Returns, percentile: Array) -> Array:
    """The value below which `percentile` of 100 of the returns are, between neighbours in proportion; 0 of none."""
    held = jnp.minimum(returns.number, len(returns.values))
    ordered = jnp.sort(jnp.where(jnp.arange(len(returns.values)) < held, returns.values, jnp.inf))
    place = percentile / 100.0 * jnp.maximum(held - 1, 0)
    low = jnp.floor(place).astype(jnp.int32)
    high = jnp.minimum(low + 1, jnp.maximum(held - 1, 0))
    value = ordered[low] + (place - low) * (ordered[high] - ordered[low])
    return jnp.where(held > 0, value, 0.0)
