"""What replay gives back: every whole window of the last steps, each as likely as the other, to the last bit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from memory_streams import assert_same_bits, example_of, stream, trajectories, windows

from athlete.memory.prioritized import Prioritized
from athlete.memory.replay import Replay
from athlete.memory.room import store_bytes
from athlete.ops.random import wrap

# capacity, rows, unroll, window; the second holds 4 slots a row more than it was asked for, to keep unrolls whole
SIZES = [(6, 1, 1, 1), (10, 1, 4, 3), (12, 2, 3, 2), (15, 3, 1, 4)]


def empty(memory: Replay, transitions):
    return memory.init(example_of(transitions), transitions.reward.shape[1])


def programs(memory: Replay):
    add = jax.jit(memory.add)
    sample = jax.jit(lambda store, key: memory.sample(store, None, wrap(key), jnp.zeros(())))
    return add, lambda store, seed: sample(store, np.array([0, seed], np.uint32))


@pytest.mark.parametrize(("capacity", "rows", "unroll", "window"), SIZES)
def test_every_whole_window_of_the_last_steps_comes_and_no_other(capacity, rows, unroll, window):
    memory = Replay(capacity=capacity, batch_size=400, window=window, unroll=unroll)
    transitions = stream(5 * capacity // rows, rows)
    add, sample = programs(memory)
    store, added = empty(memory, transitions), 0
    slots = store.packed.table.shape[0]
    assert slots % unroll == 0
    assert 0 <= slots * rows - capacity < rows * unroll
    for trajectory in trajectories(transitions, unroll):
        store, added = add(store, trajectory), added + unroll
        oldest, newest = max(0, added - slots), added - window
        if newest < oldest:
            continue
        batch = sample(store, added)
        step, row = np.divmod(np.asarray(batch.action)[0] - 2**24, rows)
        assert_same_bits(batch, windows(transitions._replace(carry=()), step, row, window))
        assert {*zip(step.tolist(), row.tolist(), strict=True)} == {
            (step, row) for step in range(oldest, newest + 1) for row in range(rows)
        }


def test_windows_are_drawn_uniformly():
    memory = Replay(capacity=21, batch_size=90_000, window=3, unroll=1)
    transitions = stream(11, 3)
    add, sample = programs(memory)
    store = empty(memory, transitions)
    for trajectory in trajectories(transitions, 1):
        store = add(store, trajectory)
    count = np.bincount(np.asarray(sample(store, 1).action)[0] - 2**24)[12:]  # 5 windows in each of 3 rows
    assert count.shape == (15,)
    assert ((count - 6000) ** 2 / 6000).sum() < 36.1  # chi-square with 14 degrees of freedom: 0.1%


def test_windows_run_across_both_kinds_of_an_episodes_end():
    memory = Replay(capacity=40, batch_size=200, window=3)
    transitions = stream(40, 1)
    add, sample = programs(memory)
    store = empty(memory, transitions)
    for trajectory in trajectories(transitions, 1):
        store = add(store, trajectory)
    batch = sample(store, 1)
    for ended in (batch.terminated, batch.truncated):
        inside = np.asarray(ended[0] & batch.first[1])
        assert inside.any()
        np.testing.assert_array_equal(np.diff(np.asarray(batch.action)[:, inside], axis=0), 1)


def test_kept_carries_are_those_before_each_step_of_a_window():
    memory = Replay(capacity=24, batch_size=100, window=4, unroll=2, keep_carry=True)
    transitions = stream(40, 2)
    add, sample = programs(memory)
    store = empty(memory, transitions)
    for trajectory in trajectories(transitions, 2):
        store = add(store, trajectory)
    batch = sample(store, 1)
    step, row = np.divmod(np.asarray(batch.action)[0] - 2**24, 2)
    assert_same_bits(batch, windows(transitions, step, row, 4))
    np.testing.assert_array_equal(batch.carry[0, :, 0], transitions.carry[step, row, 0])  # what a sequence begins with


def test_kept_carries_cost_their_bytes_at_every_timestep():
    example = example_of(stream(1, 1))._replace(carry=(np.zeros(256, np.float32), np.zeros(256, np.float32)))
    without, with_carry = (store_bytes(Replay(capacity=1000, keep_carry=kept), example, 1) for kept in (False, True))
    assert with_carry - without == (1000 + 1) * 2 * 256 * 4  # and once as an example


@pytest.mark.parametrize(("capacity", "rows", "unroll", "window"), SIZES)
def test_steps_added_one_by_one_or_many_at_once_make_the_same_store(capacity, rows, unroll, window):
    memory = Replay(capacity=capacity, window=window, unroll=unroll)
    transitions = stream(4 * capacity // rows, rows)
    one_by_one = at_once = empty(memory, transitions)
    add = jax.jit(memory.add)
    for trajectory in trajectories(transitions, unroll):
        at_once = add(at_once, trajectory)
        for step in trajectories(trajectory, 1):
            one_by_one = add(one_by_one, step)
        assert_same_bits(one_by_one, at_once)


def test_before_the_first_window_zeros_come():
    memory = Replay(capacity=10, batch_size=4, window=3)
    transitions = stream(10, 2)
    batch = programs(memory)[1](empty(memory, transitions), 0)
    assert batch.reward.shape == (3, 4)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(batch))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"capacity": 0}, "capacity=0; it must be at least 1"),
        ({"window": 0}, "window=0; it must be at least 1"),
        ({"unroll": -1}, "unroll=-1; it must be at least 1"),
        ({"capacity": 8, "window": 5}, "4 timesteps for each of 2 environments.*take capacity=10 or more"),
        ({"capacity": 8, "window": 3, "unroll": 4}, "windows of 3 while 4 are added.*take capacity=12 or more"),
    ],
)
def test_sizes_that_cannot_work_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        empty(Replay(**fields), stream(1, 2))


def test_the_least_capacity_that_the_error_names_works():
    store = empty(Replay(capacity=12, window=3, unroll=4), stream(1, 2))
    assert store.packed.table.shape[0] == 8


def test_a_trajectory_that_would_run_over_the_seam_is_refused():
    memory = Replay(capacity=10, unroll=1)
    transitions = stream(4, 1)
    with pytest.raises(ValueError, match="4 steps at once do not divide its 10; set unroll=4"):
        memory.add(empty(memory, transitions), transitions)


def test_the_store_may_be_given_away_and_the_example_is_still_ones_own():
    memory = Replay(capacity=4)
    transitions = jax.tree.map(jnp.asarray, stream(1, 1))
    example = jax.tree.map(lambda leaf: leaf[0, 0], transitions)
    store = memory.init(example, 1)
    jax.block_until_ready(jax.jit(memory.add, donate_argnums=0)(store, transitions))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(example))


@pytest.mark.parametrize("memory", [Replay, Prioritized])
def test_a_batch_is_as_many_sequences_as_make_up_its_timesteps(memory):
    """Of windows of 4 steps 3 are learned from, so 12 timesteps are 4 windows. Each comes with its recurrent states."""
    transitions = stream(12, 2)
    transitions = transitions._replace(carry=jnp.asarray(transitions.action, jnp.float32) * 0.5)
    kept = memory(capacity=48, batch_size=12, window=4, sequence=3, unroll=12, keep_carry=True)
    add, sample = programs(kept)
    batch = sample(add(empty(kept, transitions), transitions), 1)
    assert batch.reward.shape == (4, 4)
    np.testing.assert_array_equal(batch.carry, np.asarray(batch.action, np.float32) * 0.5)
