"""Uniformly random elements of every space."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from athlete.ops.random import wrap
from athlete.ops.sampling import sample
from athlete.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

KEY = np.array([1, 2], np.uint32)
COUNT = 4000


def draw(space, shape=(COUNT,)):
    return jax.tree.map(np.asarray, jax.jit(lambda key: sample(space, wrap(key), shape))(KEY))


def test_discrete_values_are_equally_frequent_and_count_from_start():
    drawn = draw(Discrete(3, start=-1))
    assert drawn.dtype == np.int32 and drawn.shape == (COUNT,)
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == [-1, 0, 1]
    assert abs(counts - COUNT / 3).max() < 150  # five standard deviations


def test_multi_discrete_entries_have_their_own_ranges_and_are_independent():
    drawn = draw(MultiDiscrete((2, 4), start=(0, 10)))
    assert drawn.shape == (COUNT, 2)
    assert np.unique(drawn[:, 0]).tolist() == [0, 1]
    assert np.unique(drawn[:, 1]).tolist() == [10, 11, 12, 13]
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.08


def test_multi_binary_is_zeros_and_ones():
    drawn = draw(MultiBinary((2, 3)))
    assert drawn.dtype == np.int8 and drawn.shape == (COUNT, 2, 3)
    assert set(np.unique(drawn)) == {0, 1}
    assert abs(drawn.mean() - 0.5) < 0.02


def test_bounded_box_is_uniform_within_its_bounds():
    drawn = draw(Box(np.array([-2.0, 5.0]), np.array([2.0, 6.0])))
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn.mean(0), [0, 5.5], atol=0.1)
    np.testing.assert_allclose(drawn.std(0), [4 / 12**0.5, 1 / 12**0.5], atol=0.05)
    assert (drawn >= [-2, 5]).all() and (drawn <= [2, 6]).all()


def test_unbounded_entries_are_normal_and_half_bounded_ones_exponential():
    drawn = draw(Box(np.array([-np.inf, 3, -np.inf, 0]), np.array([np.inf, np.inf, -1, 1])))
    np.testing.assert_allclose(drawn.mean(0), [0, 4, -2, 0.5], atol=0.1)
    np.testing.assert_allclose(drawn.std(0), [1, 1, 1, 1 / 12**0.5], atol=0.1)
    assert drawn[:, 1].min() >= 3 and drawn[:, 2].max() <= -1 and drawn[:, 0].min() < -2


def test_the_widest_boxes_do_not_overflow():
    widest = np.finfo(np.float32).max
    assert np.isfinite(draw(Box(-widest, widest, (3,)))).all()
    limits = np.iinfo(np.int32)
    drawn = draw(Box(limits.min, limits.max, (1,), np.int32))
    assert drawn.min() < -1e9 and drawn.max() > 1e9


def test_images_reach_both_ends():
    drawn = draw(Box(0, 255, (2, 2), np.uint8))
    assert drawn.dtype == np.uint8 and drawn.min() == 0 and drawn.max() == 255


@settings(max_examples=10, deadline=None)
@given(low=st.integers(-100, 100), width=st.integers(0, 100), dtype=st.sampled_from(["int8", "int16", "int32"]))
def test_integer_boxes_stay_within_their_bounds(low, width, dtype):
    high = min(low + width, np.iinfo(dtype).max)
    drawn = np.asarray(sample(Box(low, high, (50,), dtype), wrap(KEY)))
    assert drawn.dtype == dtype and drawn.min() >= low and drawn.max() <= high


def test_tuples_and_dictionaries_draw_their_parts_independently():
    part = Box(0, 1, (1,))
    drawn = draw(Dict({"b": Tuple((part, Discrete(2))), "a": part}))
    first, (second, third) = drawn["a"], drawn["b"]
    assert first.shape == second.shape == (COUNT, 1) and third.shape == (COUNT,)
    assert abs(np.corrcoef(first[:, 0], second[:, 0])[0, 1]) < 0.08


def test_a_foreign_space_is_refused():
    with pytest.raises(TypeError, match=r"expected a space of athlete\.spaces, got str"):
        sample("Discrete(2)", wrap(KEY))
