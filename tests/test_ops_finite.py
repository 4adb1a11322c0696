"""NaN and infinity in trees: found in compiled programs by one flag, named on the host by their path."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from athlete.ops.finite import all_finite, first_nonfinite

HEALTHY = {
    "step": np.int32(3),
    "layers": ({"kernel": np.ones((2, 3), np.float32)}, {"kernel": np.zeros(0)}),
    "none": (),
}


def with_kernel(value):
    kernel = np.ones((2, 3), np.float32)
    kernel[1, 2] = value
    return {**HEALTHY, "layers": ({"kernel": np.ones(2, np.float32)}, {"kernel": kernel})}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_found_and_named_by_its_path(value):
    assert first_nonfinite(with_kernel(value)) == "layers/1/kernel"
    assert not jax.jit(all_finite)(with_kernel(value))


def test_a_tree_of_numbers_is_finite():
    assert first_nonfinite(HEALTHY) is None
    assert jax.jit(all_finite)(HEALTHY)
    assert first_nonfinite(()) is None
    assert all_finite(())


def test_the_first_of_several_is_named():
    assert first_nonfinite({"b": np.nan, "a": np.inf}) == "a"


def test_half_precision_is_looked_at_and_whole_numbers_are_passed_over():
    assert first_nonfinite([np.array([1, np.inf], ml_dtypes.bfloat16)]) == "0"
    assert not all_finite([jnp.array([1, jnp.inf], jnp.bfloat16)])
    assert first_nonfinite([np.array([2**31 - 1], np.int32), np.array([True])]) is None


def test_finite_numbers_whose_sum_is_not_are_finite():
    large = [np.full(10, 3e38, np.float32)]
    assert all_finite(large)
    assert first_nonfinite(large) is None
