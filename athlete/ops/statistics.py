"""Statistics of arrays and of runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Transition


def valid_steps(batch: Transition) -> Array | None:
    """1 for each step of a batch that is one, 0 for empty places, `[T, B]`; None where all are steps.

    Of many agents not all act at every step: a trajectory of their own steps then has empty places at its end, where
    `extras["valid"]` is False.
    """
    valid = batch.extras.get("valid") if isinstance(batch.extras, dict) else None
    return None if valid is None else valid.astype(jnp.float32)


def weighted_mean(values: Array, weight: Array | None, axis: int | tuple[int, ...] | None = None) -> Array:
    """The mean of `values` `[..., *weight.shape]` where each counts `weight`; over `axis`, over all where that is None.

    A value that weighs 0 changes no bit of it. Of no weight at all it is 0. Without a `weight` it is `jnp.mean`.
    """
    if weight is None:
        return jnp.mean(values, axis=axis)
    weight = jnp.broadcast_to(weight, values.shape)
    total = jnp.sum(jnp.where(weight > 0.0, weight * values, 0.0), axis=axis)
    return total / jnp.maximum(jnp.sum(weight, axis=axis), 1e-8)


def explained_variance(target: Array, prediction: Array, weight: Array | None = None) -> Array:
    """1 - Var(target - prediction) / Var(target): 1 is perfect, 0 no better than a constant; a scalar."""
    pair = jnp.stack([target, target - prediction]).reshape(2, -1)
    if weight is None:
        variance, error = jnp.var(pair, axis=1)
    else:
        counts = weight.reshape(-1)
        centred = pair - weighted_mean(pair, counts, axis=1)[:, None]
        variance, error = weighted_mean(centred * centred, counts, axis=1)
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


def bootstrap_interval(
    values: Array,
    statistic: Callable[[np.ndarray], float] = interquartile_mean,
    *,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile bootstrap interval of a statistic of runs (Efron 1979; Agarwal et al. 2021, section 4.2).

    As many values are drawn with replacement as there are, `resamples` times; the interval leaves out
    (1 - confidence) / 2 of the statistic's values at either end. Raises ValueError for fewer than two values.
    """
    known = np.asarray(values, np.float64).ravel()
    if known.size < 2:
        raise ValueError(f"bootstrap_interval: {known.size} values say nothing of how they vary; give two or more")
    drawn = np.random.default_rng(seed).choice(known, (resamples, known.size))
    outside = (1.0 - confidence) / 2.0
    low, high = np.quantile([statistic(row) for row in drawn], [outside, 1.0 - outside])
    return float(low), float(high)


class Summary(NamedTuple):
    """What several runs of one training reached."""

    statistic: str  # what `value` is: "interquartile mean", or "mean" of too few runs to leave a quarter out
    value: float
    interval: tuple[float, float] | None  # 95%, by the bootstrap; None for one run
    worst: float


def summarize(values: Array) -> Summary:
    """The interquartile mean of runs with its interval, and the worst run. Raises ValueError for no values.

    Of fewer than four runs none is left out, so that theirs is called what it is: a mean.
    """
    known = np.asarray(values, np.float64).ravel()
    statistic = "interquartile mean" if known.size >= 4 else "mean"
    interval = bootstrap_interval(known) if known.size > 1 else None
    return Summary(statistic, interquartile_mean(known), interval, float(known.min()))
