"""Learning from recorded steps: no environment is stepped, but where a policy is evaluated."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable

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
from athlete.loops.refill import Refill
from athlete.loops.train import LoadStore
from athlete.ops.finite import all_finite
from athlete.ops.random import unwrap, wrap

MOST_UPDATES = 2**31 - 1  # of one program


@functools.partial(jax.jit, compiler_options=RUN_ONCE_OPTIONS)
def _begin(agent: Agent, steps: Transition, key: Array) -> tuple[Run, Tree]:
    """A training about to begin, whose agent has observed steps `[N, 1, ...]` once, as if it had collected them; and
    its accumulators.
    """
    run_key, agent_key = jax.random.split(wrap(key))
    state, accumulators = agent.observe(agent.init(agent_key), agent.accumulators(1), steps)
    return _run_of(state, unwrap(run_key)), accumulators


@functools.partial(jax.jit, compiler_options=RUN_ONCE_OPTIONS)
def _observe(agent: Agent, run: Run, accumulators: Tree, steps: Transition) -> tuple[Run, Tree]:
    """The same after more steps."""
    state, accumulators = agent.observe(run.state, accumulators, steps)
    return run._replace(state=state), accumulators


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
    store = memory.init(None, 1)  # type: ignore[arg-type]  # of nothing: it holds the steps itself

    def one_update(run: Run, _: None) -> tuple[Run, Metrics]:
        key, sample_key, update_key = jax.random.split(wrap(run.key), 3)
        progress = progress_of(run.timesteps, horizon)
        batch = memory.sample(store, None, sample_key, progress)  # type: ignore[arg-type]
        state, metrics = agent.update(run.state, batch, update_key, progress)
        scalars = {name: value for name, value in metrics.items() if jnp.ndim(value) == 0}
        timesteps = count(run.timesteps, memory.batch_size)
        return Run(state, (), (), unwrap(key), run.iteration + 1, timesteps), as_metrics(scalars)  # type: ignore[arg-type]

    run, metrics = jax.lax.scan(one_update, run, None, length=iterations)
    return run, metrics, all_finite(run.state)


class OfflineTraining:
    """One run of an agent on a data set: a `Training` that steps nothing.

    `memory` is filled, or is so again and again, and an iteration is one update on a sample of it. Timesteps are those
    that were read, as RLlib counts them. `steps` gives all of them, `[N, 1, ...]`, one part after the other: what the
    agent observes before its first update. `devices` is how many share each batch out; the data are on all of them.
    """

    rows = 1
    memory_since = 0
    output: EpisodeOutput | None = None

    def __init__(
        self,
        agent: Agent,
        memory: Memory | Refill,
        steps: Callable[[], Iterable[Transition]],
        horizon: float,
        key: Array,
        begins: bool = True,
        devices: int = 1,
    ):
        self.agent: Agent = jax.tree.map(_on_device, agent)
        self.length = memory.batch_size
        self._devices = Devices(devices)
        self._held = self._devices.everywhere((self.agent, _on_device(horizon)))
        self._memory = memory if isinstance(memory, Refill) else self._devices.everywhere(jax.device_put(memory))
        self._steps: Callable[[], Iterable[Transition]] | None = steps  # until they are observed
        self._key = key
        self._run: Run | None = None
        if begins:
            self._run = self.run

    @property
    def shapes(self) -> Run:
        return jax.eval_shape(_shapes, self.agent, jax.ShapeDtypeStruct((2,), np.uint32))

    @property
    def run(self) -> Run:
        if self._run is None:
            assert self._steps is not None
            parts = iter(self._steps())
            run, accumulators = _begin(self.agent, next(parts), self._key)
            for steps in parts:
                run, accumulators = _observe(self.agent, run, accumulators, steps)
            self.run = run
        assert self._run is not None
        return self._run

    @run.setter
    def run(self, run: Run) -> None:
        self._run, self._steps = self._devices.everywhere(run), None

    @property
    def learned(self) -> Run:
        return self.run

    def advance(self, iterations: int) -> Progress:
        start, left, finite = time.perf_counter(), iterations, True
        values: list[np.ndarray] = []
        agent, horizon = self._held
        with Interrupts():  # the program uses up the run: one that was called is waited for
            while left:
                memory, most = self._memory_now()
                run, updates = self.run, min(left, most)
                with self._devices.set():
                    self._run, metrics, sound = _learn(agent, memory, updates, horizon, run)
                values.append(np.asarray(metrics.values, np.float64))
                left, finite = left - updates, finite and bool(sound)
        tables = {metrics.names: np.concatenate(values)}
        fault = find_fault(tables, None if finite else self.run.state)
        read, none = iterations * self.length, np.zeros(0, np.float32)
        seconds = {"learn": time.perf_counter() - start}
        return Progress(read, read, means(tables), none, none, seconds, fault=fault)

    def _memory_now(self) -> tuple[Memory, int]:
        """The memory that the next updates learn from, and how many of them at most."""
        if not isinstance(self._memory, Refill):
            return self._memory, MOST_UPDATES
        done = int(self.run.iteration)
        return self._memory.at(done, self._devices), self._memory.updates_left(done)

    def read_in_order_of(self, seed: int) -> None:
        """Take the parts of data larger than memory in the order of this seed: the one of who goes on here."""
        if isinstance(self._memory, Refill):
            self._memory.seed = seed & 0xFFFFFFFF  # of a key, which has 32 bits

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
