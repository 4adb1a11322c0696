"""Returns of a population as ranks."""

from __future__ import annotations

import jax.numpy as jnp

from athlete.core import Array


def centered_ranks(values: Array) -> Array:
    """The ranks of `values` `[P]`, from -1/2 of the least to 1/2 of the greatest; equal ones have the mean of theirs.

    The fitness shaping of Salimans et al. 2017 (arXiv:1703.03864, section 2.1). Of one value alone it is 0.
    """
    below = jnp.sum(values[:, None] > values[None, :], axis=1)
    equal = jnp.sum(values[:, None] == values[None, :], axis=1)
    rank = below + 0.5 * (equal - 1)
    return rank / max(values.size - 1, 1) - (0.5 if values.size > 1 else 0.0)
