"""Frames that are stored once give back every observation as it came."""

from __future__ import annotations

import functools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_streams import assert_same_bits, example_of, stream, trajectories, windows

from athlete.core import Transition
from athlete.memory.prioritized import Prioritized
from athlete.memory.replay import Replay
from athlete.memory.room import store_bytes
from athlete.ops.random import wrap

ENDS = st.sampled_from([0.0, 0.1, 0.5, 1.0])  # 1: every episode is one step long
PADDING = st.sampled_from(["reset", "zero", "history"])
# memory, rows, stack, shape of a frame (one narrow, one wide)
CASES = [
    (Replay(capacity=24, batch_size=400, stack_axis=0), 1, 3, (2,)),
    (Replay(capacity=24, batch_size=400, unroll=4, window=3, stack_axis=-1), 2, 2, (9, 8)),
    (Replay(capacity=18, batch_size=400, unroll=2, window=2, stack_axis=0), 3, 4, (70,)),
    (Replay(capacity=10, batch_size=400, stack_axis=1), 1, 1, (3, 2)),
]


def stacked(steps, rows, stack, shape, axis, ends, padding, seed, dtype=np.uint8):
    """A stream whose observations are stacks; before an episode's first frame stands padding, or other frames."""
    transitions = stream(steps, rows, seed, ends)
    random = np.random.default_rng(seed)

    def frames(*leading):
        return random.integers(0, 256, (*leading, *shape)).astype(dtype)

    obs, next_obs = np.zeros((2, steps, rows, stack, *shape), dtype)
    for row in range(rows):
        for step in range(steps):
            if transitions.first[step, row]:
                newest = frames()
                before = {"reset": newest, "zero": np.zeros_like(newest), "history": frames(stack - 1)}[padding]
                obs[step, row, :-1], obs[step, row, -1] = before, newest
            else:
                obs[step, row] = next_obs[step - 1, row]
            next_obs[step, row] = np.concatenate([obs[step, row, 1:], frames(1)])
    to = axis % (len(shape) + 1) + 2
    return transitions._replace(obs=np.moveaxis(obs, 2, to), next_obs=np.moveaxis(next_obs, 2, to))


def later(transitions, steps):
    """The stream without its first steps: it begins in the middle of episodes."""
    return jax.tree.map(lambda leaf: leaf[steps:], transitions)


