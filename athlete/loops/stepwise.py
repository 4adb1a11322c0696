"""The hosted loop of agents that learn from a memory: one compiled call a step of the environments.

The call puts the step into memory, updates where a trajectory is complete and chooses the next action; agent, memory
and metrics never leave the device. The same steps with the same randomness as `loops/learn.iterate`; the tests hold
the two equal. One environment, one step, one update is the everyday case, and a call's fixed cost decides it.

With `sample_async` the update is a call of its own that runs while the environments step. It sees the memory as it was
before that step: what a step waits for is then the longer of both, not their sum, and the newest transition comes into
batches one step later.
"""

from __future__ import annotations

import functools
import itertools
import time
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Agent, Array, Episodes, Rows, Run, Source, Transition, Tree
from athlete.loops.collect import choose, draw_keys
from athlete.loops.compiling import COMPILER_OPTIONS
from athlete.loops.learn import Metrics, Phase, as_metrics, progress_of, update
from athlete.ops.random import unwrap, wrap
from athlete.ops.tree import Layout, Packet, fetch, from_packet, to_packet


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
    key: Array  # of the iteration that is under way
    iteration: Array
    step: Array  # int32, of the trajectory that is under way
    chosen: Chosen


class Outcome(NamedTuple):
    """What a step brought, `[B, ...]`. `obs` is what the next one starts from: that of a reset where one followed."""

    reward: Array
    next_obs: Tree
    terminated: Array
    truncated: Array
    obs: Tree


class Order(NamedTuple):
    """What the host needs to know for a step."""

    action: Tree
    step_keys: Array  # uint32 [B, 2]
    reset_keys: Array
    metrics: Metrics  # of the updates before it; empty where there were none


def _choose(
    agent: Agent, live: Live, obs: Tree, first: Array, carry: Tree, horizon: Array, length: int, random: bool
) -> tuple[Chosen, Order]:
    rows = first.shape[0]
    _, collect_key, _ = jax.random.split(wrap(live.key), 3)
    keys = jax.tree.map(lambda leaf: leaf[live.step], draw_keys(collect_key, length, rows))
    view = agent.view(live.state, progress_of(live.iteration, length * rows, horizon))
    action, next_carry, extras = choose(agent, view, carry, obs, first, keys.act, random)
    chosen = Chosen(obs, first, action, carry, extras, next_carry)
    return chosen, Order(action, unwrap(keys.step), unwrap(keys.reset), as_metrics({}))


@functools.partial(jax.jit, static_argnames=("length", "random"), compiler_options=COMPILER_OPTIONS)
def _begin(
    agent: Agent, state: Tree, rows: Rows, key: Array, iteration: Array, horizon: Array, length: int, random: bool
) -> tuple[Chosen, Packet]:
    """The first action of an iteration."""
    live = Live(state, (), key, iteration, jnp.zeros((), jnp.int32), None)  # type: ignore[arg-type]
    chosen, order = _choose(agent, live, rows.obs, rows.first, rows.carry, horizon, length, random)
    return chosen, to_packet(order)


APART = 1024  # numbers; copying a larger leaf into a packet costs more than an argument does


@jax.jit
def _pack_agent(agent: Agent, horizon: Array) -> Packet:
    return to_packet((agent, horizon))


@functools.partial(jax.jit, donate_argnames=("live",))
def _pack(live: Live) -> Packet:
    return to_packet(live, APART)


@jax.jit
def _unpack(live: Packet) -> Live:
    return jax.tree.map(jnp.copy, from_packet(live))


@functools.partial(
    jax.jit,
    static_argnames=("length", "last", "learning", "random"),
    donate_argnames=("live",),
    compiler_options=COMPILER_OPTIONS,
)
def _go_on(
    agent: Packet, live: Packet, outcome: Packet, length: int, last: bool, learning: bool, random: bool
) -> tuple[Packet, Packet]:
    """Take in a step's outcome, learn if it was the `last` of its trajectory, and choose the next action."""
    (bound, horizon), before, came = from_packet(agent), from_packet(live), from_packet(outcome)
    transition = _transition(before.chosen, came)
    trajectory = jax.tree.map(lambda leaf: leaf[None], transition)
    state, store, metrics = before.state, bound.memory.add(before.store, trajectory), as_metrics({})
    key, iteration, step = before.key, before.iteration, before.step + 1
    if last:
        next_key, _, learn_key = jax.random.split(wrap(key), 3)
        if learning:
            progress = progress_of(iteration, length * transition.reward.shape[0], horizon)
            state, store, found = update(bound, state, store, trajectory, learn_key, progress)
            metrics = as_metrics(found)
        key, iteration, step = unwrap(next_key), iteration + 1, jnp.zeros((), jnp.int32)
    after = Live(state, store, key, iteration, step, before.chosen)
    first, carry = transition.terminated | transition.truncated, before.chosen.next_carry
    chosen, order = _choose(bound, after, came.obs, first, carry, horizon, length, random)
    return to_packet(after._replace(chosen=chosen), APART), to_packet(order._replace(metrics=metrics))


