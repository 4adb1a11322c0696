"""Advantages, returns and n-step returns against numbers worked out by hand, across both ways an episode ends."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from athlete.core import Transition
from athlete.ops.returns import at_step, discounted_sums, generalized_advantages, lambda_returns, n_step_return
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


# Lambda-returns -------------------------------------------------------------------------------------------------------


def returns(reward, next_value, terminated=NO, truncated=NO, gamma=0.5, lambda_=0.5):
    """One row: lists over time in, an array over time out."""
    columns = [np.array(part, np.float32)[:, None] for part in (reward, next_value)]
    flags = [np.array(part)[:, None] for part in (terminated, truncated)]
    return np.asarray(jax.jit(lambda_returns)(*columns, *flags, gamma, lambda_))[:, 0]


def test_in_the_middle_of_an_episode_returns_flow_back_from_the_bootstrapped_end():
    # G_2 = 3 + .5*8 = 7; G_1 = 2 + .5 (.5*6 + .5*7) = 5.25; G_0 = 1 + .5 (.5*4 + .5*5.25) = 3.3125
    np.testing.assert_allclose(returns([1, 2, 3], [4, 6, 8]), [3.3125, 5.25, 7], rtol=1e-6)


def test_a_terminated_return_is_its_reward_and_lets_nothing_flow_in():
    # Although next_value is 100: G_1 = 2. G_0 = 1 + .5 (.5*4 + .5*2) = 2.5
    found = returns([1, 2, 3], [4, 100, 8], terminated=[False, True, False])
    np.testing.assert_allclose(found, [2.5, 2, 7], rtol=1e-6)


def test_a_truncated_return_is_bootstrapped_whole_from_where_it_led_and_lets_nothing_flow_in():
    # G_1 = 2 + .5*100 = 52, whatever lambda is. G_0 = 1 + .5 (.5*4 + .5*52) = 15
    found = returns([1, 2, 3], [4, 100, 8], truncated=[False, True, False])
    np.testing.assert_allclose(found, [15, 52, 7], rtol=1e-6)


def test_a_return_that_terminates_at_the_time_limit_is_terminated():
    found = returns([1, 2, 3], [4, 100, 8], terminated=[False, True, False], truncated=[False, True, False])
    np.testing.assert_allclose(found, [2.5, 2, 7], rtol=1e-6)


@pytest.mark.parametrize(("ending", "last"), [("terminated", 3), ("truncated", 3 + 0.5 * 8)])
def test_the_last_return_of_the_batch_knows_how_its_episode_ended(ending, last):
    assert returns([1, 2, 3], [4, 6, 8], **{ending: [False, False, True]})[-1] == pytest.approx(last)


def test_lambda_0_is_one_step_and_lambda_1_the_whole_return():
    np.testing.assert_allclose(returns([1, 2, 3], [4, 6, 8], lambda_=0.0), [3, 5, 7], rtol=1e-6)
    whole = [1 + 0.5 * (2 + 0.5 * 7), 2 + 0.5 * 7, 7]
    np.testing.assert_allclose(returns([1, 2, 3], [4, 6, 8], lambda_=1.0), whole, rtol=1e-6)


def test_lambda_returns_are_advantages_plus_values_where_values_agree_along_time():
    random = np.random.default_rng(0)
    value = random.normal(size=(8, 3)).astype(np.float32)  # of 7 steps and of where the last one led
    reward, over = random.normal(size=(7, 3)).astype(np.float32), random.random((2, 7, 3)) < 0.2
    advantage = plain(reward, value[:-1], value[1:], *over, 0.9, 0.8)
    found = jax.jit(lambda_returns)(reward, value[1:], *over, 0.9, 0.8)
    np.testing.assert_allclose(found, advantage + value[:-1], rtol=1e-4, atol=1e-5)
    mapped = jax.vmap(lambda_returns, in_axes=(1, 1, 1, 1, None, None), out_axes=1)
    np.testing.assert_allclose(jax.jit(mapped)(reward, value[1:], *over, 0.9, 0.8), found, rtol=1e-5, atol=1e-6)


def test_discounted_sums_start_again_with_each_episode():
    reward = np.array([[1, 1], [2, 1], [4, 1], [8, 1]], np.float32)
    first = np.array([[True, False], [False, False], [True, False], [False, False]])
    found = jax.jit(discounted_sums)(reward, first, 0.5, np.array([64, 0], np.float32))
    # First row: 1, 2 + .5, then a new episode: 4, 8 + 2. Second: 1 + 1/2 + 1/4 + 1/8 in one episode.
    np.testing.assert_allclose(found, [[1, 1], [2.5, 1.5], [4, 1.75], [10, 1.875]], rtol=1e-6)


def test_discounted_sums_go_on_from_what_was_summed_before():
    reward, first = np.ones((2, 2), np.float32), np.array([[False, True], [False, False]])
    found = jax.jit(discounted_sums)(reward, first, 0.5, np.array([64, 64], np.float32))
    np.testing.assert_allclose(found, [[33, 1], [17.5, 1.5]], rtol=1e-6)


# n-step returns: windows of n steps, gamma 0.5. What is summed, what the bootstrap is worth, where it is taken.

three_steps = jax.jit(n_step_return)


def window(reward, terminated, truncated, first=None):
    """A batch `[T, B]` of which a return needs no more."""
    first = np.zeros_like(terminated) if first is None else first
    return Transition((), first, (), reward, (), terminated, truncated, (), ())


def n_step(reward, terminated=NO, truncated=NO, first=NO):
    """One row's (return, discount, last step)."""
    parts = (np.array(part)[:, None] for part in (np.array(reward, np.float32), terminated, truncated, first))
    found = three_steps(window(*parts), 0.5)
    return tuple(float(part[0]) for part in found)


