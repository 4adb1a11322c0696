"""Sequences keep time together, and minibatches of them take every one once an epoch."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import numpy as np
import pytest

from athlete.ops.random import wrap
from athlete.ops.sequences import (
    gather_sequences,
    minibatch_orders,
    minibatches,
    sequences_with_carry,
    to_sequences,
    windows,
)
from athlete.ops.tree import merge_time, pack

KEY = np.array([0, 1], np.uint32)


def test_trajectories_are_cut_into_sequences_of_one_row_each():
    number = np.arange(12).reshape(6, 2)  # time * 2 + row
    sequences = np.asarray(jax.jit(functools.partial(to_sequences, length=3))(number))
    assert sequences.shape == (3, 4)
    assert {tuple(sequence) for sequence in sequences.T.tolist()} == {(0, 2, 4), (1, 3, 5), (6, 8, 10), (7, 9, 11)}
    np.testing.assert_array_equal(to_sequences(number, 1), number.reshape(1, 12))


@pytest.mark.parametrize(("size", "minibatches", "taken"), [(4, 3, 4), (5, 2, 5), (100, 1, 12), (0, 12, 1)])
def test_each_epoch_takes_a_sequence_at_most_once_and_leaves_out_only_a_remainder(size, minibatches, taken):
    orders = jax.jit(lambda key: minibatch_orders(wrap(key), 3, 12, size))(KEY)
    assert orders.shape == (3 * minibatches, taken)
    for epoch in np.asarray(orders).reshape(3, -1).tolist():
        assert len(set(epoch)) == minibatches * taken
        assert set(epoch) <= set(range(12))


def test_sequences_are_taken_with_the_states_at_their_starts():
    sequences = {"action": np.arange(6, dtype=np.int32).reshape(2, 3), "obs": np.arange(12.0).reshape(2, 3, 2)}
    carry, order = np.array([[10.0], [20.0], [30.0]]), np.array([2, 0])
    taken, states = jax.jit(lambda tree, carry: gather_sequences(pack(tree, leading=2), carry, order, tree))(
        sequences, carry
    )
    np.testing.assert_array_equal(taken["action"], [[2, 0], [5, 3]])
    np.testing.assert_array_equal(taken["obs"], sequences["obs"][:, order])
    np.testing.assert_array_equal(states, [[30], [10]])


def test_a_batch_that_is_cut_keeps_the_state_before_each_sequence():
    class Pair(NamedTuple):
        obs: np.ndarray
        carry: np.ndarray

    number = np.arange(12).reshape(6, 2)  # time * 2 + row
    found = jax.jit(lambda batch: sequences_with_carry(batch, 3))(Pair(number, 100 + number))
    np.testing.assert_array_equal(found.carry, 100 + found.obs[0])
    assert found.obs.shape == (3, 4)


def test_windows_are_all_runs_of_consecutive_steps_of_a_row():
    number = np.arange(8).reshape(4, 2)  # time * 2 + row
    found = np.asarray(jax.jit(lambda tree: windows(tree, 3))({"x": number})["x"])
    np.testing.assert_array_equal(found, [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]])
    np.testing.assert_array_equal(
        found[0], merge_time(number[:2]), "they stand in the order of the steps they begin at"
    )
    np.testing.assert_array_equal(windows(number, 1)[0], merge_time(number))


class Sequences(NamedTuple):
    first: np.ndarray
    number: np.ndarray
    carry: np.ndarray


def test_minibatches_are_whole_sequences_with_their_states_each_once_an_epoch():
    number = np.arange(12, dtype=np.float32).reshape(2, 6)  # six sequences of two steps: i and i + 6
    sequences = Sequences(np.zeros((2, 6), bool), number, 100 + number[0][:, None])

    def gathered(sequences, key):
        orders, gather = minibatches(sequences, key, 3, 4)
        return jax.lax.map(gather, orders)

    found = jax.jit(gathered)(sequences, wrap(np.array([0, 1], np.uint32)))
    assert found.number.shape == (9, 2, 2), "three epochs of three minibatches of two sequences"
    np.testing.assert_array_equal(found.number[:, 1], found.number[:, 0] + 6)
    np.testing.assert_array_equal(found.carry[..., 0], 100 + found.number[:, 0])
    for epoch in np.asarray(found.number[:, 0]).reshape(3, 6):
        assert sorted(epoch.tolist()) == [0, 1, 2, 3, 4, 5]
