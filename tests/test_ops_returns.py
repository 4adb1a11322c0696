"""Advantages and returns against numbers worked out by hand, across both ways an episode ends."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.ops.returns import discounted_sums, generalized_advantages
from athlete.ops.statistics import explained_variance

plain = jax.jit(generalized_advantages)
GAMMA, LAMBDA = 0.5, 0.5
NO = [False, False, False]


def advantages(reward, value, next_value, terminated=NO, truncated=NO, gamma=GAMMA, lambda_=LAMBDA):
    """One row: lists over time in, an array over time out."""
    columns = [np.array(part, np.float32)[:, None] for part in (reward, value, next_value)]
    flags = [np.array(part)[:, None] for part in (terminated, truncated)]
    return np.asarray(plain(*columns, *flags, gamma, lambda_))[:, 0]


def test_in_the_middle_of_an_episode_advantages_flow_back_from_the_bootstrapped_end():
    # delta = [1 + .5*4 - 2, 2 + .5*6 - 4, 3 + .5*8 - 6] = [1, 1, 1]; A_2 = 1, A_1 = 1 + .25, A_0 = 1 + .25 * 1.25
    found = advantages([1, 2, 3], [2, 4, 6], [4, 6, 8])
    np.testing.assert_allclose(found, [1.3125, 1.25, 1.0], rtol=1e-6)


def test_a_termination_is_worth_nothing_after_and_lets_nothing_flow_in():
    # delta_1 = 2 + 0 - 4 = -2 although next_value is 100; the third step's delta of 1 belongs to another episode.
    found = advantages([1, 2, 3], [2, 4, 6], [4, 100, 8], terminated=[False, True, False])
    np.testing.assert_allclose(found, [1 + 0.25 * -2, -2, 1], rtol=1e-6)


def test_a_truncation_is_bootstrapped_from_where_it_led_and_lets_nothing_flow_in():
    # delta_1 = 2 + .5 * 100 - 4 = 48, and nothing of the third step's 1.
    found = advantages([1, 2, 3], [2, 4, 6], [4, 100, 8], truncated=[False, True, False])
    np.testing.assert_allclose(found, [1 + 0.25 * 48, 48, 1], rtol=1e-6)


def test_a_termination_at_the_time_limit_is_a_termination():
    found = advantages(
        [1, 2, 3], [2, 4, 6], [4, 100, 8], terminated=[False, True, False], truncated=[False, True, False]
    )
    np.testing.assert_allclose(found, [0.5, -2, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("ending", "last"),
    [("runs on", 3 + 0.5 * 8 - 6), ("terminated", 3 - 6), ("truncated", 3 + 0.5 * 8 - 6)],
)
def test_the_last_step_of_the_batch_bootstraps_alone(ending, last):
    at_end = [False, False, True]
    flags = {} if ending == "runs on" else {ending: at_end}
    assert advantages([1, 2, 3], [2, 4, 6], [4, 6, 8], **flags)[-1] == pytest.approx(last)


def test_lambda_0_is_the_one_step_error_and_lambda_1_the_return_less_the_value():
    one_step = advantages([1, 2, 3], [2, 4, 6], [4, 6, 8], lambda_=0.0)
    np.testing.assert_allclose(one_step, [1, 1, 1], rtol=1e-6)
    monte_carlo = advantages([1, 2, 3], [2, 4, 6], [4, 6, 8], lambda_=1.0)
    returns = [1 + 0.5 * 2 + 0.25 * 3 + 0.125 * 8, 2 + 0.5 * 3 + 0.25 * 8, 3 + 0.5 * 8]
    np.testing.assert_allclose(monte_carlo, np.subtract(returns, [2, 4, 6]), rtol=1e-6)


def test_rows_do_not_touch_and_mapping_equals_looping():
    random = np.random.default_rng(0)
    steps, rows = 7, 3
    reward, value, next_value = random.normal(size=(3, steps, rows)).astype(np.float32)
    terminated, truncated = random.random((2, steps, rows)) < 0.2
    whole = plain(reward, value, next_value, terminated, truncated, 0.9, 0.8)
    eager = generalized_advantages(reward, value, next_value, jnp.asarray(terminated), jnp.asarray(truncated), 0.9, 0.8)
    np.testing.assert_allclose(whole, eager, rtol=1e-5, atol=1e-6)
    mapped = jax.jit(jax.vmap(generalized_advantages, in_axes=(1, 1, 1, 1, 1, None, None), out_axes=1))
    np.testing.assert_allclose(
        mapped(reward, value, next_value, terminated, truncated, 0.9, 0.8), whole, rtol=1e-5, atol=1e-6
    )
    expected = np.zeros((steps + 1, rows))
    for t in reversed(range(steps)):  # the two equations, step by step
        delta = reward[t] + 0.9 * np.where(terminated[t], 0, next_value[t]) - value[t]
        expected[t] = delta + np.where(terminated[t] | truncated[t], 0, 0.9 * 0.8) * expected[t + 1]
    np.testing.assert_allclose(whole, expected[:-1], rtol=1e-5, atol=1e-5)


def test_discounted_sums_start_again_with_each_episode():
    reward = np.array([[1, 1], [2, 1], [4, 1], [8, 1]], np.float32)
    first = np.array([[True, False], [False, False], [True, False], [False, False]])
    found = jax.jit(discounted_sums)(reward, first, 0.5)
    # First row: 1, 2 + .5, then a new episode: 4, 8 + 2. Second: 1 + 1/2 + 1/4 + 1/8 in one episode.
    np.testing.assert_allclose(found, [[1, 1], [2.5, 1.5], [4, 1.75], [10, 1.875]], rtol=1e-6)


def test_explained_variance_is_1_for_a_perfect_and_0_for_a_constant_prediction():
    target = np.array([[1.0, 2.0], [3.0, 6.0]], np.float32)
    measure = jax.jit(explained_variance)
    assert measure(target, target) == pytest.approx(1.0)
    assert measure(target, np.full_like(target, 3.0)) == pytest.approx(0.0, abs=1e-6)
    assert measure(target, 2 * target) == pytest.approx(0.0, abs=1e-6)  # the error has the target's own variance
    assert measure(target, -target) == pytest.approx(-3.0)
