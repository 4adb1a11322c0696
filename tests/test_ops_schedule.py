"""Schedules go through their points in straight lines and stand still outside."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from athlete.ops.schedule import Schedule, from_timesteps, value_at

evaluate = jax.jit(value_at)


@pytest.mark.parametrize(
    ("progress", "value"),
    [(0.0, 4.0), (0.1, 4.0), (0.2, 4.0), (0.3, 3.0), (0.4, 2.0), (0.7, 5.0), (1.0, 8.0)],
)
def test_it_is_linear_between_points_and_constant_before_the_first(progress, value):
    assert evaluate(Schedule((0.2, 0.4, 1.0), (4.0, 2.0, 8.0)), progress) == pytest.approx(value)


def test_it_is_constant_after_the_last_point():
    assert evaluate(Schedule((0.0, 0.5), (1.0, 0.25)), 0.9) == 0.25


def test_one_point_is_a_constant():
    assert [float(evaluate(Schedule((0.5,), (3.0,)), progress)) for progress in (0.0, 1.0)] == [3.0, 3.0]


def test_a_plain_number_is_itself_at_any_progress():
    assert evaluate(0.25, 0.7) == 0.25


def test_timesteps_become_shares_of_the_horizon():
    schedule = from_timesteps([[0, 1.0], [50, 0.5], [200, 0.0]], 400)
    assert schedule == Schedule((0.0, 0.125, 0.5), (1.0, 0.5, 0.0))
    assert evaluate(schedule, 125 / 400) == pytest.approx(0.25)


@pytest.mark.parametrize("points", [[[0, 1.0], [0, 0.5]], [[10, 1.0], [5, 0.5]]])
def test_timesteps_that_do_not_increase_are_refused(points):
    with pytest.raises(ValueError, match=r"timesteps must increase, got \["):
        from_timesteps(points, 100)


def test_other_points_and_values_do_not_compile_again():
    count = 0

    @jax.jit
    def counting(schedule, progress):
        nonlocal count
        count += 1
        return value_at(schedule, progress)

    found = [counting(Schedule((0.0, end), (1.0, last)), 0.5) for end, last in [(1.0, 0.0), (0.5, 3.0)]]
    np.testing.assert_allclose(found, [0.5, 3.0])
    assert count == 1
