"""The programs of the hosted loop of agents that learn from a memory: all of a training between two steps of its
environments. `loops/stepper.py` calls them.

A program puts a step into memory, updates where a trajectory is complete and chooses the next action; agent, memory
and metrics never leave the device. One environment, one step, one update is the everyday case, and what a call costs
beside its arithmetic decides it: all goes in and out in packets.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Agent, Array, Rows, Transition, Tree
from athlete.core.learning import take_in, update
from athlete.loops.collect import choose, draw_keys
from athlete.loops.compiling import COMPILER_OPTIONS
from athlete.loops.learn import Metrics, as_metrics, count, progress_of
from athlete.loops.transport import Packet, from_packet, to_packet
from athlete.ops.finite import all_finite
from athlete.ops.random import unwrap, wrap


class Chosen(NamedTuple):
    """A step that is about to be taken: all of its `Transition` that is known before."""

    obs: Tree
    first: Array
    action: Tree
    carry: Tree  # before the step
    extras: Tree
    next_carry: Tree


class Live(NamedTuple):
    """A training between two steps, on the device. Every call uses it up and gives a new one."""

    state: Tree
    store: Tree
    accumulators: Tree
    key: Array  # of the iteration that is under way
    iteration: Array
    timesteps: Array  # those of `Run`: of whole iterations
    step: Array  # int32, of the trajectory that is under way
    chosen: Chosen


class Outcome(NamedTuple):
    """What a step brought, `[B, ...]`. `obs` is what the next one starts from: that of a reset where one followed.

    `action` is what the rows took, where that may be another than was chosen: `Source.taken`.
    """

    reward: Array
    next_obs: Tree
    terminated: Array
    truncated: Array
    obs: Tree
    action: Tree | None = None


class Order(NamedTuple):
    """What the host needs to know for a step."""

    action: Tree
    step_keys: Array  # uint32 [B, 2]
    reset_keys: Array
    metrics: Metrics  # of the updates before it; empty where there were none


def _next_action(
    agent: Agent, live: Live, obs: Tree, first: Array, carry: Tree, horizon: Array, length: int, random: bool
) -> tuple[Chosen, Order]:
    rows = first.shape[0]
    _, collect_key, _ = jax.random.split(wrap(live.key), 3)
    keys = jax.tree.map(lambda leaf: leaf[live.step], draw_keys(collect_key, length, rows))
    view = agent.view(live.state, progress_of(live.timesteps, horizon))
    action, next_carry, extras = choose(agent, view, carry, obs, first, keys.act, random)
    chosen = Chosen(obs, first, action, carry, extras, next_carry)
    return chosen, Order(action, unwrap(keys.step), unwrap(keys.reset), as_metrics({}))


@functools.partial(jax.jit, static_argnames=("length", "random"), compiler_options=COMPILER_OPTIONS)
def choose_first(agent: Agent, live: Live, rows: Rows, horizon: Array, length: int, random: bool) -> tuple:
    """`(Chosen, Packet of the Order)`: the first action of a run. `live` needs no store, and keeps its arrays."""
    chosen, order = _next_action(agent, live, rows.obs, rows.first, rows.carry, horizon, length, random)
    return chosen, to_packet(order)


@functools.partial(
    jax.jit, static_argnames=("length", "random"), donate_argnames=("live",), compiler_options=COMPILER_OPTIONS
)
def choose_again(agent: Packet, live: Packet, obs: Tree, length: int, random: bool) -> tuple[Packet, Packet]:
    """Another action in place of the one that was chosen, at `obs` of new episodes in all rows: live, and the order."""
    (bound, horizon), before = from_packet(agent), from_packet(live)
    first = jnp.ones_like(before.chosen.first)
    chosen, order = _next_action(bound, before, obs, first, before.chosen.carry, horizon, length, random)
    return to_packet(before._replace(chosen=chosen), APART), to_packet(order)


APART = 1024  # numbers; copying a larger leaf into a packet costs more than an argument does


@jax.jit
def pack_agent(agent: Agent, horizon: Array) -> Packet:
    return to_packet((agent, horizon))


@functools.partial(jax.jit, donate_argnames=("live",))
def pack_live(live: Live) -> Packet:
    return to_packet(live, APART)


@jax.jit
def unpack_live(live: Packet) -> Live:
    return jax.tree.map(jnp.copy, from_packet(live))


@jax.jit
def is_finite(live: Packet) -> Array:
    """Whether all numbers of the learner's state are finite."""
    return all_finite(from_packet(live).state)


@functools.partial(
    jax.jit,
    static_argnames=("length", "last", "learning", "random"),
    donate_argnames=("live",),
    compiler_options=COMPILER_OPTIONS,
)
def take_step(
    agent: Packet, live: Packet, outcome: Packet, length: int, last: bool, learning: bool, random: bool
) -> tuple[Packet, Packet]:
    """Take in a step's outcome, learn if it was the `last` of its trajectory, and choose the next action."""
    after, order = take_in_step(agent, from_packet(live), outcome, length, last, learning, random)
    return to_packet(after, APART), to_packet(order)


def take_in_step(
    agent: Packet, before: Live, outcome: Packet, length: int, last: bool, learning: bool, random: bool
) -> tuple[Live, Order]:
    """`take_step` inside a program."""
    (bound, horizon), came = from_packet(agent), from_packet(outcome)
    transition = _transition(before.chosen, came)
    trajectory = jax.tree.map(lambda leaf: leaf[None], transition)
    state, store, accumulators = take_in(bound, before.state, before.store, before.accumulators, trajectory)
    metrics = as_metrics({})
    key, iteration, timesteps, step = before.key, before.iteration, before.timesteps, before.step + 1
    if last:
        next_key, _, learn_key = jax.random.split(wrap(key), 3)
        if learning:
            progress = progress_of(timesteps, horizon)
            state, store, found = update(bound, state, store, trajectory, learn_key, progress)
            metrics = as_metrics(found)
        timesteps = count(timesteps, length * transition.reward.shape[0])
        key, iteration, step = unwrap(next_key), iteration + 1, jnp.zeros((), jnp.int32)
    after = Live(state, store, accumulators, key, iteration, timesteps, step, before.chosen)
    first, carry = transition.terminated | transition.truncated, before.chosen.next_carry
    chosen, order = _next_action(bound, after, came.obs, first, carry, horizon, length, random)
    return after._replace(chosen=chosen), order._replace(metrics=metrics)


@functools.partial(jax.jit, donate_argnames=("live",), compiler_options=COMPILER_OPTIONS)
def update_only(agent: Packet, live: Packet) -> tuple[Packet, Metrics]:
    """The updates of an iteration of one step, from memory as it is."""
    (bound, horizon), before = from_packet(agent), from_packet(live)
    learn_key, progress = jax.random.split(wrap(before.key), 3)[2], progress_of(before.timesteps, horizon)
    state, store, metrics = update(bound, before.state, before.store, None, learn_key, progress)  # type: ignore[arg-type]
    return to_packet(before._replace(state=state, store=store), APART), as_metrics(metrics)


def _transition(chosen: Chosen, outcome: Outcome) -> Transition:
    return Transition(
        chosen.obs,
        chosen.first,
        chosen.action if outcome.action is None else outcome.action,
        outcome.reward,
        outcome.next_obs,
        outcome.terminated,
        outcome.truncated,
        chosen.carry,
        chosen.extras,
    )
