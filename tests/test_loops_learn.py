"""What an iteration's learning is made of: updates on samples of their own, of which the memory is told."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chain import transitions

from athlete.core import Agent, Memory, hyper
from athlete.core.learning import learn
from athlete.loops.learn import progress_of
from athlete.ops.random import wrap

TRAJECTORY = transitions([0, 1], [1, 2], [1.0, 1.0], [False, False], [False, False])


@hyper
class Drawing(Memory):
    """A sample's reward is a random number; the store counts trajectories and adds up the errors that it is told."""

    keeps = True
    batch_size: int = 1

    def init(self, example, rows):
        return {"added": jnp.zeros(()), "told": jnp.zeros(())}

    def add(self, store, trajectory):
        return store | {"added": store["added"] + 1}

    def sample(self, store, trajectory, key, progress):
        return trajectory._replace(reward=jax.random.uniform(key, (1,)), extras={"added": store["added"]})

    def feedback(self, store, batch, metrics):
        return store | {"told": store["told"] + metrics["td_error"][0]}


@hyper
class Noting(Agent):
    """Adds up the rewards that it learns from, and notes the last batch's number of trajectories."""

    memory: Memory = Drawing()
    updates: int = 1

    def update(self, state, batch, key, progress):
        total = state["total"] + batch.reward[0]
        noted = {"total": total, "added": batch.extras["added"], "progress": progress}
        return noted, {"loss": batch.reward[0], "squares": batch.reward[0] ** 2, "td_error": batch.reward}


@functools.partial(jax.jit, static_argnames=("updates", "sample_async"))
def learned(updates, sample_async=False):
    agent, zero = Noting(updates=updates), jnp.zeros(())
    state = {"total": zero, "added": zero, "progress": zero}
    store, key = agent.memory.init(None, 1), wrap(np.array([0, 1], np.uint32))
    state, store, *_, metrics = learn(agent, state, store, (), TRAJECTORY, key, jnp.float32(0.25), sample_async)
    return state, store, metrics


@pytest.mark.parametrize("updates", [1, 3])
def test_every_update_draws_a_sample_of_its_own_and_tells_the_memory_of_it(updates):
    state, store, metrics = learned(updates)
    assert store["told"] == pytest.approx(float(state["total"]), rel=1e-6)
    assert metrics.keys() == {"loss", "squares"}, "arrays are for the memory alone"
    assert metrics["loss"] == pytest.approx(float(state["total"]) / updates, rel=1e-6), "the mean over the updates"
    alike = metrics["squares"] == pytest.approx(float(metrics["loss"]) ** 2, rel=1e-6)
    assert alike == (updates == 1), "samples differ"
    assert state["progress"] == 0.25


def test_what_was_just_collected_is_learned_from_unless_updates_run_meanwhile():
    for sample_async, seen in ((False, 1), (True, 0)):
        state, store, _ = learned(1, sample_async)
        assert (float(state["added"]), float(store["added"])) == (seen, 1)


def test_progress_is_the_share_of_the_horizon_and_at_most_all_of_it():
    found = [float(progress_of(np.uint32(timesteps), np.float32(100.0))) for timesteps in (0, 40, 100, 180)]
    assert found == pytest.approx([0.0, 0.4, 1.0, 1.0])
