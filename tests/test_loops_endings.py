"""What every loop makes of an episode's end, both kinds of it: where the step led, and what is forgotten."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.core import Agent, Env, Memory, Step, hyper
from athlete.loops.collect import spec_of
from athlete.loops.host import HostedEnv
from athlete.loops.train import CompiledTraining, HostedTraining
from athlete.memory.replay import Replay
from athlete.memory.ring import ring_take
from athlete.memory.rollout import Rollout
from athlete.spaces import Box, Discrete

KEY = np.array([0, 5], np.uint32)
ROWS, LENGTH, STEPS, ITERATIONS = 2, 4, 3, 6


class CorridorState(NamedTuple):
    step: jax.Array
    terminates: jax.Array


@hyper
class Corridor(Env):
    """Three steps through a corridor: at 0 after a reset, at 3 in the end, which a reset never shows. Some episodes
    terminate there, the others are truncated.
    """

    observation_space = Box(0, STEPS, (1,))
    action_space = Discrete(2)

    def reset(self, key):
        return CorridorState(jnp.float32(0), jax.random.bernoulli(key)), jnp.zeros(1)

    def step(self, state, action, key):
        step = state.step + 1
        over = step >= STEPS
        flags = over & state.terminates, over & ~state.terminates
        return state._replace(step=step), Step(step[None], jnp.float32(1), *flags, {})


@hyper
class Counting(Agent):
    """Remembers how many steps of its episode it has taken, notes it down, and keeps the last batch as its state."""

    memory: Memory = Rollout()
    updates: int = 1
    spec: object = None

    def bind(self, spec):
        return dataclasses.replace(self, spec=spec)

    def init(self, key):
        return jnp.zeros(())

    def view(self, state, progress):
        return state

    def start(self, view, rows, key):
        return jnp.zeros(rows)

    def act(self, view, carry, obs, first, key, explore=True):
        remembered = jnp.where(first, 0.0, carry)
        return jnp.zeros(obs.shape[0], jnp.int32), remembered + 1, {"remembered": remembered}

    def update(self, state, batch, key, progress):
        return state, {"loss": jnp.sum(batch.reward)}


@hyper
class Keeping(Counting):
    """The same; its state is the last batch."""

    def init(self, key):
        number, flag = jnp.zeros((LENGTH, ROWS)), jnp.zeros((LENGTH, ROWS), bool)
        return {"obs": number, "next_obs": number, "first": flag, "terminated": flag, "truncated": flag, "seen": number}

    def update(self, state, batch, key, progress):
        kept = {name: getattr(batch, name) for name in ("first", "terminated", "truncated")}
        kept |= {name: getattr(batch, name)[..., 0] for name in ("obs", "next_obs")}
        return kept | {"seen": batch.extras["remembered"]}, {"loss": jnp.sum(batch.reward)}


def training(loop, agent, length=LENGTH):
    agent = agent.bind(spec_of(Corridor()))
    if loop == "compiled":
        return CompiledTraining(agent, Corridor(), ROWS, length, 100.0, KEY)
    source = HostedEnv(Corridor(), ROWS, any_thread=loop == "in one program")
    return HostedTraining(agent, source, length, 100.0, KEY, sample_async=loop == "learning meanwhile")


def assert_is_walk(walk):
    """The steps of a walk through the corridor, over and over: `[T, B]`."""
    at = np.asarray(walk["obs"])
    assert set(np.unique(at)) == {0, 1, 2}
    over = np.asarray(walk["next_obs"]) == STEPS
    np.testing.assert_array_equal(walk["next_obs"], at + 1, err_msg="where the step led, not where a reset begins")
    np.testing.assert_array_equal(np.asarray(walk["terminated"]) | np.asarray(walk["truncated"]), over)
    np.testing.assert_array_equal(walk["first"], at == 0)
    np.testing.assert_array_equal(at[1:], np.where(over[:-1], 0, at[:-1] + 1))
    np.testing.assert_array_equal(walk["seen"], at, err_msg="what it remembers is of this episode")


@pytest.mark.parametrize("loop", ["compiled", "hosted"])
def test_a_trajectory_keeps_where_an_episode_ended_and_forgets_it(loop):
    held = training(loop, Keeping())
    endings = {"terminated": 0, "truncated": 0}
    for _ in range(ITERATIONS):
        held.advance(1)
        walk = jax.device_get(held.run.state)
        assert_is_walk(walk)
        endings = {name: number + walk[name].sum() for name, number in endings.items()}
    assert all(endings.values()), "the case must contain both"


@pytest.mark.parametrize("loop", ["compiled", "step by step", "in one program", "learning meanwhile"])
def test_a_replay_memory_keeps_where_an_episode_ended_and_the_agent_forgets_it(loop):
    steps, length = LENGTH * ITERATIONS, 1 if loop == "learning meanwhile" else LENGTH
    held = training(loop, Counting(memory=Replay(capacity=ROWS * steps, batch_size=4, unroll=length)), length)
    held.advance(steps // length)
    store = held.run.store
    assert int(store.filled) == steps and int(store.cursor) == 0
    slot, row = (part.reshape(-1) for part in np.meshgrid(np.arange(steps), np.arange(ROWS), indexing="ij"))
    found = jax.tree.map(lambda leaf: np.asarray(leaf[0]).reshape(steps, ROWS), ring_take(store, slot, row, 1))
    walk = {**found._asdict(), "seen": found.extras["remembered"]}
    assert_is_walk(walk)
    assert found.terminated.any() and found.truncated.any(), "the case must contain both"
