"""The hosted loop of agents that learn from a memory: compiled, but for the steps of the environments.

The same steps with the same randomness as `loops/learn.iterate`; the tests hold the two equal. Where the environments
may be stepped from any thread, one program goes through an iteration after the other and calls back into Python for
every step of the environments. Elsewhere every step is a call.

With `sample_async` the update is a call of its own that runs while the environments step. It sees the memory as it was
before that step: what a step waits for is then the longer of both, not their sum, and the newest transition comes into
batches one step later.
"""

from __future__ import annotations

import itertools
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, wait
from typing import NamedTuple

import jax
import numpy as np

from athlete.core import Agent, Array, Episodes, Rows, Run, Source, Which
from athlete.loops.calling_back import Ended, register, run_iterations
from athlete.loops.devices import ONE_DEVICE, Devices
from athlete.loops.interrupts import Interrupts
from athlete.loops.learn import Metrics, Phase
from athlete.loops.progress import Progress, Taken
from athlete.loops.stepwise import (
    Live,
    Order,
    Outcome,
    choose_again,
    choose_first,
    is_finite,
    pack_agent,
    pack_live,
    take_step,
    unpack_live,
    update_only,
)
from athlete.loops.transport import Layout, Packet, fetch, to_packet, write_packet

PATIENCE = 5.0  # seconds that an interrupted iteration is given to end


class Call(NamedTuple):
    """What follows on a step of the environments."""

    last: bool  # it completes a trajectory
    learning: Which
    random: Which  # whether the action after it is


