"""Trainings that can be stepped, saved and gone on with: compiled or hosted, the same to whoever holds them."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import jax
import numpy as np

from athlete.core import Agent, Array, Env, Episodes, Run, Source
from athlete.loops.compiling import COMPILER_OPTIONS, RUN_ONCE_OPTIONS
from athlete.loops.host import init_hosted_run, iterate_hosted
from athlete.loops.learn import Phase, Report, fresh_store, init_run, iterate_many, phases
from athlete.loops.stepwise import Stepper

_init = jax.jit(init_run, static_argnames=("rows", "length"), compiler_options=RUN_ONCE_OPTIONS)
_iterate = jax.jit(
    iterate_many,
    static_argnames=("length", "iterations", "random", "learning", "sample_async"),
    donate_argnames=("run",),
    compiler_options=COMPILER_OPTIONS,
)


class Progress(NamedTuple):
    """What some iterations brought: timesteps sampled and learned from, mean metrics, finished episodes `[n]`, seconds
    by part.
    """

    timesteps: int
    learned: int
    metrics: dict[str, float]
    returns: np.ndarray
    lengths: np.ndarray
    seconds: dict[str, float]


def joined(parts: list[Progress]) -> Progress:
    """Several advances as one."""
    if len(parts) == 1:
        return parts[0]
    metrics = {name: float(np.mean([part.metrics[name] for part in parts])) for name in parts[0].metrics}
    seconds = {name: sum(part.seconds[name] for part in parts) for name in parts[0].seconds}
    returns, lengths = (
        np.concatenate(field) for field in zip(*((part.returns, part.lengths) for part in parts), strict=True)
    )
    sampled, learned = sum(part.timesteps for part in parts), sum(part.learned for part in parts)
    return Progress(sampled, learned, metrics, returns, lengths, seconds)


class Training(Protocol):
    """One run of an agent in its environment."""

    agent: Agent
    rows: int
    length: int
    memory_since: int  # the iteration at which the memory was empty: after it comes a warm-up

    @property
    def run(self) -> Run:
        """The whole state; the next `advance` uses it up."""
        ...

    @run.setter
    def run(self, run: Run) -> None: ...

    def advance(self, iterations: int) -> Progress:
        """Collect and learn `iterations` times, after what is left of a warm-up."""
        ...

    def restore(self, run: Run, memory_since: int = 0) -> None:
        """Go on from `run`, whose memory was empty at iteration `memory_since`; one that is None is empty now."""
        ...

    def close(self) -> None:
        """Let go of environments and processes."""
        ...


class CompiledTraining:
    """Collecting and learning in one program, where the environment is JAX too.

    `sample_async` is the order of the hosted loop of that name: updates come before what was just collected is added.
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
    ):
        # Python floats would be sent to the device at every call: put them there once.
        self.agent: Agent = jax.tree.map(_on_device, agent)
        self.env: Env = jax.tree.map(_on_device, env)
        self.rows, self.length, self.sample_async = rows, length, sample_async
        self._horizon = _on_device(horizon)
        arguments = {"rows": rows, "key": key, "length": length}
        self._shapes = _init.trace(self.agent, self.env, **arguments).out_info
        # The first state is made in a thread of its own, so that its program compiles while `advance` traces the next.
        executor = ThreadPoolExecutor(1)
        self._first_run: Future[Run] | None = executor.submit(_init, self.agent, self.env, **arguments)
        executor.shutdown(wait=False)
        self._run: Run | None = None
        self._done = 0  # iterations
        self.memory_since = 0

    @property
    def run(self) -> Run:
        if self._run is None:
            assert self._first_run is not None
            self._run, self._first_run = self._first_run.result(), None
        return self._run

    @run.setter
    def run(self, run: Run) -> None:
        self._run, self._first_run = run, None

    def advance(self, iterations: int) -> Progress:
        start = time.perf_counter()
        planned = phases(self.agent, self.rows * self.length, self._done - self.memory_since, iterations)
        reports = [self._iterate(*phase) for phase in planned]
        values = np.asarray(reports[-1].metrics.values)
        returns, lengths = _concatenated([finished(jax.tree.map(np.asarray, report.episodes)) for report in reports])
        seconds = {"sample_and_learn": time.perf_counter() - start}
        means = values.mean(axis=0, dtype=np.float64).tolist()
        metrics = dict(zip(reports[-1].metrics.names, means, strict=True))
        self._done += sum(phase.iterations for phase in planned)
        counts = timesteps_of(self.agent, self.rows * self.length, planned)
        return Progress(*counts, metrics, returns, lengths, seconds)

    def _iterate(self, iterations: int, random: bool, learning: bool) -> Report:
        arguments = {
            "length": self.length,
            "iterations": iterations,
            "horizon": self._horizon,
            "random": random,
            "learning": learning,
            "sample_async": self.sample_async,
        }
        if self._run is None:
            _iterate.lower(self.agent, self.env, **arguments, run=self._shapes).compile()
        self.run, report = _iterate(self.agent, self.env, **arguments, run=self.run)
        return report

    def restore(self, run: Run, memory_since: int = 0) -> None:
        run = _with_store(self.agent, run)
        self.run = jax.device_put(run, may_alias=False)  # its buffers will be given away
        self._done, self.memory_since = int(run.iteration), memory_since

    def close(self) -> None:
        pass


