"""Statistics of arrays and of runs."""

from __future__ import annotations

import jax.numpy as jnp

from athlete.core import Array


def explained_variance(target: Array, prediction: Array) -> Array:
    """1 - Var(target - prediction) / Var(target): 1 is perfect, 0 no better than a constant; a scalar."""
    pair = jnp.stack([target, target - prediction]).reshape(2, -1)
    variance, error = jnp.var(pair, axis=1)
    return 1.0 - error / (variance + 1e-8)
