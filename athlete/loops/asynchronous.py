"""Trainings that learn from the trajectories of workers as they come, whatever the version of their policy."""

from __future__ import annotations

from collections import deque

import jax
import numpy as np

from athlete.core import Agent, Array, Health, Run, Tree
from athlete.loops.devices import Devices, here
from athlete.loops.host import Collected, begin, host_rows, hosted_shapes, learn_of, plan
from athlete.loops.interrupts import Interrupts
from athlete.loops.learn import Phase, example_transition, fresh_store, phases
from athlete.loops.output import EpisodeOutput
from athlete.loops.progress import Progress, Taken
from athlete.loops.train import LoadStore
from athlete.loops.transport import on_device
from athlete.loops.workers import Beginning, Form, Fragment, Leaves, Task, Workers, view_leaves
from athlete.spaces import zeros

# Fragments of a batch, requests in flight, iterations between two views, and how many a trajectory may be old.
Pace = tuple[int, int, int, int | None]


class AsynchronousTraining:
    """The learner learns from the first `fragments` trajectories that come, of as many workers.

    Every worker is asked for `in_flight` trajectories ahead, with the view of when it was asked. So no worker waits for
    the learner, and where workers are alike a trajectory is at most `in_flight * workers / fragments + 1` learning
    iterations old (`Progress.lags`); what is older than the pace allows is dropped, and the worker asked anew. There is
    no queue to overflow: who is not asked does not send. Which trajectories make a batch hangs on who was faster: a run
    cannot be repeated.

    With a memory that keeps, windows of several steps do not reach across two trajectories that follow one another in
    the store, which are not of the same rows: the memory keeps them `apart`, or each is stored as the beginning of an
    episode.
    """

    def __init__(
        self,
        agent: Agent,
        workers: Workers,
        each: int,
        length: int,
        horizon: float,
        key: Array,
        begins: bool = True,
        pace: Pace = (1, 2, 1, None),
        devices: int = 1,
    ):
        """Workers have `each` rows; `devices`: how many learn together."""
        self.agent: Agent = jax.tree.map(on_device, agent)
        self.workers, self.length, self._each = workers, length, each
        self._fragments, self._in_flight, self._interval, self._most_lag = pace
        self.rows = self._fragments * each  # of a batch
        self._horizon = on_device(horizon)
        self._devices = Devices(devices)
        self._key = key
        self._run: Run | None = None
        self._load_store: LoadStore | None = None
        self._form: Form | None = None
        self._serial = 0  # of tasks; answers to older ones than `_since` do not count
        self._since = 0
        self._open = [0] * workers.count  # trajectories that each worker was asked for and that are not learned from
        self._fresh = set(range(workers.count))  # workers whose next trajectory begins episodes
        self._waiting: deque[tuple[int, Fragment]] = deque()  # that came and were not learned from yet
        self._view: tuple[int, Leaves] | None = None  # that workers are sent, and its version
        self._accumulators: Tree = None  # the agent's, of the rows of all workers
        self._taken = Taken()
        self.memory_since = 0
        self.output: EpisodeOutput | None = None  # rows of many workers have no order that could be written
        if begins:
            workers.start()
            self._run = self._started()

    @property
    def shapes(self) -> Run:
        return hosted_shapes(self.agent, self.rows)

    @property
    def learned(self) -> Run:
        return self._started()

    @property
    def run(self) -> Run:
        """The run. Its rows are those of a batch, at the start of episodes: workers keep their own."""
        run = self._started()
        if run.store is None:
            store = self._load_store() if self._load_store else fresh_store(self.agent, run.state, run.rows)
            self._run, self._load_store = self._devices.place_learner(run._replace(store=store)), None
        assert self._run is not None
        return self._run

    @run.setter
    def run(self, run: Run) -> None:
        self._run, self._view = self._devices.place_learner(run), None

    def _started(self) -> Run:
        if self._run is None:
            state, carry, accumulators, run_key, _ = begin(self.agent, self._key, self.rows)
            rows = host_rows(self.agent, zeros(self.agent.spec.obs, (self.rows,)), carry, accumulators, self.rows)
            counters = np.zeros((), np.int32), np.zeros((), np.uint32)
            run = Run(state, None, rows, np.asarray(run_key), *counters)
            self._run = self._devices.place_learner(run)
        return self._run

    def advance(self, iterations: int) -> Progress:
        with Interrupts() as interrupts:
            batch, sampled = self.rows * self.length, int(self.run.timesteps) - self.memory_since
            for phase in phases(self.agent, batch, sampled, iterations):
                for _ in range(phase.iterations):
                    interrupts.raise_noted()
                    self._iterate(phase, interrupts)
            taken, self._taken = self._taken, Taken()
            return taken.progress(self.agent, batch, self.run.state)

    def _iterate(self, phase: Phase, interrupts: Interrupts) -> None:
        run = self.run
        interrupts.at_once = True  # what was asked for stays so
        planned = plan(self.agent, run.key, run.state, run.timesteps, self._horizon, 1, 1)
        version = int(run.iteration)
        if self._view is None or version - self._view[0] >= self._interval:
            self._view = version, view_leaves(here(planned.view))
        if self._form is None:
            example = jax.eval_shape(example_transition, self.agent, run.state, run.rows)
            if self.agent.memory.rated:
                example = example._replace(extras={**example.extras, "td_error": example.reward})
            self._form = Form(example, run.rows)
        came = self._collected(phase, version)
        interrupts.at_once = False
        fragments = [fragment for _, fragment in came]
        trajectory, episodes, rows = self._form.join(fragments)
        if self.agent.memory.keeps and not self.agent.memory.apart:
            trajectory.first[0] = True
        places = np.concatenate([np.arange(self._each) + worker * self._each for worker, _ in came])
        rows = rows._replace(accumulators=self._accumulators_of(places))
        seconds = {name: sum(part.seconds[name] for part in fragments) for name in fragments[0].seconds}
        self._run, report = learn_of(
            self.agent,
            run,
            Collected(planned, rows, trajectory, episodes, seconds),
            phase.learning,
            self._devices,
        )
        self._keep_accumulators(places)
        self._taken.take(report, seconds)
        self._taken.lags.extend(version - part.version for part in fragments)
        self._taken.told.extend(told for part in fragments for told in part.told)

    def _collected(self, phase: Phase, version: int) -> list[tuple[int, Fragment]]:
        """The first fragments, each of another worker: what the agent sums up along rows goes on in order."""
        waiting, self._waiting = self._waiting, deque()
        for worker, fragment in waiting:
            self._keep(worker, fragment, version)
        for worker in range(self.workers.count):
            self._fill(worker, phase)
        while len({worker for worker, _ in self._waiting}) < self._fragments:
            arrival = self.workers.next()
            worker = arrival.worker
            if arrival.error is not None and (arrival.lost or arrival.serial >= self._since):
                self._begin_anew()
                raise arrival.error
            if arrival.lost:
                self._open[worker] = sum(sender == worker for sender, _ in self._waiting)
                self._fresh.add(worker)
                self._fill(worker, phase)
            elif arrival.fragment is not None and arrival.serial >= self._since:
                self._keep(worker, arrival.fragment, version)
                self._fill(worker, phase)
        taken: dict[int, Fragment] = {}
        later: deque[tuple[int, Fragment]] = deque()
        for worker, fragment in self._waiting:
            if worker in taken or len(taken) == self._fragments:
                later.append((worker, fragment))
            else:
                taken[worker] = fragment
                self._open[worker] -= 1
                self._fill(worker, phase)
        self._waiting = later
        return list(taken.items())

    def _keep(self, worker: int, fragment: Fragment, version: int) -> None:
        """Have a fragment wait to be learned from, unless it is too old for iteration `version`."""
        if self._most_lag is None or version - fragment.version <= self._most_lag:
            self._waiting.append((worker, fragment))
        else:
            self._open[worker] -= 1
            self._taken.dropped += 1

    def _fill(self, worker: int, phase: Phase) -> None:
        """Ask a worker for as much as it may have to do."""
        assert self._view is not None
        while self._open[worker] < self._in_flight:
            self._serial += 1
            # Of any task another: the run's key, the worker and the task's number are all of its randomness.
            seed = np.random.SeedSequence([*np.asarray(self._key).tolist(), worker, self._serial])
            key = seed.generate_state(2)
            begins = Beginning(key, None) if worker in self._fresh else None
            self.workers.ask(worker, Task(self._serial, self._view[0], self._view[1], key, phase.random, begins))
            self._fresh.discard(worker)
            self._open[worker] += 1

    def _begin_anew(self) -> None:
        """New episodes everywhere; what workers are at does not count."""
        self._since = self._serial + 1
        self._open = [0] * self.workers.count
        self._fresh = set(range(self.workers.count))
        self._waiting.clear()

    def _accumulators_of(self, places: Array) -> Tree:
        if self._accumulators is None:
            rows = self.workers.count * self._each
            self._accumulators = jax.tree.map(np.array, self.agent.accumulators(rows))
        return jax.tree.map(lambda leaf: leaf[places], self._accumulators)

    def _keep_accumulators(self, places: Array) -> None:
        assert self._run is not None

        def keep(whole: Array, part: Array) -> None:
            whole[places] = np.asarray(part)

        jax.tree.map(keep, self._accumulators, self._run.rows.accumulators)

    def restore(self, run: Run, memory_since: int = 0, load_store: LoadStore | None = None) -> None:
        """Go on from `run` with new episodes."""
        rows = self._started().rows
        self.run = run._replace(rows=rows)
        self._begin_anew()
        # Else what is drawn would be what the run has drawn before.
        self._key = np.asarray(run.key)
        self._accumulators = None
        self._load_store, self.memory_since, self._taken = load_store, memory_since, Taken()

    @property
    def health(self) -> Health:
        return self.workers.health

    def close(self) -> None:
        self.workers.close()
