"""Prioritised replay against a plain reference that keeps a dictionary of priorities."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_streams import assert_same_bits, example_of, stream, trajectories, windows

from athlete.memory.prioritized import Prioritized
from athlete.ops.random import wrap
from athlete.ops.schedule import Schedule

# capacity, rows, unroll, window
SIZES = [(6, 1, 1, 1), (10, 1, 4, 3), (12, 2, 3, 2), (15, 3, 1, 4)]
ANNEALED = Schedule(at=(0.0, 1.0), values=(0.4, 1.0))


class Reference:
    """Priorities by first step and row of a window, `largest` for those that have just become whole."""

    def __init__(self, memory: Prioritized, rows: int, slots: int):
        self.memory, self.rows, self.slots = memory, rows, slots
        self.added, self.largest, self.priorities = 0, 1.0, {}

    def add(self, length: int) -> None:
        before, self.added = self.added, self.added + length
        for step in range(max(0, before - self.memory.window + 1), self.added - self.memory.window + 1):
            self.priorities |= {(step, row): self.largest for row in range(self.rows)}
        self.priorities = {key: p for key, p in self.priorities.items() if key[0] >= self.added - self.slots}

    def feedback(self, named: dict[tuple[int, int], float]) -> None:
        self.priorities |= named
        self.largest = max([self.largest, *named.values()])

    def leaves(self) -> np.ndarray:
        leaves = np.zeros((self.slots, self.rows))
        for (step, row), priority in self.priorities.items():
            leaves[step % self.slots, row] = priority
        return leaves.reshape(-1)


@functools.cache
def programs(memory: Prioritized):
    add, feedback = jax.jit(memory.add), jax.jit(lambda store, batch, metrics: memory.feedback(store, batch, metrics))
    sample = jax.jit(lambda store, key, progress: memory.sample(store, None, wrap(key), progress))
    return add, lambda store, seed, progress=0.0: sample(store, np.array([0, seed], np.uint32), progress), feedback


def empty(memory: Prioritized, transitions):
    return memory.init(example_of(transitions), transitions.reward.shape[1])


def leaves_of(store):
    return np.asarray(store.tree[0]).reshape(-1)


@pytest.mark.parametrize(("capacity", "rows", "unroll", "window"), SIZES)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_it_does_what_the_reference_does(capacity, rows, unroll, window, data):
    memory = Prioritized(capacity=capacity, batch_size=8, window=window, unroll=unroll, beta=ANNEALED, epsilon=0.01)
    transitions = stream(4 * capacity // rows, rows)
    add, sample, feedback = programs(memory)
    store = empty(memory, transitions)
    slots = store.ring.packed.table.shape[0]
    reference = Reference(memory, rows, slots)
    for trajectory in trajectories(transitions, unroll):
        store = add(store, trajectory)
        reference.add(unroll)
        if not reference.priorities or not data.draw(st.booleans(), "learn"):
            continue
        seed, progress = data.draw(st.integers(0, 2**16), "seed"), data.draw(st.sampled_from([0.0, 0.5, 1.0]))
        batch = sample(store, seed, progress)
        step, row = np.divmod(np.asarray(batch.action)[0] - 2**24, rows)
        extras = dict(batch.extras)
        leaf, weight = np.asarray(extras.pop("leaf")), np.asarray(extras.pop("weight"))
        expected = windows(transitions._replace(carry=()), step, row, window)
        assert_same_bits(batch._replace(extras=extras), expected)
        np.testing.assert_array_equal(leaf, [step % slots * rows + row])
        keys = [*zip(step.tolist(), row.tolist(), strict=True)]
        share = np.array([reference.priorities[key] for key in keys]) / sum(reference.priorities.values())
        assert (share > 0).all()
        weighted = (len(reference.priorities) * share) ** -(0.4 + 0.6 * progress)
        np.testing.assert_allclose(weight, [weighted / weighted.max()], rtol=1e-5)
        # The same error for the same window, however often it was drawn.
        error = np.random.default_rng(seed).normal(size=slots * rows).astype(np.float32)[leaf[0]]
        store = feedback(store, batch, {"td_error": error})
        reference.feedback(dict(zip(keys, (abs(error.astype(np.float64)) + 0.01) ** 0.6, strict=True)))
        assert store.largest == pytest.approx(reference.largest, rel=1e-6)
    found = leaves_of(store)
    np.testing.assert_allclose(found[: slots * rows], reference.leaves(), rtol=1e-5)
    assert not found[slots * rows :].any()


def learned(memory, transitions, steps_at_once):
    """The store after feedback between unrolls; an error is a function of the window, so that priorities differ."""
    add, sample, feedback = programs(memory)
    store = empty(memory, transitions)
    for count, trajectory in enumerate(trajectories(transitions, memory.unroll)):
        for part in trajectories(trajectory, steps_at_once):
            store = add(store, part)
        if count >= 2:
            batch = sample(store, count)
            store = feedback(store, batch, {"td_error": np.sin(np.asarray(batch.action[0] % 1000, np.float32))})
    return store


@pytest.mark.parametrize(("capacity", "rows", "unroll", "window"), SIZES)
def test_steps_added_one_by_one_or_many_at_once_make_the_same_store(capacity, rows, unroll, window):
    memory = Prioritized(capacity=capacity, window=window, unroll=unroll)
    transitions = stream(6 * capacity // rows, rows)
    assert_same_bits(learned(memory, transitions, 1), learned(memory, transitions, unroll))


def test_each_part_of_a_batch_is_spread_over_the_whole_memory():
    """Agents cut a large batch into smaller ones: REDQ's first critics must not learn from old steps only."""
    memory = Prioritized(capacity=6000, batch_size=20 * 32)
    transitions = stream(6000, 1)
    add, sample, _ = programs(memory)
    store = functools.reduce(add, trajectories(transitions, 6000), empty(memory, transitions))
    batches = [np.asarray(sample(store, seed).extras["leaf"]).reshape(20, 32) for seed in range(50)]
    for part in np.swapaxes(batches, 0, 1):  # [50, 32]
        assert (part.min(axis=1) < 1500).all() and (part.max(axis=1) > 4500).all()
        assert abs(part.mean() / 6000 - 0.5) < 4 / np.sqrt(12 * part.size)
    strata = np.sort(np.reshape(batches, (50, -1)), axis=1) * 640 // 6000
    assert (abs(strata - np.arange(640)) <= 1).all(), "one from each stratum, seams apart"


