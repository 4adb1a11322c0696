"""The Gaussian process of population based bandits, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from athlete.ops.gaussian_process import fitted, kernel, posterior

ZERO, ONE = np.array([[0.0]]), np.array([1.0])


def test_the_kernel_falls_with_distance_and_time() -> None:
    near = kernel(ZERO, np.array([0.0]), np.array([[0.5]]), np.array([4.0]), length=0.5, drift=0.2)
    assert near.item() == pytest.approx(np.exp(-0.5) * 0.8**2)
    assert kernel(ZERO, ONE, ZERO, ONE, 0.2, 0.2).item() == 1.0


def test_the_posterior_of_one_point() -> None:
    at = np.array([[0.0], [100.0]])
    mean, deviation = posterior(ZERO, np.array([0.0]), np.array([2.2]), at, 0.0, length=1.0, drift=0.2)
    assert mean.tolist() == pytest.approx([2.0, 0.0])  # 2.2 / (1 + noise of 0.1)
    assert deviation.tolist() == pytest.approx([np.sqrt(1 - 1 / 1.1), 1.0])


def test_the_fit_tells_a_smooth_function_from_a_rough_one() -> None:
    x, times = np.linspace(0.0, 1.0, 20)[:, None], np.zeros(20)
    assert fitted(x, times, x[:, 0] - 0.5)[0] == 1.0
    assert fitted(x, times, np.sin(12 * x[:, 0]))[0] == 0.2
