"""The hosted loop of agents that learn from a memory: compiled, but for the steps of the environments.

A program puts a step into memory, updates where a trajectory is complete and chooses the next action; agent, memory
and metrics never leave the device. The same steps with the same randomness as `loops/learn.iterate`; the tests hold
the two equal. One environment, one step, one update is the everyday case, and what a call costs beside its arithmetic
decides it.

So where the environments may be stepped from any thread, one program goes through an iteration after the other and
calls back into Python for every step of the environments. Elsewhere every step is a call.

With `sample_async` the update is a call of its own that runs while the environments step. It sees the memory as it was
before that step: what a step waits for is then the longer of both, not their sum, and the newest transition comes into
batches one step later.
"""

from __future__ import annotations

import functools
import itertools
import signal
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.buffer_callback import buffer_callback

from athlete.core import Agent, Array, Episodes, Rows, Run, Source, Transition, Tree
from athlete.loops.collect import choose, draw_keys
from athlete.loops.compiling import COMPILER_OPTIONS, ONE_BY_ONE_OPTIONS
from athlete.loops.learn import Metrics, Phase, as_metrics, progress_of, take_in, update
from athlete.ops.random import unwrap, wrap
from athlete.ops.tree import Layout, Packet, fetch, from_packet, to_packet, write_packet


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
    live = Live(state, (), (), key, iteration, jnp.zeros((), jnp.int32), None)  # type: ignore[arg-type]
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
    after, order = _take_in(agent, live, outcome, length, last, learning, random)
    return to_packet(after, APART), to_packet(order)


def _take_in(
    agent: Packet, live: Packet, outcome: Packet, length: int, last: bool, learning: bool, random: bool
) -> tuple[Live, Order]:
    (bound, horizon), before, came = from_packet(agent), from_packet(live), from_packet(outcome)
    transition = _transition(before.chosen, came)
    trajectory = jax.tree.map(lambda leaf: leaf[None], transition)
    state, store, accumulators = take_in(bound, before.state, before.store, before.accumulators, trajectory)
    metrics = as_metrics({})
    key, iteration, step = before.key, before.iteration, before.step + 1
    if last:
        next_key, _, learn_key = jax.random.split(wrap(key), 3)
        if learning:
            progress = progress_of(iteration, length * transition.reward.shape[0], horizon)
            state, store, found = update(bound, state, store, trajectory, learn_key, progress)
            metrics = as_metrics(found)
        key, iteration, step = unwrap(next_key), iteration + 1, jnp.zeros((), jnp.int32)
    after = Live(state, store, accumulators, key, iteration, step, before.chosen)
    first, carry = transition.terminated | transition.truncated, before.chosen.next_carry
    chosen, order = _choose(bound, after, came.obs, first, carry, horizon, length, random)
    return after._replace(chosen=chosen), order._replace(metrics=metrics)


@functools.partial(
    jax.jit,
    static_argnames=("length", "learning", "random"),
    donate_argnames=("live",),
    compiler_options=ONE_BY_ONE_OPTIONS,
)
def _go_through(
    agent: Packet,
    live: Packet,
    outcome: Packet,
    stepper: Array,
    iterations: Array,
    length: int,
    learning: bool,
    random: bool,
) -> tuple[Packet, Packet]:
    """Whole iterations, each environment step a call back into the `stepper` of this number, until one wants to stop.

    Returns what is live after them and the outcome of the last step, which is not taken in yet.
    """

    results = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (outcome, jnp.int32(0)))

    def take_in(live: Packet, came: Packet, last: bool) -> tuple[Packet, Packet, Array]:
        after, order = _take_in(agent, live, came, length, last, last and learning, random)
        packet = to_packet(order)
        step_of = functools.partial(_step_of, packet.layout, last and learning)
        came, stop = buffer_callback(step_of, results, has_side_effect=True)(stepper, packet.vector)
        return to_packet(after, APART), came, stop

    def iterate(carry: tuple[Array, Packet, Packet, Array]) -> tuple[Array, Packet, Packet, Array]:
        done, live, came, stop = carry
        if length > 1:
            live, came = jax.lax.fori_loop(
                0, length - 1, lambda _, held: take_in(held[0], held[1], False)[:2], (live, came)
            )
        live, came, stop = take_in(live, came, True)
        return done + 1, live, came, stop

    start = (jnp.int32(0), live, outcome, jnp.int32(0))
    _, live, came, _ = jax.lax.while_loop(lambda carry: (carry[0] < iterations) & (carry[3] == 0), iterate, start)
    return live, came


# Programs know a stepper by its number, so that one program serves all that have its shapes.
_steppers: weakref.WeakValueDictionary[int, Stepper] = weakref.WeakValueDictionary()
_numbers = itertools.count()


