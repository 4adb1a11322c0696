"""A Gaussian process whose function drifts with time, in NumPy: what population based bandits choose by."""

from __future__ import annotations

import itertools

import numpy as np

_LENGTHS, _DRIFTS, _NOISE = (0.2, 0.5, 1.0), (0.02, 0.2), 0.1


def kernel(
    x: np.ndarray, times: np.ndarray, other_x: np.ndarray, other_times: np.ndarray, length: float, drift: float
) -> np.ndarray:
    """`exp(-|x - x'|^2 / (2 length^2)) (1 - drift)^(|t - t'| / 2)`, `[n, m]`; x `[n, d]`, times `[n]`.

    The time-varying squared exponential of Bogunovic et al. 2016, as Parker-Holder et al. 2020, equation 7.
    """
    squared = np.sum((x[:, None] - other_x[None]) ** 2, axis=-1)
    apart = np.abs(times[:, None] - other_times[None])
    return np.exp(-squared / (2 * length**2)) * (1 - drift) ** (apart / 2)


def fitted(x: np.ndarray, times: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Length and drift of the kernel, among a few, with the highest marginal likelihood of `y` `[n]`."""

    def likelihood(length: float, drift: float) -> float:
        factor = np.linalg.cholesky(kernel(x, times, x, times, length, drift) + _NOISE * np.eye(len(y)))
        white = np.linalg.solve(factor, y)
        return float(-0.5 * white @ white - np.sum(np.log(np.diag(factor))))

    return max(itertools.product(_LENGTHS, _DRIFTS), key=lambda pair: likelihood(*pair))


def posterior(
    x: np.ndarray, times: np.ndarray, y: np.ndarray, at: np.ndarray, time: float, length: float, drift: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, `[m]` each, at the points `at` `[m, d]` and `time`, of what was `y` `[n]` at `x`."""
    here = np.full(len(at), time)
    gram = kernel(x, times, x, times, length, drift) + _NOISE * np.eye(len(y))
    cross = kernel(at, here, x, times, length, drift)
    solved = np.linalg.solve(gram, np.column_stack([y[:, None], cross.T]))
    variance = 1.0 - np.sum(cross * solved[:, 1:].T, axis=1)
    return cross @ solved[:, 0], np.sqrt(np.maximum(variance, 0.0))