class HostedTraining:
    """Environments stepped from the host, in this process or in workers; acting and learning compiled.

    With `sample_async` an agent with a memory updates while its environments step: see `loops/stepwise.py`.
    """

    def __init__(
        self, agent: Agent, source: Source, length: int, horizon: float, key: Array, sample_async: bool = False
    ):
        self.agent: Agent = jax.tree.map(_on_device, agent)
        self.source = source
        self.rows, self.length = source.rows, length
        self._horizon = _on_device(horizon)
        self._stepper: Stepper | None = None
        if self.agent.memory.keeps:
            self._stepper = Stepper(self.agent, source, length, self._horizon, sample_async)
        self._run: Run = init_hosted_run(self.agent, source, key, length)
        self._done = 0  # iterations
        self.memory_since = 0

    @property
    def run(self) -> Run:
        settled = self._stepper.settle() if self._stepper is not None else None
        return self._run if settled is None else settled

    @run.setter
    def run(self, run: Run) -> None:
        self._run, self._done = run, int(run.iteration)
        if self._stepper is not None:
            self._stepper.forget()

    def advance(self, iterations: int) -> Progress:
        planned = phases(self.agent, self.rows * self.length, self._done - self.memory_since, iterations)
        if self._stepper is None:
            metrics, episodes, seconds = self._iterate(iterations)
        else:
            metrics, episodes, seconds = self._stepper.advance(self._run, planned)
        self._done += sum(phase.iterations for phase in planned)
        counts = timesteps_of(self.agent, self.rows * self.length, planned)
        return Progress(*counts, metrics, *finished(episodes), seconds)

    def _iterate(self, iterations: int) -> tuple[dict[str, float], Episodes, dict[str, float]]:
        """Iterations of an agent that learns from whole trajectories."""
        reports: list[Report] = []
        seconds: dict[str, float] = {}
        for _ in range(iterations):
            self._run, report, spent = iterate_hosted(self.agent, self.source, self.length, self._horizon, self._run)
            reports.append(report)
            seconds = {name: seconds.get(name, 0.0) + part for name, part in spent.items()}
        names = reports[0].metrics
        metrics = {name: float(np.mean([report.metrics[name] for report in reports])) for name in names}
        episodes = Episodes(*(np.stack(field) for field in zip(*(report.episodes for report in reports), strict=True)))
        return metrics, episodes, seconds

    def restore(self, run: Run, memory_since: int = 0) -> None:
        """Go on from `run` with new episodes: environments outside JAX cannot be put back to the middle of one."""
        obs = self.source.reset(np.asarray(run.key))
        rows = run.rows._replace(
            obs=obs,
            first=np.ones(self.rows, bool),
            episode_return=np.zeros(self.rows, np.float32),
            episode_length=np.zeros(self.rows, np.int32),
        )
        self.run = _with_store(self.agent, run._replace(rows=rows))
        self.memory_since = memory_since

    def close(self) -> None:
        self.source.close()


def finished(episodes: Episodes) -> tuple[np.ndarray, np.ndarray]:
    """Returns and lengths of the episodes that ended, in the order in which they did: `[n]` each."""
    done = np.asarray(episodes.done).reshape(-1)
    return np.asarray(episodes.return_).reshape(-1)[done], np.asarray(episodes.length).reshape(-1)[done]


def timesteps_of(agent: Agent, batch: int, planned: list[Phase]) -> tuple[int, int]:
    """Timesteps sampled in phases with `batch` an iteration, and timesteps in all batches learned from."""
    sampled = batch * sum(phase.iterations for phase in planned)
    if not agent.memory.keeps:
        return sampled, sampled
    updates = agent.updates * sum(phase.iterations for phase in planned if phase.learning)
    return sampled, updates * agent.memory.batch_size


def _with_store(agent: Agent, run: Run) -> Run:
    """The run; with an empty memory where it comes without one."""
    return run if run.store is not None else run._replace(store=fresh_store(agent, run.state, run.rows))


def _concatenated(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    returns, lengths = zip(*parts, strict=True)
    return np.concatenate(returns), np.concatenate(lengths)


def _on_device(leaf: Array) -> Array:
    return jax.device_put(np.asarray(leaf, np.float32) if isinstance(leaf, float | int) else leaf)