def test_three_steps_in_the_middle_of_an_episode():
    assert n_step([1, 2, 4]) == (1 + 1 + 1, 0.125, 2)


@pytest.mark.parametrize(
    ("end", "return_", "last"), [(0, 1, 0), (1, 1 + 1, 1), (2, 1 + 1 + 1, 2)], ids=["first", "middle", "last"]
)
def test_a_termination_ends_the_sum_and_is_worth_nothing_after(end, return_, last):
    assert n_step([1, 2, 4], terminated=[step == end for step in range(3)]) == (return_, 0.0, last)


@pytest.mark.parametrize(
    ("end", "return_", "discount", "last"),
    [(0, 1, 0.5, 0), (1, 1 + 1, 0.25, 1), (2, 1 + 1 + 1, 0.125, 2)],
    ids=["first", "middle", "last"],
)
def test_a_truncation_ends_the_sum_and_is_bootstrapped_there(end, return_, discount, last):
    assert n_step([1, 2, 4], truncated=[step == end for step in range(3)]) == (return_, discount, last)


def test_what_happens_after_the_first_ending_belongs_to_another_episode():
    assert n_step([1, 2, 4], truncated=[True, False, False], terminated=[False, True, False]) == (1, 0.5, 0)
    assert n_step([1, 2, 4], terminated=[True, False, False], truncated=[False, True, False]) == (1, 0.0, 0)


def test_a_window_that_is_terminated_and_truncated_at_once_is_terminated():
    assert n_step([1, 2, 4], [False, True, False], [False, True, False]) == (2, 0.0, 1)


def test_an_episode_that_begins_without_an_end_before_it_is_no_part_of_the_sum():
    """A training on Gymnasium that was restored goes on in new environments."""
    assert n_step([1, 2, 4], first=[False, True, False]) == (1, 0.5, 0)
    assert n_step([1, 2, 4], first=[True, False, False]) == (3, 0.125, 2)


def test_one_step_is_the_plain_target():
    batch = window(np.array([[3.0, 4.0]], np.float32), np.array([[False, True]]), np.array([[False, False]]))
    found = n_step_return(batch, 0.9)
    np.testing.assert_allclose(found.return_, [3, 4])
    np.testing.assert_allclose(found.discount, [0.9, 0])
    np.testing.assert_array_equal(found.last, [0, 0])


def by_loop(reward, terminated, truncated, gamma):
    """One row, as the definition reads."""
    total, discount = 0.0, 1.0
    for step, reward_t in enumerate(reward):
        total += discount * reward_t
        discount *= gamma
        if terminated[step]:
            return total, 0.0, step
        if truncated[step]:
            break
    return total, discount, step


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([1, 2, 5]).flatmap(
        lambda n: st.lists(
            st.tuples(st.floats(-9, 9, width=32), st.booleans(), st.booleans()), min_size=3 * n, max_size=3 * n
        )
    ),
    st.sampled_from([0.0, 0.5, 0.99, 1.0]),
)
def test_it_is_the_loop_over_the_window(steps, gamma):
    reward, terminated, truncated = (np.array(column).reshape(-1, 3) for column in zip(*steps, strict=True))
    found = three_steps(window(reward.astype(np.float32), terminated, truncated), gamma)
    for row in range(3):
        expected = by_loop(reward[:, row], terminated[:, row], truncated[:, row], gamma)
        np.testing.assert_allclose([float(part[row]) for part in found], expected, rtol=1e-4, atol=1e-4)


def test_n_steps_mapped_over_discounts_equal_each_alone():
    reward, flags = np.ones((3, 2), np.float32), np.array([[False, True], [False, False], [False, False]])
    batch = window(reward, ~flags & False, flags)
    mapped = jax.vmap(n_step_return, in_axes=(None, 0))(batch, np.array([0.5, 1.0]))
    np.testing.assert_allclose(mapped.return_, [[1.75, 1], [3, 1]])
    np.testing.assert_allclose(mapped.discount, [[0.125, 0.5], [1, 1]])


def test_a_tree_at_one_step_of_each_row():
    tree = {"obs": np.arange(12).reshape(3, 2, 2), "flag": np.arange(6).reshape(3, 2)}
    found = jax.jit(at_step)(tree, np.array([2, 0]))
    np.testing.assert_array_equal(found["obs"], [[8, 9], [2, 3]])
    np.testing.assert_array_equal(found["flag"], [4, 1])
    only = jax.jit(at_step)(np.array([[7, 8]]), np.array([0, 0]))
    np.testing.assert_array_equal(only, [7, 8])


def test_explained_variance_is_1_for_a_perfect_and_0_for_a_constant_prediction():
    target = np.array([[1.0, 2.0], [3.0, 6.0]], np.float32)
    measure = jax.jit(explained_variance)
    assert measure(target, target) == pytest.approx(1.0)
    assert measure(target, np.full_like(target, 3.0)) == pytest.approx(0.0, abs=1e-6)
    assert measure(target, 2 * target) == pytest.approx(0.0, abs=1e-6)  # the error has the target's own variance
    assert measure(target, -target) == pytest.approx(-3.0)


def test_a_sum_stands_still_where_there_is_no_step():
    reward, first = np.array([[1.0], [2.0], [50.0], [4.0]]), np.array([[False], [False], [True], [False]])
    weight = np.array([[1.0], [1.0], [0.0], [1.0]])
    found = discounted_sums(reward, first, 0.5, np.array([8.0]), weight)
    np.testing.assert_allclose(found[:, 0], [5.0, 4.5, 4.5, 6.25])
