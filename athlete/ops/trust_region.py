"""Steps of bounded divergence: the natural gradient by conjugate gradients, and a line search along it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg

from athlete.core import Array


def natural_step(
    kl: Callable[[Array], Array], start: Array, gradient: Array, bound: Array, damping: Array, iterations: int
) -> Array:
    """The step from `start` `[n]` that is best to first order where the divergence, to second order, is `bound`.

    sqrt(2 bound / s'Fs) s with s = F^-1 gradient (Schulman et al. 2015, arXiv:1502.05477, appendix C). F is the Hessian
    of `kl`, a scalar function of parameters `[n]`, at `start`, where `kl` has its minimum 0; `damping` is added to its
    diagonal. Only products F v are computed, each the derivative along v of the gradient of `kl`, in at most
    `iterations` of the conjugate gradient method.
    """
    _, derivative = jax.linearize(jax.grad(kl), start)

    def product(vector: Array) -> Array:
        return derivative(vector) + damping * vector

    direction, _ = cg(product, gradient, maxiter=iterations)
    curvature = jnp.vdot(direction, product(direction))
    return jnp.sqrt(2.0 * bound / (curvature + 1e-8)) * direction


class LineSearch(NamedTuple):
    """Where a line search ended: scalars. All but `attempts` are 0 where no attempt was accepted."""

    attempts: Array
    fraction: Array  # of the full step
    gain: Array  # of the objective
    kl: Array


def line_search(
    measure: Callable[[Array], tuple[Array, Array]],
    start: Array,
    step: Array,
    bound: Array,
    decay: Array,
    attempts: int,
) -> tuple[Array, LineSearch]:
    """The first of `start + decay^i step`, i = 0 ... `attempts` - 1, that gains at a divergence of at most `bound`.

    `measure` gives the objective and the divergence at parameters `[n]`. `start` itself where no attempt is accepted,
    as where they are not numbers.
    """
    before, _ = measure(start)
    none = jnp.zeros(())

    def is_open(found: LineSearch) -> Array:
        return (found.attempts < attempts) & (found.fraction == 0.0)

    def attempt(found: LineSearch) -> LineSearch:
        fraction = decay ** found.attempts.astype(jnp.float32)
        objective, kl = measure(start + fraction * step)
        accepted = (objective > before) & (kl <= bound)
        fraction, gain, kl = (jnp.where(accepted, number, none) for number in (fraction, objective - before, kl))
        return LineSearch(found.attempts + 1, fraction, gain, kl)

    found = jax.lax.while_loop(is_open, attempt, LineSearch(jnp.zeros((), jnp.int32), none, none, none))
    return jnp.where(found.fraction > 0.0, start + found.fraction * step, start), found
