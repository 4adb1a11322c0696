"""Surrogates at points worked out by hand."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from athlete.ops.surrogate import clipped_surrogate, discovered_surrogate


def found(ratio, advantage):
    return float(jax.jit(discovered_surrogate)(np.float32(ratio), np.log(np.float32(ratio)), np.float32(advantage)))


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.0, 3.0, 3.0),
        (1.0, -3.0, -3.0),
        (2.0, 4.0, 8.0 - (4.0 - 2.0 * np.tanh(2.0))),  # a gain of 4
        (0.5, 4.0, 2.0),  # a loss is as it is: relu
        (np.e, -2.0, -2.0 * np.e),  # likelier than before although bad: as it is
        (1 / np.e, -2.0, -2.0 / np.e - (2.0 - 0.6 * np.tanh(2.0 / 0.6))),
    ],
)
def test_values(ratio, advantage, expected):
    assert found(ratio, advantage) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("advantage", [0.5, -0.5])
def test_at_the_old_policy_its_slope_is_the_advantage(advantage):
    def objective(log_ratio):
        return discovered_surrogate(jax.numpy.exp(log_ratio), log_ratio, advantage)

    assert jax.grad(objective)(0.0) == pytest.approx(advantage)


def test_there_is_nothing_to_gain_from_making_a_bad_action_ever_less_likely():
    assert found(np.exp(-3.0), -1.0) < found(np.exp(-0.5), -1.0)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [(1.1, 2.0, 2.2), (1.5, 2.0, 2.4), (0.5, 2.0, 1.0), (0.5, -2.0, -1.6), (1.5, -2.0, -3.0), (1.2, 0.0, 0.0)],
)
def test_a_ratio_counts_up_to_the_clip_where_that_makes_the_objective_larger(ratio, advantage, expected):
    assert float(jax.jit(clipped_surrogate)(ratio, advantage, 0.2)) == pytest.approx(expected, rel=1e-6)
