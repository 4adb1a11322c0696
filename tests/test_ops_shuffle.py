"""Random orders use every sample exactly once and favour none."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from athlete.ops.random import wrap
from athlete.ops.shuffle import random_orders


@functools.partial(jax.jit, static_argnums=(1, 2))
def orders_from(data, orders, size):
    return random_orders(wrap(data), orders, size)


def make_orders(seed, orders, size):
    return np.asarray(orders_from(np.array([0, seed], np.uint32), orders, size))


@settings(max_examples=12, deadline=None)
@given(size=st.integers(1, 3000), seed=st.integers(0, 2**32 - 1))
def test_every_row_is_a_permutation_whatever_the_size(size, seed):
    found = make_orders(seed, 3, size)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(np.sort(found, axis=1), np.broadcast_to(np.arange(size), (3, size)))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 97, 256, 2 * 97, 2048])
def test_sizes_of_every_kind_are_permuted(size):
    """One, primes, squares, products with a large prime, powers of two: each takes another way through the code."""
    found = make_orders(5, 4, size)
    np.testing.assert_array_equal(np.sort(found, axis=1), np.broadcast_to(np.arange(size), (4, size)))


def test_rows_and_keys_differ():
    first, second = make_orders(1, 4, 256), make_orders(2, 4, 256)
    assert len({row.tobytes() for row in np.concatenate([first, second])}) == 8
    # Two random orders agree in about one place.
    assert all((first[i] == first[j]).sum() < 10 for i in range(4) for j in range(i))
    np.testing.assert_array_equal(first, make_orders(1, 4, 256))


@pytest.mark.parametrize("size", [7, 24, 64])
def test_no_sample_favours_a_position(size):
    """Chi-square over sample x position. Of a uniform order it has mean (s - 1)^2 and variance of about 2 (s - 1)^2."""
    number = 20_000
    found = make_orders(11, number, size)
    counts = np.stack([np.bincount(found[:, position], minlength=size) for position in range(size)])
    # Each cell's variance is number * (1/s)(1 - 1/s), of which rows and columns leave (s - 1)^2 free.
    statistic = ((counts - number / size) ** 2 / (number / size)).sum() * (size - 1) / size
    freedom = (size - 1) ** 2
    assert statistic < freedom + 5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("part", [2, 8])
@pytest.mark.parametrize("size", [18, 26, 39, 76, 128, 256, 1000, 2018, 2032])
def test_a_minibatch_is_not_a_cluster_of_neighbours(size, part):
    """Neighbours in the batch are neighbours in time, so a minibatch must be spread over the whole of it.

    As a cluster measure: samples as angles on a circle, the squared length of a minibatch's mean. For n of N drawn
    without replacement its expectation is (1 / n)(1 - (n - 1) / (N - 1)); it is divided by that here.
    """
    number = 2000
    minibatch = make_orders(3, number, size)[:, : size // part]
    drawn = minibatch.shape[1]
    expected = (1 - (drawn - 1) / (size - 1)) / drawn
    ratio = (np.abs(np.exp(2j * np.pi * minibatch / size).mean(axis=1)) ** 2).mean() / expected
    assert 0.9 < ratio < 1.15  # a mean of 2000 numbers of about exponential distribution: 1 +- 0.022


def test_neighbouring_places_hold_unrelated_samples():
    found = make_orders(7, 2000, 64)
    steps = np.bincount((np.diff(found, axis=1) % 64).ravel(), minlength=64)
    assert steps[0] == 0
    expected = steps.sum() / 63
    assert np.abs(steps[1:] / expected - 1).max() < 0.15
