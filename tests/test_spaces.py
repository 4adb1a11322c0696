"""Spaces are equal when they describe the same set; canonical actions go to the environment's form and back."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from athlete.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple, to_canonical, to_environment, zeros

INF = np.inf
SAMPLES = {
    "Discrete": Discrete(3, start=2),
    "MultiDiscrete": MultiDiscrete((2, 4)),
    "MultiDiscrete from elsewhere": MultiDiscrete((2, 4), start=(5, -1)),
    "MultiBinary": MultiBinary((2, 2)),
    "Box": Box(-2.0, [1.0, 3.0]),
    "nested": Dict({"b": Discrete(2, start=1), "a": Tuple((Box(0, 1, (2, 1)), Discrete(4)))}),
}


@pytest.mark.parametrize("space", SAMPLES.values(), ids=SAMPLES)
def test_spaces_are_hashable_and_equal_by_what_they_describe(space):
    import copy

    again = copy.deepcopy(space)
    assert again == space
    assert hash(again) == hash(space)
    assert all(space != other for other in SAMPLES.values() if other is not space)


def test_boxes_differ_by_each_of_shape_dtype_and_bounds():
    box = Box(0, 1, (2,))
    assert box == Box([0, 0], [1, 1])
    assert len({box, Box(0, 1, (3,)), Box(0, 1, (2,), np.float64), Box(0, 2, (2,)), Box(-1, 1, (2,))}) == 5


def test_a_dictionary_is_sorted_by_name_however_it_was_given():
    pairs = [("b", Discrete(2)), ("a", Discrete(3))]
    assert Dict(dict(pairs)) == Dict(tuple(pairs)) == Dict(dict(reversed(pairs)))
    assert [name for name, _ in Dict(dict(pairs)).items] == ["a", "b"]


def test_zeros_have_the_structure_shapes_and_dtypes_of_the_space():
    found = zeros(SAMPLES["nested"], (5, 4))
    assert found["a"][0].shape == (5, 4, 2, 1)
    assert (found["a"][0].dtype, found["b"].dtype) == (np.float32, np.int32)
    assert zeros(MultiBinary((3,))).dtype == np.int8


# Actions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("canonical", "actual"), [(-1.0, -2.0), (0.0, 1.0), (1.0, 4.0), (0.5, 2.5), (7.0, 4.0), (-9.0, -2.0)]
)
def test_a_bounded_box_is_rescaled_from_minus_1_to_1_and_clipped(canonical, actual):
    found = to_environment(Box(-2.0, 4.0, (1,)), np.array([canonical], np.float32))
    np.testing.assert_allclose(found, [actual], rtol=1e-6)


def test_a_box_bounded_on_one_side_is_not_rescaled_but_kept_inside():
    space = Box(np.array([0.0, -INF, -INF, -1.0]), np.array([INF, 3.0, INF, 1.0]))
    found = to_environment(space, np.array([-5.0, 50.0, 50.0, 50.0], np.float32))
    np.testing.assert_allclose(found, [0.0, 3.0, 50.0, 1.0])
    inside = np.array([[5.0, -50.0, 50.0, 0.5]], np.float32)
    np.testing.assert_allclose(to_environment(space, inside), inside)
    np.testing.assert_allclose(to_canonical(space, inside), inside)


def test_bounds_too_far_apart_for_float32_count_as_none():
    """As Gymnasium's environments write "unbounded": the largest number of the dtype."""
    for dtype in (np.float32, np.float64):
        largest = np.finfo(dtype).max
        space = Box(-largest, largest, (2,), dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = to_environment(space, np.array([3.0, -40.0], np.float32))
            np.testing.assert_allclose(found, [3.0, -40.0])
            np.testing.assert_allclose(to_canonical(space, found), [3.0, -40.0])


def test_a_box_of_one_value_gives_that_value_and_goes_back_to_a_finite_action():
    space = Box([0.5, 0.0], [0.5, 1.0])
    np.testing.assert_allclose(to_environment(space, np.array([0.3, 1.0], np.float32)), [0.5, 1.0])
    back = to_canonical(space, np.array([0.5, 1.0], np.float32))
    assert np.isfinite(back).all()
    np.testing.assert_allclose(back[1], 1.0)


@pytest.mark.parametrize(
    ("space", "canonical", "actual"),
    [
        (Discrete(3, start=2), [0, 2], [2, 4]),
        (Discrete(3), [0, 2], [0, 2]),
        (MultiDiscrete((2, 4), start=(5, -1)), [[0, 0], [1, 3]], [[5, -1], [6, 2]]),
        (MultiBinary((2,)), [[0, 1]], [[0, 1]]),
    ],
)
def test_whole_numbers_are_counted_from_the_spaces_start(space, canonical, actual):
    canonical = np.array(canonical, np.int32)
    np.testing.assert_array_equal(to_environment(space, canonical), actual)
    np.testing.assert_array_equal(to_canonical(space, np.array(actual)), canonical)


finite = st.floats(-1e3, 1e3, width=32)


@st.composite
def boxes(draw):
    """Boxes of shape [3], each entry bounded on both sides, on one or on none."""
    low = draw(arrays_of.arrays(np.float32, 3, elements=finite))
    width = draw(arrays_of.arrays(np.float32, 3, elements=st.floats(0.125, 1e3, width=32)))
    kinds = draw(st.lists(st.sampled_from(["both", "low", "high", "none"]), min_size=3, max_size=3))
    high = low + width
    low = np.where([kind in ("both", "low") for kind in kinds], low, -INF)
    high = np.where([kind in ("both", "high") for kind in kinds], high, INF)
    return Box(low, high, dtype=draw(st.sampled_from([np.float32, np.float64])))


@settings(max_examples=60, deadline=None)
@given(space=boxes(), raw=arrays_of.arrays(np.float32, (4, 3), elements=finite))
def test_whatever_the_agent_gives_arrives_inside_the_box_and_comes_back(space, raw):
    actual = to_environment(space, raw)
    bounds = np.stack([space.low, space.high])
    rounding = 1e-6 * (1 + np.abs(np.where(np.isfinite(bounds), bounds, 0)).max(axis=0))
    assert (actual >= space.low - rounding).all()
    assert (actual <= space.high + rounding).all()
    nearest = np.clip(0, space.low, space.high)
    clipped = np.where(space.bounded, raw.clip(-1, 1), (raw + nearest).clip(space.low, space.high) - nearest)
    width = np.where(space.bounded, space.high - space.low, 1.0)
    tolerance = float((4 * rounding / width).max())
    np.testing.assert_allclose(to_canonical(space, actual), clipped, rtol=1e-6, atol=tolerance)


def test_compiled_and_mapped_it_is_the_same_and_structures_are_kept():
    space = Dict({"move": Tuple((Box([-1.0, 0.0], [3.0, INF]), Discrete(4, start=1))), "grab": MultiBinary((2,))})
    action = {
        "move": (np.array([[0.5, 2.0], [-3.0, -2.0]], np.float32), np.array([0, 3], np.int32)),
        "grab": np.array([[0, 1], [1, 1]], np.int8),
    }
    plain = to_environment(space, action)
    mapped = jax.jit(jax.vmap(lambda action: to_environment(space, action)))(jax.tree.map(jnp.asarray, action))
    back = jax.jit(jax.vmap(lambda action: to_canonical(space, action)))(mapped)
    assert jax.tree.structure(plain) == jax.tree.structure(mapped) == jax.tree.structure(back)
    np.testing.assert_allclose(plain["move"][0], [[2.0, 2.0], [-1.0, 0.0]])
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(mapped), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    np.testing.assert_array_equal(back["move"][1], action["move"][1])


@pytest.mark.parametrize(
    ("low", "high", "canonical", "expected"),
    [
        (100, INF, [-1, 0, 2], [100, 100, 102]),
        (100, np.finfo(np.float32).max, [-1, 0, 2], [100, 100, 102]),
        (-INF, -100, [1, 0, -2], [-100, -100, -102]),
        (-3, INF, [-1, 0, 2], [-1, 0, 2]),
    ],
)
def test_a_box_without_0_is_counted_from_its_bound(low, high, canonical, expected):
    """PPO, which acts around 0, only ever acted 100 in Box(100, inf): all that it tried was clipped."""
    space, canonical = Box(low, high, (3,)), np.array(canonical, np.float32)
    action = to_environment(space, canonical)
    np.testing.assert_allclose(action, expected)
    np.testing.assert_allclose(to_canonical(space, action)[1:], canonical[1:])
