"""Trainings that can be stepped, saved and gone on with: compiled or hosted, the same to whoever holds them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import jax
import numpy as np

from athlete.core import Agent, Array, Env, Health, Rows, Run, Source, Tree, Which
from athlete.loops.batch_hooks import BatchHooks
from athlete.loops.compiling import COMPILER_OPTIONS, RUN_ONCE_OPTIONS
from athlete.loops.devices import Devices
from athlete.loops.episodes import WatchedSource
from athlete.loops.host import collect_for, hosted_shapes, init_hosted_run, learn_of
from athlete.loops.interrupts import Interrupts
from athlete.loops.learn import Phase, Report, fresh_store, init_run, iterate_many, phases
from athlete.loops.output import EpisodeOutput
from athlete.loops.population import Population
from athlete.loops.progress import Progress, Taken, agent_steps, find_fault, finished, learned_from, means
from athlete.loops.stepper import Stepper
from athlete.loops.transport import on_device

_init = jax.jit(init_run, static_argnames=("rows", "length"), compiler_options=RUN_ONCE_OPTIONS)
_iterate = jax.jit(
    iterate_many,
    static_argnames=("length", "iterations", "random", "learning", "sample_async", "keep"),
    donate_argnames=("run",),
    compiler_options=COMPILER_OPTIONS,
)


LoadStore = Callable[[], Tree]  # reads a memory, as arrays of NumPy


class Training(Protocol):
    """One run of an agent in its environment."""

    agent: Agent
    rows: int
    length: int
    memory_since: int  # the timestep at which the memory was empty: after it comes a warm-up
    output: EpisodeOutput | None  # where all that is collected goes too

    @property
    def run(self) -> Run:
        """The whole state; the next `advance` uses it up."""
        ...

    @run.setter
    def run(self, run: Run) -> None: ...

    def advance(self, iterations: int) -> Progress:
        """Collect and learn `iterations` times, after what is left of a warm-up."""
        ...

    @property
    def shapes(self) -> Run:
        """The run's arrays as `jax.ShapeDtypeStruct`: what a checkpoint must fit. Makes no array."""
        ...

    @property
    def learned(self) -> Run:
        """The run for who does not need its memory: after a `restore` the store is None until something asks for it."""
        ...

    def restore(self, run: Run, memory_since: int = 0, load_store: LoadStore | None = None) -> None:
        """Go on from `run`, whose memory was empty at timestep `memory_since`.

        A store of None is what `load_store` gives, or empty, and made when the training goes on: who only acts never
        allocates it. Rows of None are new.
        """
        ...

    @property
    def health(self) -> Health:
        """How its environments fare."""
        ...

    def close(self) -> None:
        """Let go of environments and processes."""
        ...


