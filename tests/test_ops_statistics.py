"""Statistics of runs, with numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athlete.ops.statistics import bootstrap_interval, interquartile_mean, summarize


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