def _step_of(layout: Layout, learned: bool, _: Any, results: tuple[Packet, Any], stepper: Any, order: Any) -> None:
    """The callback of `_go_through`: writes a step's outcome and whether to stop into `results`."""
    outcome, stop = results
    # The buffer is the program's: what is kept of it is a copy.
    order = from_packet(Packet(layout, np.asarray(order).copy(), ()))
    np.asarray(stop)[...] = _steppers[int(np.asarray(stepper))].called_back(order, learned, outcome)


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


class _Taken:
    """What the steps of an `advance` brought."""

    def __init__(self) -> None:
        self.metrics: list[Metrics] = []
        self.episodes: list[Episodes] = []
        self.seconds = {"env_step": 0.0, "learn_and_act": 0.0}

    def summary(self) -> tuple[dict[str, float], Episodes, dict[str, float]]:
        names = self.metrics[0].names if self.metrics else ()
        values = np.array([metrics.values for metrics in self.metrics], np.float64)
        means = values.mean(axis=0).tolist() if self.metrics else []
        episodes = Episodes(*(np.stack(field) for field in zip(*self.episodes, strict=True)))
        return dict(zip(names, means, strict=True)), episodes, self.seconds


class Stepper:
    """Takes an agent with a memory through a source, call by call."""

    def __init__(self, agent: Agent, source: Source, length: int, horizon: Array, sample_async: bool = False):
        self.agent, self.source, self.length, self.horizon = agent, source, length, horizon
        self.sample_async = sample_async
        self._agent = _pack_agent(agent, horizon)
        self._live: Packet | None = None
        self._order: Order | None = None
        self._outcome: Layout | None = None
        self._number = next(_numbers)
        _steppers[self._number] = self
        self._taken = _Taken()
        self._error: BaseException | None = None  # of a call back
        self._interrupted = False
        self._pending: Outcome | None = None  # of a step that is not taken in yet
        self._returns = np.zeros(source.rows, np.float32)  # of the running episodes
        self._lengths = np.zeros(source.rows, np.int32)

    def forget(self) -> None:
        """What was chosen ahead does not count: the run was replaced."""
        self._live = self._pending = self._error = None

    def settle(self) -> Run | None:
        """A copy of the run as it stands between two iterations; None before the first step."""
        if self._live is None:
            return None
        self._refuse_after_failure()
        live = _unpack(self._live)
        obs, first, carry = live.chosen.obs, live.chosen.first, live.chosen.carry
        if self._pending is not None:  # an interrupt came before that step was taken in: it is left out
            step = self._pending
            obs, first, carry = step.obs, step.terminated | step.truncated, live.chosen.next_carry
        rows = Rows((), obs, first, carry, self._returns.copy(), self._lengths.copy(), live.accumulators)
        return Run(live.state, live.store, rows, live.key, live.iteration)

    def advance(self, run: Run, planned: list[Phase]) -> tuple[dict[str, float], Episodes, dict[str, float]]:
        """All iterations of the phases, from `run` if there was no step since: metrics, episodes `[steps, B]`, seconds.

        `run` is used up.
        """
        if self._live is None:
            self._start(run, planned[0].random)
        self._refuse_after_failure()
        self._error, self._taken = None, _Taken()
        for phase, following in itertools.zip_longest(planned, planned[1:]):
            random_after = following.random if following is not None else False
            if self._joins_calls() and phase.iterations > 1:
                self._go_through(phase)
                phase = phase._replace(iterations=1)
            self._go_step_by_step(phase, random_after)
        return self._taken.summary()

    def _refuse_after_failure(self) -> None:
        if self._error is not None and self.length > 1:
            raise RuntimeError(
                f"this training ended within a trajectory when its environment failed ({self._error}); "
                "restore it from a checkpoint"
            )

    def _joins_calls(self) -> bool:
        assert self._live is not None
        on_cpu = next(iter(self._live.vector.devices())).platform == "cpu"  # type: ignore[union-attr]
        return self.source.any_thread and on_cpu and not self.sample_async

    def _go_through(self, phase: Phase) -> None:
        """All iterations of a phase but the last, after which actions may be chosen in another way, in one program."""
        assert self._live is not None
        start, stepped = time.perf_counter(), self._taken.seconds["env_step"]
        came, self._pending = self._packed(self._pending or self._step()), None
        with self._noting_interrupts():
            # In a thread of its own, since a wait for XLA in this one would not notice an interrupt.
            executor = ThreadPoolExecutor(1)
            future = executor.submit(self._run_through, phase, came)
            executor.shutdown(wait=False)
            try:
                while not wait([future], timeout=0.05).done:
                    pass  # here the handler of an interrupt is run, wherever that arrived
                came = future.result()
            except BaseException:
                self._interrupted = True  # where somebody's own handler raised
                wait([future])
                raise
        if self._error is not None:
            raise self._error
        self._pending = fetch(came)
        if self._interrupted:
            raise KeyboardInterrupt
        stepped = self._taken.seconds["env_step"] - stepped
        self._taken.seconds["learn_and_act"] += time.perf_counter() - start - stepped

    def _run_through(self, phase: Phase, came: Packet) -> Packet:
        """Run the program to its end; the outcome of its last step."""
        assert self._live is not None
        number, iterations = np.int32(self._number), np.int32(phase.iterations - 1)
        self._live, came = _go_through(
            self._agent, self._live, came, number, iterations, self.length, phase.learning, phase.random
        )
        return jax.block_until_ready(came)

    @contextmanager
    def _noting_interrupts(self) -> Iterator[None]:
        """Ctrl-C inside ends the program after the iteration that is under way, not in the middle of one."""
        self._interrupted = False
        in_main_thread = threading.current_thread() is threading.main_thread()
        if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, lambda *_: setattr(self, "_interrupted", True))
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def called_back(self, order: Order, learned: bool, outcome: Packet) -> bool:
        """Take the step that a program orders and write its `outcome`: whether the program is to stop."""
        if self._error is None:
            self._order = order
            if learned:
                self._taken.metrics.append(order.metrics)
            try:
                write_packet(self._step(), outcome)
                return self._interrupted
            except BaseException as error:
                self._error = error
        for array in jax.tree.leaves(outcome):
            np.asarray(array)[...] = 0
        return True

    def _go_step_by_step(self, phase: Phase, random_after: bool) -> None:
        for last, learning, random in self._calls(phase, random_after):
            start, stepped = time.perf_counter(), self._taken.seconds["env_step"]
            found = self._learn_meanwhile() if learning and self.sample_async else None
            outcome, self._pending = self._pending or self._step(), None
            self._order = order = self._go_on(outcome, last, learning and not self.sample_async, random)
            if learning:
                self._taken.metrics.append(order.metrics if found is None else found)
            stepped = self._taken.seconds["env_step"] - stepped
            self._taken.seconds["learn_and_act"] += time.perf_counter() - start - stepped

    def _start(self, run: Run, random: bool) -> None:
        rows = run.rows
        self._returns, self._lengths = np.array(rows.episode_return), np.array(rows.episode_length)
        chosen, packet = _begin(
            self.agent, run.state, rows, run.key, run.iteration, self.horizon, self.length, random=random
        )
        step = np.zeros((), np.int32)
        live = Live(run.state, run.store, rows.accumulators, run.key, run.iteration, step, chosen)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that small leaves of the run, which are copied, were given up for nothing
            self._live, self._order = _pack(live), fetch(packet)

    def _calls(self, phase: Phase, random_after: bool) -> Iterator[tuple[bool, bool, bool]]:
        """For each step: is it the last of its trajectory, does learning follow, is the action after it random."""
        for iteration in range(phase.iterations):
            for step in range(self.length):
                last = step == self.length - 1
                ends = last and iteration == phase.iterations - 1
                yield last, phase.learning and last, random_after if ends else phase.random

    def _learn_meanwhile(self) -> Metrics:
        """Start an iteration's updates, and do not wait for them."""
        assert self._live is not None
        self._live, metrics = _learn(self._agent, self._live, self.source.rows)
        return metrics

    def _go_on(self, outcome: Outcome, last: bool, learning: bool, random: bool) -> Order:
        assert self._live is not None
        came = self._packed(outcome)
        self._live, packet = _go_on(self._agent, self._live, came, self.length, last, learning, random)
        return fetch(packet)

    def _packed(self, outcome: Outcome) -> Packet:
        came = to_packet(outcome, layout=self._outcome)
        self._outcome = came.layout
        return came

    def _step(self) -> Outcome:
        """Step all rows with the actions that were chosen, and reset those that are done."""
        start = time.perf_counter()
        order = self._order
        assert order is not None
        step = self.source.step(order.action, order.step_keys)
        done = step.terminated | step.truncated
        episodes = Episodes(done, self._returns + step.reward, self._lengths + 1)
        _, self._returns, self._lengths = episodes
        obs = step.obs
        if done.any():
            obs = self.source.reset_where(done, obs, order.reset_keys)
            self._returns, self._lengths = episodes.return_ * ~done, episodes.length * ~done
        self._taken.episodes.append(episodes)
        self._taken.seconds["env_step"] += time.perf_counter() - start
        return Outcome(step.reward, step.obs, step.terminated, step.truncated, obs)