class CompiledTraining:
    """Collecting and learning in one program, where the environment is JAX too.

    `sample_async` is the order of the hosted loop of that name: updates come before what was just collected is added.
    One that does not begin makes no arrays until it is restored, or they are asked for. `devices` is how many have its
    rows together.
    """

    def __init__(
        self,
        agent: Agent,
        env: Env,
        rows: int,
        length: int,
        horizon: float,
        key: Array,
        sample_async: bool = False,
        begins: bool = True,
        devices: int = 1,
    ):
        self.agent: Agent = jax.tree.map(on_device, agent)
        self.env: Env = jax.tree.map(on_device, env)
        self.rows, self.length, self.sample_async = rows, length, sample_async
        self._devices = Devices(devices)
        self._held = self._devices.everywhere((self.agent, self.env, on_device(horizon)))
        self._arguments = {"rows": rows, "key": key, "length": length}
        self._shapes = _init.trace(self.agent, self.env, **self._arguments).out_info
        self._first_run: Future[Run] | None = None
        if begins:
            # In a thread of its own, so that the program of the first state compiles while `advance` traces the next.
            executor = ThreadPoolExecutor(1)
            self._first_run = executor.submit(self._begin)
            executor.shutdown(wait=False)
        self._run: Run | None = None
        self._load_store: LoadStore | None = None
        self._reports: list[Report] = []  # that were not told yet
        self._joined: tuple[Population, int] | None = None  # whose member it is, and which
        self._timesteps = 0
        self.memory_since = 0
        self.output: EpisodeOutput | None = None  # where all that is collected goes too

    @property
    def shapes(self) -> Run:
        return self._shapes

    def _begin(self) -> Run:
        agent, env, _ = self._held
        with self._devices.set():
            return _init(agent, env, **self._arguments)

    @property
    def learned(self) -> Run:
        if self._joined is not None:
            population, number = self._joined
            return population.run(number)
        if self._run is None:
            self._run = self._first_run.result() if self._first_run else self._begin()
            self._first_run = None
        return self._run

    @property
    def run(self) -> Run:
        if self.learned.store is None:
            run = _with_store(self.agent, self.learned, self._load_store)
            self._run, self._load_store = self._devices.place(run), None
        return self.learned

    @run.setter
    def run(self, run: Run) -> None:
        if self._joined is not None:
            raise RuntimeError("a training that is mapped with others goes on from its own state alone")
        self._run, self._first_run = run if self._devices.mesh is None else self._devices.place(run), None

    def advance(self, iterations: int) -> Progress:
        start, batch = time.perf_counter(), self.rows * self.length
        planned = phases(self.agent, batch, self._timesteps - self.memory_since, iterations)
        with Interrupts():  # a program uses up the run: one that was called is waited for
            for phase in planned:
                self._reports.append(self._iterate(*phase))
                self._timesteps += phase.iterations * batch
        reports, self._reports = self._reports, []
        return self._progress(reports, start)

    def _progress(self, reports: list[Report], start: float) -> Progress:
        """What one advance told that began at `start`, and those before it that an interrupt kept from telling."""
        learned = [report.metrics for report in reports if report.metrics.names]
        tables = {
            names: np.concatenate([np.asarray(part.values, np.float64) for part in learned if part.names == names])
            for names in dict.fromkeys(part.names for part in learned)
        }
        episodes = [jax.tree.map(np.asarray, report.episodes) for report in reports]
        returns, lengths = finished(episodes)
        sampled = sum(part.done.size for part in episodes)
        batches = learned_from(self.agent, sampled, sum(map(len, tables.values())))
        info = {
            name: np.concatenate([part.info[name].reshape(-1)[part.done.reshape(-1)] for part in episodes])
            for name in self.env.info_metrics
        }
        fault = find_fault(tables, None if all(report.finite for report in reports) else self.run.state)
        told = {"sample_and_learn": time.perf_counter() - start}  # the reports are there: the program has ended
        steps = agent_steps(tables)
        return Progress(sampled, batches, means(tables), returns, lengths, told, info, fault=fault, agent_steps=steps)

    def _iterate(self, iterations: int, random: Which, learning: Which) -> Report:
        if self._joined is not None:
            population, number = self._joined
            return population.iterate(number, Phase(iterations, random, learning))
        agent, env, horizon = self._held
        arguments = {
            "length": self.length,
            "iterations": iterations,
            "horizon": horizon,
            "random": random,
            "learning": learning,
            "sample_async": self.sample_async,
            "keep": self.output is not None,
        }
        if self._run is None and self._devices.mesh is None:
            _iterate.lower(agent, env, **arguments, run=self._shapes).compile()
        run = self.run
        with self._devices.set():
            self._run, report = _iterate(agent, env, **arguments, run=run)
        if self.output is not None:
            steps = jax.device_get(report.trajectory)
            self.output.take(jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), steps))
        return report._replace(trajectory=())

    def restore(self, run: Run, memory_since: int = 0, load_store: LoadStore | None = None) -> None:
        if run.rows is None:
            run = run._replace(rows=self.learned.rows)
        self._run, self._first_run = self._devices.place(run), None
        self._load_store = load_store
        self._timesteps, self.memory_since = int(run.timesteps), memory_since
        self._reports = []

    @property
    def health(self) -> Health:
        return Health()

    def close(self) -> None:
        pass


def join(trainings: Sequence[CompiledTraining]) -> None:
    """Make one population of trainings that differ in their arrays alone. Each goes on as before, but in step."""
    first = trainings[0]
    runs = [training.run for training in trainings]
    population = Population([training._held for training in trainings], runs, first.length, first.sample_async)
    for number, training in enumerate(trainings):
        training._joined, training._run = (population, number), None


