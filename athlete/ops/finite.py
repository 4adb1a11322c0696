"""Whether the numbers of a tree are numbers: NaN and infinity spread through a training and are never healed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Tree
from athlete.ops.tree import flatten


class NonFiniteError(ArithmeticError):
    """NaN or infinity where a training or a policy needs numbers; the message says where it was first."""


def all_finite(tree: Tree) -> Array:
    """A bool scalar: no floating-point leaf holds NaN or an infinity. For compiled programs."""
    # As one vector: one kernel, which compiles and runs in a fraction of the time of one for each leaf.
    floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.isfinite(flatten(floats)).all()


def first_nonfinite(tree: Tree) -> str | None:
    """The path of the first leaf that holds NaN or an infinity, `params/policy/0/kernel`; None if there is none.

    Leaves are arrays of NumPy or JAX, or numbers; those without floating point are passed over. Computed on the host:
    a JAX array is fetched.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        if jnp.issubdtype(array.dtype, jnp.inexact) and not np.isfinite(array).all():
            return jax.tree_util.keystr(path, simple=True, separator="/")
    return None
