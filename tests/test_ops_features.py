"""What networks see of each space, and random elements of each space."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from athlete.ops.features import feature_size, features
from athlete.ops.random import wrap
from athlete.ops.sampling import sample
from athlete.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, OneOf, Space, Tuple, zeros

INF = np.inf

# space, an observation of one row, its features
CASES = {
    "Discrete is one-hot": (Discrete(3), np.int32(1), [0, 1, 0]),
    "Discrete counts from its start": (Discrete(3, start=-1), np.int32(1), [0, 0, 1]),
    "MultiDiscrete is one one-hot after another": (MultiDiscrete((2, 3)), np.array([1, 0]), [0, 1, 1, 0, 0]),
    "MultiDiscrete counts from its starts": (MultiDiscrete((2, 3), start=(4, 7)), np.array([4, 9]), [1, 0, 0, 0, 1]),
    "MultiBinary is itself": (MultiBinary((2, 2)), np.array([[0, 1], [1, 1]], np.int8), [0, 1, 1, 1]),
    "Box is flattened": (Box(-9, 9, (2, 2)), np.array([[1, 2], [3, 4]], np.float32), [1, 2, 3, 4]),
    "a Box of no axes is one number": (Box(-9, 9, ()), np.float32(2.5), [2.5]),
    "uint8 is an image, scaled to 1": (Box(0, 255, (1, 2), np.uint8), np.array([[0, 255]], np.uint8), [0, 1]),
    "MultiDiscrete of rank 2 is flattened": (
        MultiDiscrete(((2, 1), (1, 2)), start=((0, 0), (0, 5))),
        np.array([[1, 0], [0, 5]]),
        [0, 1, 1, 1, 1, 0],
    ),
    "uint8 is scaled by its highest value": (Box(0, 1, (2,), np.uint8), np.array([0, 1], np.uint8), [0, 1]),
    "OneOf is the choice and what was chosen among zeros": (
        OneOf((Discrete(2), Box(-9, 9, (2,)), Discrete(3))),
        (np.int32(1), np.int32(0), np.array([7.0, 8.0]), np.int32(0)),
        [0, 1, 0, 0, 0, 7, 8, 0, 0, 0],
    ),
    "other integers are themselves": (Box(0, 255, (2,), np.int16), np.array([0, 255], np.int16), [0, 255]),
    "Tuple joins its parts": (Tuple((Discrete(2), Box(-9, 9, (1,)))), (np.int32(0), np.array([7.0])), [1, 0, 7]),
    "Dict joins by name": (
        Dict({"b": Discrete(2), "a": Box(0, 9, (1,))}),
        {"a": np.array([3.0]), "b": np.int32(1)},
        [3, 0, 1],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_features_of(case):
    space, obs, expected = CASES[case]
    batch = jax.tree.map(lambda leaf: np.stack([np.stack([leaf] * 3)] * 2), obs)
    found = jax.jit(lambda obs: features(space, obs))(batch)
    assert found.shape == (2, 3, feature_size(space))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.broadcast_to(np.array(expected, np.float32), found.shape), rtol=1e-6)


def test_other_spaces_are_refused_by_name():
    class Text(Space):
        shape = ()

    with pytest.raises(ValueError, match=r"Text.* cannot be turned into features"):
        features(Text(), np.zeros(1))


# Random elements --------------------------------------------------------------------------------------------------

SPACE = Dict(
    {
        "discrete": Discrete(3, start=-1),
        "many": MultiDiscrete((2, 5), start=(0, 10)),
        "bits": MultiBinary((2,)),
        "choice": OneOf((Discrete(2, start=1), Box(1, 2, ()))),
        "box": Tuple((Box([-1.0, 0.0, -INF, -INF], [1.0, INF, 0.0, INF]), Box(-2.0, 4.0, ()))),
        "small": Box(-128, 127, (), np.int8),
        "whole": Box(-(2**31), 2**31 - 1, (), np.int32),
        "largest": Box(-np.finfo(np.float64).max, np.finfo(np.float64).max, (), np.float64),
    }
)
NUMBER = 20_000


@pytest.fixture(scope="module")
def samples():
    return jax.device_get(jax.jit(lambda key: sample(SPACE, key, (NUMBER,)))(wrap(np.array([0, 1], np.uint32))))


def test_samples_have_the_structure_shapes_and_dtypes_of_the_space(samples):
    expected = zeros(SPACE, (NUMBER,))
    assert jax.tree.structure(samples) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(samples), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape
        assert a.dtype == (np.float32 if b.dtype == np.float64 else b.dtype)  # JAX keeps 32 bits


def shares(values):
    return {int(value): count / NUMBER for value, count in zip(*np.unique(values, return_counts=True), strict=True)}


def test_whole_numbers_are_equally_likely(samples):
    assert shares(samples["discrete"]) == pytest.approx({-1: 1 / 3, 0: 1 / 3, 1: 1 / 3}, abs=0.02)
    assert shares(samples["many"][:, 0]) == pytest.approx({0: 0.5, 1: 0.5}, abs=0.02)
    assert shares(samples["many"][:, 1]) == pytest.approx(dict.fromkeys(range(10, 15), 0.2), abs=0.02)
    assert shares(samples["bits"]) == pytest.approx({0: 1.0, 1: 1.0}, abs=0.02)


def test_the_whole_range_of_a_dtype_is_reached(samples):
    assert (samples["small"].min(), samples["small"].max()) == (-128, 127)
    assert len(np.unique(samples["small"])) == 256
    whole = samples["whole"].astype(float)
    assert whole.min() < -0.99 * 2**31
    assert whole.max() > 0.99 * 2**31
    assert abs(whole.mean()) < 0.03 * 2**31


def test_one_space_is_chosen_and_the_others_are_zeros(samples):
    number, left, right = samples["choice"]
    assert shares(number) == pytest.approx({0: 0.5, 1: 0.5}, abs=0.02)
    assert set(left[number == 0]) == {1, 2} and not left[number == 1].any()
    assert right[number == 1].min() >= 1 and not right[number == 0].any()


def test_boxes_are_sampled_as_gymnasium_does_by_which_bounds_are_finite(samples):
    bounded, above, below, free = samples["box"][0].T
    assert (bounded.min() >= -1, bounded.max() <= 1) == (True, True)
    assert (bounded.mean(), bounded.std()) == pytest.approx((0, 2 / np.sqrt(12)), abs=0.02)
    assert above.min() >= 0
    assert (above.mean(), above.std()) == pytest.approx((1, 1), abs=0.05)  # exponential
    assert below.max() <= 0
    assert (below.mean(), below.std()) == pytest.approx((-1, 1), abs=0.05)
    assert (free.mean(), free.std()) == pytest.approx((0, 1), abs=0.03)  # normal
    assert samples["box"][1].mean() == pytest.approx(1.0, abs=0.05)


def test_bounds_beyond_float32_give_finite_numbers(samples):
    assert np.isfinite(samples["largest"]).all()


def test_what_is_no_space_is_refused():
    with pytest.raises(TypeError, match=r"expected a space of athlete.spaces, got int"):
        sample(3, wrap(np.zeros(2, np.uint32)))
