"""Statistics of runs, with numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athlete.core import Transition
from athlete.ops.statistics import (
    bootstrap_interval,
    explained_variance,
    interquartile_mean,
    summarize,
    valid_steps,
    weighted_mean,
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([8, 1, 7, 2, 6, 3, 5, 4], 4.5),  # 3, 4, 5, 6
        ([0, 1, 2, 3, 100], 2.0),  # one of five left out at either end
        ([0, 0, 1, 2, 3, 4, 5, 6, 100, 100], 3.5),  # two of ten
        ([7], 7.0),
        ([1, 2, 6], 3.0),  # too few to leave any out
        ([[0, 10], [20, 1000]], 15.0),  # of all values, whatever the shape
    ],
)
def test_interquartile_mean_by_hand(values: list, expected: float) -> None:
    assert interquartile_mean(values) == expected


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.randoms())
def test_interquartile_mean_is_within_the_middle_half_in_any_order(values: list[float], random: object) -> None:
    low, high = np.quantile(values, [0.25, 0.75], method="lower"), np.quantile(values, 0.75, method="higher")
    mean = interquartile_mean(values)
    assert low[0] - 1e-6 <= mean <= high + 1e-6
    assert interquartile_mean(values[::-1]) == mean


def test_interquartile_mean_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="there are no values"):
        interquartile_mean([])


def test_a_bootstrap_interval_lies_between_quantiles_of_all_ways_to_draw() -> None:
    # Three draws of 0, 1, 5 add up to 0, 1, 2, 3, 5, 6, 7, 10, 11, 15 in 1, 3, 3, 1, 3, 6, 3, 3, 3, 1 of 27 ways. A
    # fifth of them, 5.4, are used up at the sum 2, four fifths, 21.6, at the sum 10.
    assert bootstrap_interval([0.0, 1.0, 5.0], np.mean, confidence=0.6) == pytest.approx((2 / 3, 10 / 3))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7.0, 7.0, 7.0, 7.0, 7.0], (7.0, 7.0)),
        ([0.0, 1.0], (0.0, 1.0)),  # both twice the same with probability 1/4 each
        ([0.0] * 39 + [1.0], (0.0, 0.0)),  # the middle half of forty has the one only with 11 copies of it
    ],
)
def test_bootstrap_intervals_by_hand(values: list[float], expected: tuple[float, float]) -> None:
    assert bootstrap_interval(values) == expected


def test_a_bootstrap_interval_repeats_and_narrows_with_confidence() -> None:
    values = np.arange(10.0)
    wide, narrow = bootstrap_interval(values), bootstrap_interval(values, confidence=0.5)
    assert wide == bootstrap_interval(values)
    assert wide[0] < narrow[0] < interquartile_mean(values) < narrow[1] < wide[1]


def test_one_value_has_no_bootstrap_interval() -> None:
    with pytest.raises(ValueError, match="1 values say nothing"):
        bootstrap_interval([3.0])


def test_a_summary_of_four_runs_leaves_out_a_quarter_at_either_end() -> None:
    found = summarize([100.0, 2.0, 4.0, -50.0])
    assert (found.statistic, found.value, found.worst) == ("interquartile mean", 3.0, -50.0)
    assert found.interval is not None
    assert found.interval[0] <= 3.0 <= found.interval[1]


def test_a_summary_of_three_runs_is_called_a_mean() -> None:
    assert summarize([1.0, 2.0, 6.0])[:2] == ("mean", 3.0)
    assert summarize([1.0]) == ("mean", 1.0, None, 1.0)


# Weights: 1 for a step, 0 for an empty place ------------------------------------------------------------------------


def test_a_weighted_mean_by_hand() -> None:
    values = np.array([[1.0, 2.0, np.nan], [3.0, 4.0, 1e30]], np.float32)
    weight = np.array([[1, 1, 0], [1, 0, 0]], np.float32)
    assert float(weighted_mean(values, weight)) == pytest.approx(2.0)
    np.testing.assert_allclose(weighted_mean(values, weight, axis=1), [1.5, 3.0])
    stacked = np.stack([values, 10 * values])
    np.testing.assert_allclose(weighted_mean(stacked, weight, axis=(1, 2)), [2.0, 20.0])
    assert float(weighted_mean(values, np.zeros_like(weight))) == 0.0
    assert float(weighted_mean(np.array([1.0, 4.0]), np.array([0.5, 0.25]))) == pytest.approx(2.0)


def test_explained_variance_leaves_empty_places_out() -> None:
    target, prediction = np.array([[0.0, 2.0, 4.0, 9.0]]), np.array([[1.0, 2.0, 3.0, -7.0]])
    weight = np.array([[1.0, 1.0, 1.0, 0.0]])
    # Of the first three: Var(target) = 8 / 3, Var(target - prediction) = 2 / 3.
    assert float(explained_variance(target, prediction, weight)) == pytest.approx(0.75, abs=1e-6)
    assert float(explained_variance(target[:, :3], prediction[:, :3])) == pytest.approx(0.75, abs=1e-6)


def test_steps_are_valid_where_nothing_else_is_said() -> None:
    def batch(extras: object) -> Transition:
        return Transition(*[None] * 8, extras)

    assert valid_steps(batch({})) is None and valid_steps(batch(())) is None
    assert valid_steps(batch({"valid": np.array([True, False])})).tolist() == [1.0, 0.0]  # type: ignore[union-attr]
