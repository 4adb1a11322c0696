"""Statistics of arrays and of runs."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from athlete.core import Array


def explained_variance(target: Array, prediction: Array) -> Array:
    """1 - Var(target - prediction) / Var(target): 1 is perfect, 0 no better than a constant; a scalar."""
    pair = jnp.stack([target, target - prediction]).reshape(2, -1)
    variance, error = jnp.var(pair, axis=1)
    return 1.0 - error / (variance + 1e-8)


def interquartile_mean(values: Array) -> float:
    """The mean of the middle half of all values, rliable's aggregate of runs (Agarwal et al. 2021).

    A quarter of the values, rounded down, is left out at either end. Raises ValueError for no values.
    """
    ordered = np.sort(np.asarray(values, np.float64), axis=None)
    if not ordered.size:
        raise ValueError("interquartile_mean: there are no values")
    cut = ordered.size // 4
    return float(ordered[cut : ordered.size - cut].mean())