class Stepper:
    """Takes an agent with a memory through a source, call by call.

    `broken_off` says that a step was begun and never taken in: the environments are not where the run is, and the next
    step starts new episodes.
    """

    def __init__(
        self,
        agent: Agent,
        source: Source,
        length: int,
        horizon: Array,
        sample_async: bool = False,
        devices: Devices = ONE_DEVICE,
    ):
        self.agent, self.source, self.length, self.horizon = agent, source, length, horizon
        self.sample_async = sample_async
        self.broken_off = False
        self._devices = devices
        self._agent = devices.everywhere(pack_agent(agent, horizon))
        self._live: Packet | None = None
        self._order: Order | None = None
        self._outcome: Layout | None = None
        self._number = register(self)
        self._taken = _nothing()
        self._lost = ""  # why this training cannot go on, until its run is replaced
        self._abandoned = False  # a program of it may run still
        self._error: BaseException | None = None  # of a call back
        self._interrupts = Interrupts()
        self._pending: Outcome | None = None  # of a step that is not taken in yet
        self._position = 0  # steps of the trajectory under way that are taken in
        self._timesteps = 0  # as `Run.timesteps`, but without its limit
        returns = (source.rows, *agent.spec.reward_shape)
        self._returns = np.zeros(returns, np.float32)  # of the running episodes
        self._lengths = np.zeros(source.rows, np.int32)

    def forget(self) -> None:
        """What was chosen ahead does not count: the run was replaced."""
        self._live = self._pending = None
        self._lost, self._position = "", 0

    def restart(self) -> None:
        """The run was replaced, and its environments are at the start of episodes."""
        self.forget()
        self.broken_off, self._taken = False, _nothing()

    def timesteps(self, run: Run) -> int:
        """Timesteps sampled so far, from `run` if there was no step since."""
        return int(run.timesteps) if self._live is None else self._timesteps

    def settle(self) -> Run | None:
        """A copy of the run as it stands; None before the first step.

        Within a trajectory, where an interrupt came, its steps so far are in memory and the run begins it anew.
        """
        if self._live is None:
            return None
        self._refuse_if_lost()
        live = unpack_live(self._live)
        obs, first, carry = live.chosen.obs, live.chosen.first, live.chosen.carry
        if self._pending is not None:  # an interrupt came before that step was taken in: it is left out
            step = self._pending
            obs, first, carry = step.obs, step.terminated | step.truncated, live.chosen.next_carry
        rows = Rows((), obs, first, carry, self._returns.copy(), self._lengths.copy(), live.accumulators)
        return Run(live.state, live.store, rows, live.key, live.iteration, live.timesteps)

    def advance(self, run: Run, planned: list[Phase], interrupts: Interrupts) -> Progress:
        """All iterations of the phases, from `run` if there was no step since. `run` is used up."""
        self._interrupts = interrupts
        if self._live is None:
            self._start(run, planned[0].random)
        self._refuse_if_lost()
        if self.broken_off:
            self._begin_episodes(planned[0].random)
        for phase, following in itertools.zip_longest(planned, planned[1:]):
            random_after = following.random if following is not None else False
            if self._joins_calls() and phase.iterations > 1 and not self._position:
                self._run_program(phase)
                phase = phase._replace(iterations=1)
            self._run_calls(phase, random_after)
        taken, self._taken = self._taken, _nothing()
        # One look an advance: at every step it would cost as much as a small network's update.
        taken.finite = bool(is_finite(self._live))
        state = None if taken.finite else unpack_live(self._live).state
        return taken.progress(self.agent, self.source.rows * self.length, state)

    def _refuse_if_lost(self) -> None:
        assert self._live is not None
        vector = self._live.vector
        if isinstance(vector, jax.Array) and vector.is_deleted():  # an exception came before a program's results
            self._lost = "it was interrupted within a program"
        if self._abandoned:
            raise RuntimeError(
                "this training cannot go on: its environments did not come back from a step when it was broken off; "
                "build a new one from a checkpoint"
            )
        if self._lost:
            raise RuntimeError(f"this training cannot go on: {self._lost}; restore it from a checkpoint")

    def _start(self, run: Run, random: Which) -> None:
        rows = run.rows
        self._returns, self._lengths = np.array(rows.episode_return), np.array(rows.episode_length)
        self._timesteps, self._position = int(run.timesteps), 0
        live = Live(
            run.state,
            (),
            rows.accumulators,
            run.key,
            run.iteration,
            run.timesteps,
            np.zeros((), np.int32),
            None,  # type: ignore[arg-type]
        )
        with warnings.catch_warnings(), self._devices.set():
            warnings.simplefilter("ignore")  # that small leaves of the run, which are copied, were given up for nothing
            chosen, packet = choose_first(self.agent, live, rows, self.horizon, self.length, random)
            self._live, self._order = pack_live(live._replace(store=run.store, chosen=chosen)), fetch(packet)

    def _begin_episodes(self, random: Which) -> None:
        """New episodes in all rows, in the place of a step that was broken off."""
        assert self._live is not None and self._order is not None
        self._interrupts.at_once = True
        obs = self.source.reset(self._order.reset_keys[0])
        self._interrupts.at_once = False
        with self._devices.set():
            self._live, packet = choose_again(self._agent, self._live, obs, self.length, random)
        self._order, self._pending = fetch(packet), None
        self._returns, self._lengths = np.zeros_like(self._returns), np.zeros_like(self._lengths)
        self.broken_off = False

    # One program, which calls back ------------------------------------------------------------------------------------

    def _joins_calls(self) -> bool:
        assert self._live is not None
        on_cpu = next(iter(self._live.vector.devices())).platform == "cpu"  # type: ignore[union-attr]
        return self.source.any_thread and on_cpu and not self.sample_async and self._devices.mesh is None

    def _run_program(self, phase: Phase) -> None:
        """All iterations of a phase but the last, after which actions may be chosen in another way."""
        start, stepped = time.perf_counter(), self._taken.seconds["env_step"]
        came, self._pending = self._packed(self._pending or self._step_here()), None
        self._error = None
        # In a thread of its own, since a wait for XLA in this one would not notice an interrupt.
        future: Future[Packet] = Future()
        threading.Thread(target=self._run_through, args=(phase, came, future), daemon=True).start()
        came = self._wait_for(future)
        if self._error is not None:
            if self.length > 1:
                self._lost = f"it ended within a trajectory when its environment failed ({self._error})"
            raise self._error
        self._pending = fetch(came)
        self._interrupts.raise_noted()
        stepped = self._taken.seconds["env_step"] - stepped
        self._taken.seconds["learn_and_act"] += time.perf_counter() - start - stepped

    def _run_through(self, phase: Phase, came: Packet, future: Future[Packet]) -> None:
        """Run the program to its end; `future` is the outcome of its last step."""
        assert self._live is not None
        number, iterations = np.int32(self._number), np.int32(phase.iterations - 1)
        try:
            self._live, came = run_iterations(
                self._agent, self._live, came, number, iterations, self.length, phase.learning, phase.random
            )
            future.set_result(jax.block_until_ready(came))
        except BaseException as error:
            future.set_exception(error)

    def _wait_for(self, future: Future[Packet]) -> Packet:
        """The result of the program that runs. Ctrl-C ends it after its iteration; is raised if that does not end."""
        patience = PATIENCE
        try:
            while not wait([future], timeout=0.05).done:  # here the handler of an interrupt is run
                patience -= 0.05 * self._interrupts.noted
                if patience < 0.0:
                    raise KeyboardInterrupt
                self.source.raise_if_hung()
        except BaseException as error:
            self._interrupts.noted = True
            patience = max(patience, 0.0) if isinstance(error, KeyboardInterrupt) else 0.0
            if not wait([future], timeout=patience).done:
                self._abandoned = True
            raise
        return future.result()

    def called_back(self, order: Order, ended: Ended, outcome: Packet) -> bool:
        """Take the step that a program orders and write its `outcome`: whether the program is to stop."""
        if self._error is None and not self._abandoned:
            self._order = order
            if ended.iteration:
                self._count(order.metrics if ended.learned else None)
            try:
                write_packet(self._step(), outcome)
                return self._interrupts.noted
            except BaseException as error:
                self._error, self.broken_off = error, True
        for array in jax.tree.leaves(outcome):
            np.asarray(array)[...] = 0
        return True

    # A call for each step ---------------------------------------------------------------------------------------------

    def _run_calls(self, phase: Phase, random_after: Which) -> None:
        """All iterations of a phase; `random_after` says how the action after them is chosen."""
        for call in self._calls(phase, random_after):
            start, stepped = time.perf_counter(), self._taken.seconds["env_step"]
            learns = call.learning and not self.sample_async
            metrics = self._learn_meanwhile() if call.learning and self.sample_async else None
            outcome = self._pending or self._step_here()
            self._order = self._take_step(outcome, call._replace(learning=learns))
            self._pending = None
            self._position = 0 if call.last else self._position + 1
            if call.last:
                self._count(self._order.metrics if learns else metrics)
            stepped = self._taken.seconds["env_step"] - stepped
            self._taken.seconds["learn_and_act"] += time.perf_counter() - start - stepped
            self._interrupts.raise_noted()

    def _calls(self, phase: Phase, random_after: Which) -> Iterator[Call]:
        """What follows on each step, from the middle of a trajectory where the last advance ended there."""
        for iteration in range(phase.iterations):
            for step in range(self._position, self.length):
                last = step == self.length - 1
                ends = last and iteration == phase.iterations - 1
                yield Call(last, last and phase.learning, random_after if ends else phase.random)

    def _learn_meanwhile(self) -> Metrics:
        """Start an iteration's updates, and do not wait for them."""
        assert self._live is not None
        with self._devices.set():
            self._live, metrics = update_only(self._agent, self._live)
        return metrics

    def _take_step(self, outcome: Outcome, call: Call) -> Order:
        assert self._live is not None
        came = self._packed(outcome)
        with self._devices.set():
            self._live, packet = take_step(self._agent, self._live, came, self.length, *call)
        return fetch(packet)

    # Both -------------------------------------------------------------------------------------------------------------

    def _count(self, metrics: Metrics | None) -> None:
        """An iteration is complete; it learned where there are `metrics`."""
        self._taken.iterations += 1
        self._timesteps += self.source.rows * self.length
        if metrics is not None:
            self._taken.learn(metrics.names, metrics.values)

    def _packed(self, outcome: Outcome) -> Packet:
        came = to_packet(outcome, layout=self._outcome)
        self._outcome = came.layout
        return came

    def _step_here(self) -> Outcome:
        """`_step` in the caller's thread, where Ctrl-C may break it off."""
        self.broken_off = self._interrupts.at_once = True
        outcome = self._step()
        self._interrupts.at_once = False
        self.broken_off = False
        return outcome

    def _step(self) -> Outcome:
        """Step all rows with the actions that were chosen, and reset those that are done."""
        start, order = time.perf_counter(), self._order
        assert order is not None
        step = self.source.step(order.action, order.step_keys)
        done = step.terminated | step.truncated
        ended = done if self.source.faulty is None else done & ~self.source.faulty
        episodes = Episodes(ended, self._returns + step.reward, self._lengths + 1)
        obs, self._returns, self._lengths = step.obs, episodes.return_, episodes.length
        if done.any():
            obs = self.source.reset_where(done, obs, order.reset_keys)
            running = ~done.reshape(-1, *(1 for _ in self.agent.spec.reward_shape))
            self._returns, self._lengths = episodes.return_ * running, episodes.length * ~done
        self._taken.episodes.append(episodes)
        self._taken.seconds["env_step"] += time.perf_counter() - start
        return Outcome(step.reward, step.obs, step.terminated, step.truncated, obs, self.source.taken)


def _nothing() -> Taken:
    return Taken(("env_step", "learn_and_act"))
