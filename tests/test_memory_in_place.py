"""The compiled programs write stores where they are: nothing of a store's size is copied."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from memory_streams import example_of, stream

from athlete.core import hyper
from athlete.core.goals import Goals
from athlete.memory.hindsight import Hindsight
from athlete.memory.prioritized import Prioritized
from athlete.memory.replay import Replay
from athlete.ops.random import wrap


@hyper
class Never(Goals):
    """Nothing is ever reached."""

    def judge(self, achieved_goal, desired_goal, terminated):
        return jnp.sum(achieved_goal - desired_goal, axis=-1), terminated


# Only shapes: nothing of this size is taken.
MEMORIES = [
    Replay(capacity=600_000),
    Replay(capacity=600_000, window=3, unroll=4, keep_carry=True),
    Replay(capacity=600_000, window=3, unroll=4, stack_axis=0),
    Prioritized(capacity=600_000),
    Prioritized(capacity=600_000, window=3, unroll=4),
    Prioritized(capacity=600_000, stack_axis=-1),
    Hindsight(Never(), capacity=600_000),
    Hindsight(Never(), goal_selection_strategy="episode", capacity=600_000, window=3, unroll=4),
]


def one_step(memory, store, trajectory, key):
    """What the hosted loop compiles; the error depends on the batch as that of an update does."""
    store = memory.add(store, trajectory)
    batch = memory.sample(store, trajectory, wrap(key), jnp.zeros(()))
    metrics = {"td_error": batch.reward[0] + jnp.sum(jax.tree.leaves(batch.next_obs)[0])}
    return memory.feedback(store, batch, metrics), jax.tree.map(jnp.sum, batch)


def many_steps(memory, store, trajectory, keys):
    """What the compiled loop compiles, with several updates for each trajectory."""

    def update(store, key):
        batch = memory.sample(store, trajectory, wrap(key), jnp.zeros(()))
        return memory.feedback(store, batch, {"td_error": batch.reward[0]}), jax.tree.map(jnp.sum, batch)

    def iteration(store, key):
        store, found = one_step(memory, store, trajectory, key)
        store, others = jax.lax.scan(update, store, jnp.stack([key, key]))
        return store, (found, others)

    return jax.lax.scan(iteration, store, keys)


@pytest.mark.parametrize("memory", MEMORIES, ids=repr)
@pytest.mark.parametrize(("program", "keys"), [(one_step, (2,)), (many_steps, (50, 2))])
def test_no_copy_has_the_shape_of_a_store(memory, program, keys):
    rows = 2
    trajectory = stream(memory.unroll, rows)
    if isinstance(memory, Hindsight):
        goals = {"achieved_goal": trajectory.obs["narrow"], "desired_goal": trajectory.obs["narrow"]}
        trajectory = trajectory._replace(obs=goals, next_obs=goals)
    elif memory.stack_axis is not None:
        frames = np.zeros((memory.unroll, rows, 4, 70, 4), np.uint8)
        trajectory = trajectory._replace(obs=frames, next_obs=frames)
    store = jax.eval_shape(lambda: memory.init(example_of(trajectory), rows))
    jitted = jax.jit(lambda store, *arguments: program(memory, store, *arguments), donate_argnums=0)
    compiled = jitted.lower(store, trajectory, np.zeros(keys, np.uint32)).compile()
    large = [leaf for leaf in jax.tree.leaves(store) if leaf.size >= 600_000]
    assert len(large) >= 2
    written = re.findall(r"\w+\[([\d,]*)\]\S* copy(?:-start)?\(", compiled.as_text())
    copied = [np.prod([int(size) for size in shape.split(",")]) for shape in written if shape]
    assert all(size < 600_000 for size in copied)
    sizes = compiled.memory_analysis()
    total = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(store))
    assert sizes.alias_size_in_bytes == total  # all of it goes out where it came in
    assert sizes.temp_size_in_bytes < min(leaf.size * leaf.dtype.itemsize for leaf in large)
