"""The ring of returns that a single player is ranked by, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.ops.ranked import add_returns, no_returns, percentile_of


def test_the_last_returns_are_kept_in_the_order_of_time_then_of_rows():
    returns = no_returns(3)
    value = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    returns = add_returns(returns, value, jnp.array([[True, False], [True, True]]))
    assert returns.values.tolist() == [1, 3, 4] and int(returns.number) == 3
    returns = add_returns(returns, value, jnp.array([[False, True], [False, False]]))
    assert returns.values.tolist() == [2, 3, 4] and int(returns.number) == 4


def test_of_more_ends_than_there_is_room_for_the_last_ones_stay():
    returns = jax.jit(add_returns)(no_returns(3), jnp.arange(8.0).reshape(4, 2), jnp.ones((4, 2), bool))
    assert sorted(returns.values.tolist()) == [5, 6, 7] and int(returns.number) == 8


@pytest.mark.parametrize("percentile", [0.0, 33.0, 75.0, 100.0])
def test_the_percentile_is_that_of_numpy_among_the_returns_that_there_are(percentile):
    values = [3.0, -1.0, 2.5, 8.0]
    returns = add_returns(no_returns(9), jnp.array([values]), jnp.ones((1, 4), bool))
    assert float(percentile_of(returns, percentile)) == pytest.approx(np.percentile(values, percentile), rel=1e-6)


def test_of_no_returns_it_is_zero():
    assert float(percentile_of(no_returns(4), 75.0)) == 0.0
