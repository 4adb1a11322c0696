"""Trainings whose trajectories come from workers that act by themselves."""

from __future__ import annotations

import jax
import numpy as np

from athlete.core import Agent, Array, Health, Rows, Run
from athlete.loops.devices import Devices, here
from athlete.loops.host import Collected, begin, host_rows, hosted_shapes, learn_of, plan
from athlete.loops.interrupts import Interrupts
from athlete.loops.learn import Phase, example_transition, fresh_store, phases
from athlete.loops.output import EpisodeOutput
from athlete.loops.progress import Progress, Taken
from athlete.loops.train import LoadStore
from athlete.loops.transport import on_device
from athlete.loops.workers import Beginning, Form, Fragment, Task, Workers, view_leaves
from athlete.spaces import zeros


class WorkedTraining:
    """Workers collect with the newest view, and the learner waits for all of them: see `loops/workers.py`.

    Equal to `HostedTraining` to the last bit. With `lagged` they collect the next trajectory with the same view while
    the learner learns from this one: every trajectory but the first is of a policy one iteration old, and the training
    still does not hang on how many workers there are, or which is faster.

    Where a worker is lost and begins anew, its rows begin new episodes with the trajectory that it was asked for.
    `devices` is how many learn together.
    """

    output: EpisodeOutput | None = None  # where all that is collected goes too

    def __init__(
        self,
        agent: Agent,
        workers: Workers,
        rows: int,
        length: int,
        horizon: float,
        key: Array,
        begins: bool = True,
        lagged: bool = False,
        devices: int = 1,
    ):
        self.agent: Agent = jax.tree.map(on_device, agent)
        self.workers, self.rows, self.length, self.lagged = workers, rows, length, lagged
        self._horizon = on_device(horizon)
        self._devices = Devices(devices)
        self._key = key
        self._run: Run | None = None
        self._load_store: LoadStore | None = None
        self._form: Form | None = None
        self._serial = 0  # of the trajectory under way
        self._came: dict[int, Fragment] = {}  # of it
        self._asked: set[int] = set()  # workers that it was asked of and that have not answered
        self._beginning: Array | None = None  # the key of new episodes, with which the next trajectory begins
        self._taken = Taken()
        self.memory_since = 0
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
        """The run; observations of its rows are zeros before the first trajectory."""
        run = self._started()
        if run.store is None:
            store = self._load_store() if self._load_store else fresh_store(self.agent, run.state, run.rows)
            self._run, self._load_store = self._devices.place_learner(run._replace(store=store)), None
        assert self._run is not None
        return self._run

    @run.setter
    def run(self, run: Run) -> None:
        self._run = self._devices.place_learner(run)
        if self._asked or self._came:
            self._beginning = np.asarray(run.key)  # the rows are within what is given up
        self._forget()

    def _forget(self) -> None:
        """What is under way does not count."""
        self._serial += 1
        self._came, self._asked = {}, set()

    def _started(self) -> Run:
        if self._run is None:
            state, carry, accumulators, run_key, reset_key = begin(self.agent, self._key, self.rows)
            obs = zeros(self.agent.spec.obs, (self.rows,))
            rows = host_rows(self.agent, obs, carry, accumulators, self.rows)
            self._beginning = np.asarray(reset_key)
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
        interrupts.at_once = True  # what was asked for stays so, and the next call goes on waiting for it
        planned = plan(self.agent, run.key, run.state, run.timesteps, self._horizon, self.length, self.rows)
        if self._form is None:
            self._form = Form(jax.eval_shape(example_transition, self.agent, run.state, run.rows), run.rows)
        task = Task(
            self._serial, int(run.iteration), view_leaves(here(planned.view)), np.asarray(run.key), phase.random
        )
        try:
            fragments = self._collected(task, run.rows)
        except Exception:
            self._forget()
            self._beginning = np.asarray(run.key)  # the rows are somewhere within what is not learned from
            raise
        interrupts.at_once = False
        self._forget()
        self._beginning = None
        trajectory, episodes, rows = self._form.join(fragments)
        if self.output is not None:
            for t in range(self.length):  # so that episodes are in the order in which they end
                self.output.take(jax.tree.map(lambda leaf, at=t: leaf[at : at + 1], trajectory))
        if self.lagged:
            following = int(run.timesteps) - self.memory_since + self.rows * self.length
            random = self.agent.stage(following).random
            self._ask_all(task._replace(serial=self._serial, key=np.asarray(planned.next_key), random=random), rows)
            self._taken.lags.extend(int(run.iteration) - part.version for part in fragments)
        seconds = {name: sum(part.seconds[name] for part in fragments) for name in fragments[0].seconds}
        rows = rows._replace(accumulators=run.rows.accumulators)
        self._run, report = learn_of(
            self.agent,
            run,
            Collected(planned, rows, trajectory, episodes, seconds),
            phase.learning,
            self._devices,
        )
        self._taken.take(report, seconds)
        self._taken.told.extend(told for part in fragments for told in part.told)

    def _collected(self, task: Task, rows: Rows) -> list[Fragment]:
        """The trajectory of each worker, in their order."""
        self._ask_all(task, rows)
        while self._asked:
            arrival = self.workers.next()
            if arrival.error is not None and (arrival.lost or arrival.serial == task.serial):
                raise arrival.error
            if arrival.lost:
                self._ask(arrival.worker, task, rows, task.key)
            elif arrival.serial == task.serial and arrival.fragment is not None:
                self._came[arrival.worker] = arrival.fragment
                self._asked.discard(arrival.worker)
        return [self._came[worker] for worker in range(self.workers.count)]

    def _ask_all(self, task: Task, rows: Rows) -> None:
        """Ask for a trajectory who was not asked for it."""
        for worker in set(range(self.workers.count)) - self._asked - self._came.keys():
            self._ask(worker, task, rows, self._beginning)

    def _ask(self, worker: int, task: Task, rows: Rows, reset_key: Array | None) -> None:
        if reset_key is not None:
            if self.output is not None:
                self.output.cut()
            carry = [np.asarray(leaf) for leaf in jax.tree.leaves(rows.carry)]
            task = task._replace(begin=Beginning(reset_key, carry))
        self.workers.ask(worker, task)
        self._came.pop(worker, None)
        self._asked.add(worker)

    def restore(self, run: Run, memory_since: int = 0, load_store: LoadStore | None = None) -> None:
        """Go on from `run` with new episodes."""
        rows = run.rows if run.rows is not None else self._started().rows
        ended = {
            "first": np.ones(self.rows, bool),
            "episode_return": np.zeros_like(rows.episode_return),
            "episode_length": np.zeros(self.rows, np.int32),
        }
        self.run = run._replace(rows=rows._replace(env_state=(), **ended))
        self._beginning = np.asarray(run.key)
        self._load_store, self.memory_since, self._taken = load_store, memory_since, Taken()

    @property
    def health(self) -> Health:
        return self.workers.health

    def close(self) -> None:
        self.workers.close()
