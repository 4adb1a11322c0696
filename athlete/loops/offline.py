"""Learning from recorded steps: no environment is stepped, but where a policy is evaluated."""

from __future__ import annotations

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Agent, Array, Health, Memory, Run, Transition, Tree
from athlete.loops.compiling import COMPILER_OPTIONS, RUN_ONCE_OPTIONS
from athlete.loops.devices import Devices
from athlete.loops.interrupts import Interrupts
from athlete.loops.learn import Metrics, as_metrics, count, progress_of
from athlete.loops.output import EpisodeOutput
from athlete.loops.progress import Progress, find_fault, means
from athlete.loops.train import LoadStore
from athlete.ops.finite import all_finite
from athlete.ops.random import unwrap, wrap


@functools.partial(jax.jit, compiler_options=RUN_ONCE_OPTIONS)
def _begin(agent: Agent, steps: Transition, key: Array) -> Run:
    """A training about to begin, whose agent has observed all steps `[N, 1, ...]` once, as if it had collected them."""
    run_key, agent_key = jax.random.split(wrap(key))
    state, _ = agent.observe(agent.init(agent_key), agent.accumulators(1), steps)
    return _run_of(state, unwrap(run_key))


def _shapes(agent: Agent, key: Array) -> Run:
    run_key, agent_key = jax.random.split(wrap(key))
    return _run_of(agent.init(agent_key), unwrap(run_key))


def _run_of(state: Tree, key: Array) -> Run:
    return Run(state, (), (), key, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.uint32))  # type: ignore[arg-type]


@functools.partial(
    jax.jit, static_argnames=("iterations",), donate_argnames=("run",), compiler_options=COMPILER_OPTIONS
)
def _learn(agent: Agent, memory: Memory, iterations: int, horizon: Array, run: Run) -> tuple[Run, Metrics, Array]:
    """So many updates, each on a new sample; their metrics `[iterations, names]`, and whether the state is finite."""

    def one_update(run: Run, _: None) -> tuple[Run, Metrics]:
        key, sample_key, update_key = jax.random.split(wrap(run.key), 3)
        progress = progress_of(run.timesteps, horizon)
        batch = memory.sample((), None, sample_key, progress)  # type: ignore[arg-type]
        state, metrics = agent.update(run.state, batch, update_key, progress)
        scalars = {name: value for name, value in metrics.items() if jnp.ndim(value) == 0}
        timesteps = count(run.timesteps, memory.batch_size)
        return Run(state, (), (), unwrap(key), run.iteration + 1, timesteps), as_metrics(scalars)  # type: ignore[arg-type]

    run, metrics = jax.lax.scan(one_update, run, None, length=iterations)
    return run, metrics, all_finite(run.state)


class OfflineTraining:
    """One run of an agent on a data set: a `Training` that steps nothing.

    `memory` is filled, and an iteration is one update on a sample of it. Timesteps are those that were read, as RLlib
    counts them. `steps` `[N, 1, ...]` are what the agent observes before its first update. `devices` is how many share
    each batch out; the data are on all of them.
    """

    rows = 1
    memory_since = 0
    output: EpisodeOutput | None = None

    def __init__(
        self,
        agent: Agent,
        memory: Memory,
        steps: Transition,
        horizon: float,
        key: Array,
        begins: bool = True,
        devices: int = 1,
    ):
        self.agent: Agent = jax.tree.map(_on_device, agent)
        self.length = memory.batch_size
        self._devices = Devices(devices)
        self._held = self._devices.everywhere((self.agent, jax.device_put(memory), _on_device(horizon)))
        self._steps, self._key = steps, key
        self._run: Run | None = None
        if begins:
            self._run = self.run

    @property
    def shapes(self) -> Run:
        return jax.eval_shape(_shapes, self.agent, jax.ShapeDtypeStruct((2,), np.uint32))

    @property
    def run(self) -> Run:
        if self._run is None:
            self._run = self._devices.everywhere(_begin(self.agent, self._steps, self._key))
        return self._run

    @run.setter
    def run(self, run: Run) -> None:
        self._run = self._devices.everywhere(run)

    @property
    def learned(self) -> Run:
        return self.run

    def advance(self, iterations: int) -> Progress:
        start = time.perf_counter()
        with Interrupts():  # the program uses up the run: one that was called is waited for
            agent, memory, horizon = self._held
            with self._devices.set():
                self._run, metrics, finite = _learn(agent, memory, iterations, horizon, self.run)
            tables = {metrics.names: np.asarray(metrics.values, np.float64)}
        fault = find_fault(tables, None if finite else self.run.state)
        read, none = iterations * self.length, np.zeros(0, np.float32)
        seconds = {"learn": time.perf_counter() - start}
        return Progress(read, read, means(tables), none, none, seconds, fault=fault)

    def restore(self, run: Run, memory_since: int = 0, load_store: LoadStore | None = None) -> None:
        """Go on from `run`, with the data that are here."""
        whole = Run(run.state, (), (), run.key, run.iteration, run.timesteps)  # type: ignore[arg-type]
        self.run = jax.device_put(whole, may_alias=False)  # its buffers will be given away

    @property
    def health(self) -> Health:
        return Health()

    def close(self) -> None:
        pass


def _on_device(leaf: Array) -> Array:
    return jax.device_put(np.asarray(leaf, np.float32) if isinstance(leaf, float | int) else leaf)