def test_windows_come_as_often_as_their_priorities_say():
    memory = Prioritized(capacity=60, batch_size=100, window=2, alpha=1.0)
    transitions = stream(45, 2)
    store = learned(memory, transitions, 1)
    sample = jax.jit(
        lambda store: jax.lax.map(
            lambda key: memory.sample(store, None, wrap(key), 0.0).extras["leaf"][0],
            np.arange(2000, dtype=np.uint32).reshape(-1, 2),
        )
    )
    count = np.bincount(np.ravel(sample(store)), minlength=64)
    expected = 100_000 * leaves_of(store) / leaves_of(store).sum()
    there = expected > 0
    assert there.sum() == 58
    assert not count[~there].any()
    # Stratified draws spread less than independent ones, for which the statistic's 0.1% bound of 57 degrees is 95.8.
    assert ((count - expected)[there] ** 2 / expected[there]).sum() < 95.8
    assert (abs(count - expected)[there] < 5 * np.sqrt(expected[there])).all()
    assert np.ptp(expected[there]) > 1000  # priorities do differ


def test_weights_are_1_where_all_priorities_are_the_same():
    memory = Prioritized(capacity=6, beta=1.0)
    transitions = stream(6, 1)
    add, sample, _ = programs(memory)
    store = empty(memory, transitions)
    for trajectory in trajectories(transitions, 1):
        store = add(store, trajectory)
    np.testing.assert_array_equal(sample(store, 0).extras["weight"], np.ones((1, 32)))


def test_a_draw_falls_into_each_of_the_batchs_equal_parts():
    memory = Prioritized(capacity=32, batch_size=32)
    transitions = stream(32, 1)
    add, sample, _ = programs(memory)
    store = empty(memory, transitions)
    for trajectory in trajectories(transitions, 1):
        store = add(store, trajectory)
    np.testing.assert_array_equal(np.sort(sample(store, 3).extras["leaf"]), [np.arange(32)])


def test_an_agent_that_attaches_nothing_gets_its_weights_too():
    memory = Prioritized(capacity=4, batch_size=2)
    transitions = stream(1, 1)._replace(extras=())
    add, sample, _ = programs(memory)
    batch = sample(add(empty(memory, transitions), transitions), 0)
    assert sorted(batch.extras) == ["leaf", "weight"]
    assert batch.extras["leaf"].dtype == np.int32
