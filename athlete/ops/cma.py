"""Covariance matrix adaptation (Hansen 2016, "The CMA Evolution Strategy: A Tutorial", arXiv:1604.00772).

Numbers of equations are those of the tutorial. `diagonal` is separable CMA-ES (Ros & Hansen 2008,
doi:10.1007/978-3-540-87700-4_30): of the covariance only the diagonal, with learning rates (n + 2) / 3 as large.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Key

LEAST_VARIANCE = 1e-7  # along an axis of the covariance, as a share of the largest


class Constants(NamedTuple):
    """What the dimension n and the population make of the tutorial's table 1; numbers of Python."""

    weights: np.ndarray  # [P], of the members from best to worst; of the worse half they are negative
    mu_eff: float  # equation 8
    c_sigma: float  # equations 55 to 59
    d_sigma: float
    c_c: float
    c_1: float
    c_mu: float
    chi: float  # the expected length of a standard normal vector


class Search(NamedTuple):
    """Where the search is: a normal distribution and its two paths."""

    mean: Array  # [n]
    sigma: Array  # scalar
    covariance: Array  # [n, n], or [n] of a diagonal one
    scales: Array  # [n], its standard deviations along the columns of the basis
    basis: Array | tuple[()]  # [n, n]; () of a diagonal one
    path_sigma: Array  # [n]
    path_c: Array  # [n]
    generation: Array  # int32 scalar


def default_population(n: int) -> int:
    """4 + 3 log n (equation 48)."""
    return 4 + math.floor(3.0 * math.log(n))


def constants_of(n: int, population: int, diagonal: bool = False) -> Constants:
    """Table 1 for a population of at least 2 in n dimensions."""
    raw = math.log((population + 1) / 2) - np.log(np.arange(1, population + 1))
    better = population // 2
    mu_eff = raw[:better].sum() ** 2 / (raw[:better] ** 2).sum()
    worse = raw[better:]
    mu_eff_worse = worse.sum() ** 2 / (worse**2).sum()
    c_c = (4 + mu_eff / n) / (n + 4 + 2 * mu_eff / n)
    c_1 = 2 / ((n + 1.3) ** 2 + mu_eff)
    c_mu = min(1 - c_1, 2 * (0.25 + mu_eff + 1 / mu_eff - 2) / ((n + 2) ** 2 + mu_eff))
    if diagonal:
        c_1, c_mu = min(1.0, c_1 * (n + 2) / 3), c_mu * (n + 2) / 3
        c_mu = min(1 - c_1, c_mu)
    c_sigma = (mu_eff + 2) / (n + mu_eff + 5)
    d_sigma = 1 + 2 * max(0.0, math.sqrt((mu_eff - 1) / (n + 1)) - 1) + c_sigma
    least = min(1 + c_1 / c_mu, 1 + 2 * mu_eff_worse / (mu_eff + 2), (1 - c_1 - c_mu) / (n * c_mu))
    positive, negative = raw[raw >= 0].sum(), -raw[raw < 0].sum()
    weights = np.where(raw >= 0, raw / positive, least * raw / max(negative, 1e-12))
    chi = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n))
    return Constants(weights, float(mu_eff), c_sigma, d_sigma, c_c, c_1, c_mu, chi)


def start_search(mean: Array, sigma: Array, diagonal: bool = False) -> Search:
    """A search around `mean` `[n]` with steps of `sigma`, the same in all directions."""
    n, scale = mean.size, jnp.asarray(sigma, jnp.float32)
    covariance, basis = (jnp.ones(n), ()) if diagonal else (jnp.eye(n), jnp.eye(n))
    return Search(mean, scale, covariance, jnp.ones(n), basis, jnp.zeros(n), jnp.zeros(n), jnp.zeros((), jnp.int32))


def draw(search: Search, key: Key, population: int) -> Array:
    """The steps y ~ N(0, C) of a population, `[P, n]`: members are mean + sigma y (equations 38 to 40)."""
    scaled = jax.random.normal(key, (population, search.mean.size)) * search.scales
    return scaled if isinstance(search.basis, tuple) else scaled @ search.basis.T


def adapt(search: Search, steps: Array, returns: Array, constants: Constants) -> Search:
    """The search after a population of `steps` `[P, n]` had `returns` `[P]`, which are to be large."""
    n, c = search.mean.size, constants
    weights = jnp.asarray(c.weights, jnp.float32)
    ordered = steps[jnp.argsort(-returns)]
    step = jnp.maximum(weights, 0.0) @ ordered  # equation 41
    mean = search.mean + search.sigma * step  # equation 42, c_m = 1
    whitened = _whitened(search, jnp.concatenate([step[None], ordered]))
    path_sigma = (1 - c.c_sigma) * search.path_sigma + math.sqrt(c.c_sigma * (2 - c.c_sigma) * c.mu_eff) * whitened[
        0
    ]  # equation 43
    length, generation = jnp.sqrt(jnp.sum(path_sigma**2)), search.generation + 1
    sigma = search.sigma * jnp.exp((c.c_sigma / c.d_sigma) * (length / c.chi - 1))  # equation 44
    expected = jnp.sqrt(1 - (1 - c.c_sigma) ** (2.0 * generation.astype(jnp.float32)))
    moves = (length / expected < (1.4 + 2 / (n + 1)) * c.chi).astype(jnp.float32)  # h_sigma
    path_c = (1 - c.c_c) * search.path_c + moves * math.sqrt(c.c_c * (2 - c.c_c) * c.mu_eff) * step  # equation 45
    # Equation 46: bad members take away no more than a step of the expected length would.
    sizes = jnp.sum(whitened[1:] ** 2, axis=1)
    weights_of_covariance = jnp.where(weights >= 0, weights, weights * n / (sizes + 1e-12))
    forgotten = (1 - moves) * c.c_1 * c.c_c * (2 - c.c_c)
    kept = 1 + forgotten - c.c_1 - c.c_mu * float(c.weights.sum())
    covariance = kept * search.covariance + c.c_1 * _outer(search, path_c[None], jnp.ones(1))
    covariance = covariance + c.c_mu * _outer(search, ordered, weights_of_covariance)  # equation 47
    return Search(mean, sigma, *_with_axes(covariance), path_sigma, path_c, generation)


def _outer(search: Search, vectors: Array, weights: Array) -> Array:
    """sum_i w_i v_i v_i^T of vectors `[k, n]`, or its diagonal."""
    if search.covariance.ndim == 1:
        return weights @ vectors**2
    return (vectors.T * weights) @ vectors


def _whitened(search: Search, vectors: Array) -> Array:
    """C^(-1/2) v of each of the vectors `[k, n]`."""
    if isinstance(search.basis, tuple):
        return vectors / search.scales
    return ((vectors @ search.basis) / search.scales) @ search.basis.T


def _with_axes(covariance: Array) -> tuple[Array, Array, Array | tuple[()]]:
    """A covariance, standard deviations `[n]` along the columns of a basis, and that, `[n, n]`.

    No variance is less than a share of the largest that float32 can tell from 0; where one was, it is made so.
    """
    if covariance.ndim == 1:
        covariance = jnp.maximum(covariance, LEAST_VARIANCE * jnp.max(covariance))
        return covariance, jnp.sqrt(covariance), ()
    covariance = 0.5 * (covariance + covariance.T)
    found, basis = jnp.linalg.eigh(covariance)
    values = jnp.maximum(found, LEAST_VARIANCE * found[-1])
    return jnp.where(found[0] < values[0], (basis * values) @ basis.T, covariance), jnp.sqrt(values), basis