def whole_windows(memory, transitions, added, count, stack):
    """Steps and rows at which windows begin of which every frame is among the last `count` of its row."""
    rows = transitions.reward.shape[1]
    slots = -(-memory.capacity // (rows * memory.unroll)) * memory.unroll
    new = 1 + stack * transitions.first[:added].astype(int)
    since = new[::-1].cumsum(axis=0)[::-1]  # frames that came with a step and after it
    # A step's oldest frame came with its episode's stack or before: k frames before its own newest.
    needed = since - new + 1 + stack
    there = (np.arange(added)[:, None] >= added - slots) & (needed <= count)
    there[max(0, added - memory.window + 1) :] = False
    return {(int(step), int(row)) for step, row in np.argwhere(there)}


@functools.cache
def programs(memory):
    sample = jax.jit(lambda store, key: memory.sample(store, None, wrap(key), jnp.zeros(())))
    feedback = jax.jit(lambda store, batch, metrics: memory.feedback(store, batch, metrics))
    return jax.jit(memory.add), lambda store, seed: sample(store, np.array([0, seed], np.uint32)), feedback


def prioritized(memory):
    fields = ("capacity", "batch_size", "unroll", "window", "stack_axis")
    return Prioritized(**{name: getattr(memory, name) for name in fields})


@pytest.mark.parametrize(("memory", "rows", "stack", "shape"), CASES)
@settings(max_examples=15, deadline=None)
@given(ends=ENDS, padding=PADDING, seed=st.integers(0, 2**16), skipped=st.integers(0, 2))
def test_what_comes_back_is_what_came(memory, rows, stack, shape, ends, padding, seed, skipped):
    whole = stacked(3 * memory.capacity // rows + 2, rows, stack, shape, memory.stack_axis, ends, padding, seed)
    transitions = later(whole, skipped)
    add, sample, _ = programs(memory)
    store, added = memory.init(example_of(transitions), rows), 0
    count = store.frames.packed.table.shape[0]
    for trajectory in trajectories(transitions, memory.unroll):
        store, added = add(store, trajectory), added + memory.unroll
        expected = whole_windows(memory, transitions, added, count, stack)
        if not expected:
            continue
        batch = sample(store, added)
        step, row = np.divmod(np.asarray(batch.action)[0] - 2**24 - skipped * rows, rows)
        assert_same_bits(batch, windows(transitions._replace(carry=()), step, row, memory.window))
        assert {*zip(step.tolist(), row.tolist(), strict=True)} == expected
    assert len(expected) >= memory.unroll * rows  # however short the episodes


@pytest.mark.parametrize(("memory", "rows", "stack", "shape"), CASES[:3])
@settings(max_examples=8, deadline=None)
@given(ends=ENDS, seed=st.integers(0, 2**16))
def test_prioritised_replay_has_the_same_windows(memory, rows, stack, shape, ends, seed):
    memory = prioritized(memory)
    transitions = stacked(3 * memory.capacity // rows, rows, stack, shape, memory.stack_axis, ends, "reset", seed)
    add, sample, feedback = programs(memory)
    store, added = memory.init(example_of(transitions), rows), 0
    slots, count = store.ring.packed.table.shape[0], store.ring.frames.packed.table.shape[0]
    for trajectory in trajectories(transitions, memory.unroll):
        store, added = add(store, trajectory), added + memory.unroll
        expected = whole_windows(memory, transitions, added, count, stack)
        leaves = {step % slots * rows + row for step, row in expected}
        assert {*np.flatnonzero(np.ravel(store.tree[0])).tolist()} == leaves
        if not expected:
            continue
        batch = sample(store, added)
        extras = {name: leaf for name, leaf in batch.extras.items() if name not in ("leaf", "weight")}
        step, row = np.divmod(np.asarray(batch.action)[0] - 2**24, rows)
        expected_batch = windows(transitions._replace(carry=()), step, row, memory.window)
        assert_same_bits(batch._replace(extras=extras), expected_batch)
        store = feedback(store, batch, {"td_error": np.sin(np.asarray(batch.action[0] % 1000, np.float32))})


@pytest.mark.parametrize("kind", [lambda memory: memory, prioritized])
@pytest.mark.parametrize(("memory", "rows", "stack", "shape"), CASES[1:3])
def test_steps_added_one_by_one_or_many_at_once_make_the_same_store(kind, memory, rows, stack, shape):
    memory = kind(memory)
    transitions = stacked(60, rows, stack, shape, memory.stack_axis, 0.4, "history", 5)
    one_by_one = at_once = memory.init(example_of(transitions), rows)
    add = programs(memory)[0]
    for trajectory in trajectories(transitions, memory.unroll):
        at_once = add(at_once, trajectory)
        for step in trajectories(trajectory, 1):
            one_by_one = add(one_by_one, step)
        assert_same_bits(one_by_one, at_once)


def test_windows_are_uniform_over_rows_that_keep_unlike_numbers_of_them():
    memory = Replay(capacity=60, batch_size=50_000, stack_axis=0)
    transitions = stacked(40, 2, 4, (2,), 0, 0.0, "reset", 0)
    short = np.arange(40)[:, None] * [True, False] > 0  # every episode of the first row is one step long
    transitions = transitions._replace(first=transitions.first | short)
    add, sample, _ = programs(memory)
    store = memory.init(example_of(transitions), 2)
    for trajectory in trajectories(transitions, 1):
        store = add(store, trajectory)
    kept = np.asarray(store.frames.kept)
    assert kept.tolist() == [8, 30]  # 43 frames: 8 times 5, and all
    count = np.bincount((np.asarray(sample(store, 0).action) - 2**24)[0], minlength=80)
    expected = 50_000 / kept.sum()
    assert np.count_nonzero(count) == kept.sum()
    assert ((count[count > 0] - expected) ** 2 / expected).sum() < 69.3  # chi-square, 37 degrees of freedom: 0.1%


def test_the_count_of_frames_may_run_over():
    memory, rows, stack, shape = CASES[0]
    transitions = stacked(60, rows, stack, shape, 0, 0.3, "reset", 3)
    add, sample, _ = programs(memory)
    store = memory.init(example_of(transitions), rows)
    period = 2**30 // 35 * 35
    assert store.frames.packed.table.shape[0] == 35
    store = store._replace(frames=store.frames._replace(newest=store.frames.newest + (period - 35)))
    for trajectory in trajectories(transitions, 1):
        store = add(store, trajectory)
    assert store.frames.newest[0] < 200
    batch = sample(store, 0)
    step = np.asarray(batch.action)[0] - 2**24
    assert_same_bits(batch, windows(transitions._replace(carry=()), step, np.zeros_like(step), 1))
    assert {*zip(step.tolist(), [0] * 400, strict=True)} == whole_windows(memory, transitions, 60, 35, stack)


@pytest.mark.parametrize("stack", [2, 4])
def test_it_takes_about_one_part_in_2k_of_the_memory(stack):
    example = example_of(stacked(1, 1, stack, (84, 84), -1, 0.0, "reset", 0))
    example = example._replace(carry=(), extras=())
    plain = store_bytes(Replay(capacity=100_000), example, 1)
    once = store_bytes(Replay(capacity=100_000, stack_axis=-1), example, 1)
    assert 1 < 2 * stack * once / plain < 1.14  # an eighth more, for the stacks that episodes begin with


@pytest.mark.parametrize("padding", ["reset", "zero"])
def test_gymnasiums_stacks_come_back(padding):
    wrapped = gymnasium.wrappers.FrameStackObservation(gymnasium.make("CartPole-v1"), 4, padding_type=padding)
    wrapped.action_space.seed(0)
    obs, steps = wrapped.reset(seed=0)[0], []
    first = True
    for number in range(120):
        next_obs, reward, terminated, truncated, _ = wrapped.step(wrapped.action_space.sample())
        steps.append((obs, first, np.int32(number), np.float32(reward), next_obs, terminated, truncated))
        first = terminated or truncated
        obs = wrapped.reset()[0] if first else next_obs
    leaves = [np.stack(leaf)[:, None] for leaf in zip(*steps, strict=True)]
    transitions = Transition(*leaves, carry=(), extras=())
    assert transitions.terminated.sum() >= 3
    memory = Replay(capacity=100, batch_size=200, window=2, stack_axis=0)
    add, sample, _ = programs(memory)
    store = memory.init(example_of(transitions), 1)
    for trajectory in trajectories(transitions, 1):
        store = add(store, trajectory)
    batch = sample(store, 0)
    step = np.asarray(batch.action)[0]
    assert_same_bits(batch, windows(transitions, step, np.zeros_like(step), 2))
    assert batch.first[0].any()


@pytest.mark.parametrize(("axis", "obs"), [(2, np.zeros((4, 3))), (-3, np.zeros((4, 3))), (0, {"a": np.zeros((4, 3))})])
def test_observations_without_such_a_stack_are_refused(axis, obs):
    example = example_of(stream(1, 1))._replace(obs=obs, next_obs=obs)
    with pytest.raises(ValueError, match=f"stack_axis={axis} is no axis of one array; observations have shapes"):
        Replay(stack_axis=axis).init(example, 1)