class HostedTraining:
    """Environments stepped from the host, in this process or in workers; acting and learning compiled.

    With `sample_async` an agent with a memory updates while its environments step: see `loops/stepper.py`.
    `batch_hooks` see what an agent without one learns from; they need a `WatchedSource`. `devices` is how many learn
    together; one of them acts.
    """

    def __init__(
        self,
        agent: Agent,
        source: Source,
        length: int,
        horizon: float,
        key: Array,
        sample_async: bool = False,
        batch_hooks: BatchHooks | None = None,
        begins: bool = True,
        devices: int = 1,
    ):
        self.agent: Agent = jax.tree.map(on_device, agent)
        self.source = source
        self.rows, self.length = source.rows, length
        self._horizon = on_device(horizon)
        self._devices = Devices(devices)
        self._stepper: Stepper | None = None
        if self.agent.memory.keeps:
            self._stepper = Stepper(self.agent, source, length, self._horizon, sample_async, self._devices)
        self._key = key
        self._run: Run | None = None
        self._load_store: LoadStore | None = None
        if begins:
            self._run = self.run
        self._batch_hooks = batch_hooks
        self.output: EpisodeOutput | None = None  # where an `OutputSource` puts all that is collected
        self._broken_off = False  # the environments have begun a trajectory that was not learned from
        self._taken = Taken()
        self.memory_since = 0

    @property
    def agent_ids(self) -> tuple[Any, ...]:
        """The names of the environment's agents, where it is one of many."""
        return self.source.agent_ids

    @property
    def shapes(self) -> Run:
        return hosted_shapes(self.agent, self.rows)

    @property
    def learned(self) -> Run:
        settled = self._stepper.settle() if self._stepper is not None else None
        return self._started() if settled is None else settled

    @property
    def run(self) -> Run:
        settled = self._stepper.settle() if self._stepper is not None else None
        return self._whole() if settled is None else settled

    @run.setter
    def run(self, run: Run) -> None:
        self._run = self._devices.place_learner(run)
        if self._stepper is not None:
            self._stepper.forget()

    def _started(self) -> Run:
        """The run as it was given or begun, before the stepper's first step."""
        if self._run is None:
            self._run = self._devices.place_learner(init_hosted_run(self.agent, self.source, self._key))
        return self._run

    def _whole(self) -> Run:
        """The same with its memory."""
        run = self._started()
        if run.store is None:
            run, self._load_store = _with_store(self.agent, run, self._load_store), None
            self._run = run = self._devices.place_learner(run)
        return run

    def advance(self, iterations: int) -> Progress:
        progress = self._advance(iterations)
        return progress._replace(told=self.source.take()) if isinstance(self.source, WatchedSource) else progress

    def _advance(self, iterations: int) -> Progress:
        with Interrupts() as interrupts:
            run = self._whole()
            if self._stepper is not None:
                sampled = self._stepper.timesteps(run) - self.memory_since
                planned = phases(self.agent, self.rows * self.length, sampled, iterations)
                return self._stepper.advance(run, planned, interrupts)
            for _ in range(iterations):
                self._iterate(interrupts)
            taken, self._taken = self._taken, Taken()
            return taken.progress(self.agent, self.rows * self.length, self._whole().state)

    def _iterate(self, interrupts: Interrupts) -> None:
        """An iteration of an agent that learns from whole trajectories."""
        interrupts.raise_noted()
        interrupts.at_once = True
        run = self._whole()
        if self._broken_off:
            self._run = run = run._replace(rows=self._new_episodes(run.rows, run.key))
        self._broken_off = True
        stage = self.agent.stage(int(run.timesteps) - self.memory_since)
        collected = collect_for(self.agent, self.source, self.length, self._horizon, run, stage.random)
        if self._batch_hooks is not None:
            assert isinstance(self.source, WatchedSource)
            for name, value in self._batch_hooks.see(collected.trajectory, self.source).items():
                self._taken.reported.setdefault(name, []).append(value)
        interrupts.at_once = False
        self._run, report = learn_of(self.agent, run, collected, stage.learning, self._devices)
        self._broken_off = False
        self._taken.take(report, collected.seconds)

    def _new_episodes(self, rows: Rows, key: Array) -> Rows:
        """The rows at the start of episodes: environments outside JAX cannot be put back to the middle of one.

        What the agent carries along them (`Rows.carry`) stays; it forgets what it must where an episode is new.
        """
        obs = self.source.reset(np.asarray(key))
        return rows._replace(
            obs=obs,
            first=np.ones(self.rows, bool),
            episode_return=np.zeros_like(rows.episode_return),
            episode_length=np.zeros(self.rows, np.int32),
        )

    def restore(self, run: Run, memory_since: int = 0, load_store: LoadStore | None = None) -> None:
        """Go on from `run` with new episodes."""
        rows = run.rows if run.rows is not None else self._started().rows
        self.run = run._replace(rows=self._new_episodes(rows, run.key))
        self._load_store = load_store
        self.memory_since = memory_since
        self._broken_off, self._taken = False, Taken()
        if self._stepper is not None:
            self._stepper.restart()

    @property
    def health(self) -> Health:
        return self.source.health

    def close(self) -> None:
        self.source.close()


def _with_store(agent: Agent, run: Run, load_store: LoadStore | None) -> Run:
    """The run with the memory that `load_store` reads, an empty one without it."""
    return run._replace(store=load_store() if load_store else fresh_store(agent, run.state, run.rows))