@functools.partial(jax.jit, static_argnames=("rows",), donate_argnames=("live",), compiler_options=COMPILER_OPTIONS)
def _learn(agent: Packet, live: Packet, rows: int) -> tuple[Packet, Metrics]:
    """The updates of an iteration of one step, from memory as it is."""
    (bound, horizon), before = from_packet(agent), from_packet(live)
    learn_key, progress = jax.random.split(wrap(before.key), 3)[2], progress_of(before.iteration, rows, horizon)
    state, store, metrics = update(bound, before.state, before.store, None, learn_key, progress)  # type: ignore[arg-type]
    return to_packet(before._replace(state=state, store=store), APART), as_metrics(metrics)


def _transition(chosen: Chosen, outcome: Outcome) -> Transition:
    return Transition(
        chosen.obs,
        chosen.first,
        chosen.action,
        outcome.reward,
        outcome.next_obs,
        outcome.terminated,
        outcome.truncated,
        chosen.carry,
        chosen.extras,
    )


class Stepper:
    """Takes an agent with a memory through a source, call by call."""

    def __init__(self, agent: Agent, source: Source, length: int, horizon: Array, sample_async: bool = False):
        self.agent, self.source, self.length, self.horizon = agent, source, length, horizon
        self.sample_async = sample_async
        self._agent = _pack_agent(agent, horizon)
        self._live: Packet | None = None
        self._order: Order | None = None
        self._outcome: Layout | None = None
        self._returns = np.zeros(source.rows, np.float32)  # of the running episodes
        self._lengths = np.zeros(source.rows, np.int32)

    def forget(self) -> None:
        """What was chosen ahead does not count: the run was replaced."""
        self._live = None

    def settle(self) -> Run | None:
        """A copy of the run as it stands between two iterations; None before the first step."""
        if self._live is None:
            return None
        live = _unpack(self._live)
        chosen = live.chosen
        rows = Rows((), chosen.obs, chosen.first, chosen.carry, self._returns.copy(), self._lengths.copy())
        return Run(live.state, live.store, rows, live.key, live.iteration)

    def advance(self, run: Run, planned: list[Phase]) -> tuple[dict[str, float], Episodes, dict[str, float]]:
        """All iterations of the phases, from `run` if there was no step since: metrics, episodes `[steps, B]`, seconds.

        `run` is used up.
        """
        if self._live is None:
            self._start(run, planned[0].random)
        measured: list[np.ndarray] = []
        names: tuple[str, ...] = ()
        steps: list[Episodes] = []
        seconds = {"env_step": 0.0, "learn_and_act": 0.0}
        for last, learning, random in self._calls(planned):
            start = time.perf_counter()
            found = self._learn_meanwhile() if learning and self.sample_async else None
            outcome, episodes = self._step()
            stepped = time.perf_counter()
            self._order = order = self._go_on(outcome, last, learning and not self.sample_async, random)
            if learning:
                metrics = order.metrics if found is None else found
                names = metrics.names
                measured.append(np.asarray(metrics.values))
            steps.append(episodes)
            seconds["env_step"] += stepped - start
            seconds["learn_and_act"] += time.perf_counter() - stepped
        means = np.mean(np.array(measured, np.float64), axis=0).tolist() if measured else []
        episodes = Episodes(*(np.stack(field) for field in zip(*steps, strict=True)))
        return dict(zip(names, means, strict=True)), episodes, seconds  # type: ignore[arg-type]

    def _start(self, run: Run, random: bool) -> None:
        rows = run.rows
        self._returns, self._lengths = np.array(rows.episode_return), np.array(rows.episode_length)
        chosen, packet = _begin(
            self.agent, run.state, rows, run.key, run.iteration, self.horizon, self.length, random=random
        )
        live = Live(run.state, run.store, run.key, run.iteration, np.zeros((), np.int32), chosen)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that small leaves of the run, which are copied, were given up for nothing
            self._live, self._order = _pack(live), fetch(packet)

    def _calls(self, planned: list[Phase]) -> Iterator[tuple[bool, bool, bool]]:
        """For each step: is it the last of its trajectory, does learning follow, is the action after it random."""
        phase_of = [phase for phase in planned for _ in range(phase.iterations)]
        for phase, following in itertools.zip_longest(phase_of, phase_of[1:]):
            for step in range(self.length):
                last = step == self.length - 1
                after = following if last else phase
                yield last, phase.learning and last, after.random if after is not None else False

    def _learn_meanwhile(self) -> Metrics:
        """Start an iteration's updates, and do not wait for them."""
        assert self._live is not None
        self._live, metrics = _learn(self._agent, self._live, self.source.rows)
        return metrics

    def _go_on(self, outcome: Outcome, last: bool, learning: bool, random: bool) -> Order:
        assert self._live is not None
        came = to_packet(outcome, layout=self._outcome)
        self._outcome = came.layout
        self._live, packet = _go_on(self._agent, self._live, came, self.length, last, learning, random)
        return fetch(packet)

    def _step(self) -> tuple[Outcome, Episodes]:
        """Step all rows with the actions that were chosen, and reset those that are done."""
        order = self._order
        assert order is not None
        step = self.source.step(order.action, order.step_keys)
        done = step.terminated | step.truncated
        episodes = Episodes(done, self._returns + step.reward, self._lengths + 1)
        obs = step.obs
        if done.any():
            obs = self.source.reset_where(done, obs, order.reset_keys)
        self._returns, self._lengths = episodes.return_ * ~done, episodes.length * ~done
        return Outcome(step.reward, step.obs, step.terminated, step.truncated, obs), episodes
