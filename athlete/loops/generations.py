"""Learning from generations: a population plays whole episodes, a member in each row, and the agent is told of them.

Episodes are those of an evaluation, played by the same code and from the same keys, compiled, hosted or by workers. So
a training does not hang on how many environments there are, nor on who steps them, and goes on exactly wherever
environments begin an episode by their seed.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Agent, Array, Env, Evolution, Health, Played, Run, Source, Tree
from athlete.loops.compiling import COMPILER_OPTIONS, RUN_ONCE_OPTIONS
from athlete.loops.evaluate import (
    LONGEST_EPISODE,
    Evaluation,
    joined_evaluation,
    play_compiled,
    play_hosted,
)
from athlete.loops.evaluation_workers import EvaluationWorkers
from athlete.loops.interrupts import Interrupts
from athlete.loops.learn import count, progress_of
from athlete.loops.output import EpisodeOutput
from athlete.loops.progress import Progress, find_fault, joined, means
from athlete.loops.train import LoadStore
from athlete.loops.transport import on_device
from athlete.ops.finite import all_finite
from athlete.ops.random import unwrap, wrap


class Waves(Protocol):
    """Where the episodes of a generation are played, as many at a time as there are rows."""

    @property
    def rows(self) -> int | None:
        """Episodes side by side; None: all of them."""
        ...

    def play(self, agent: Evolution, members: Callable[[int], Tree], key: Array, episodes: int) -> Evaluation:
        """`episodes` episodes; `members(start)` acts in the wave of rows that begins with the episode `start`."""
        ...

    @property
    def health(self) -> Health: ...

    def close(self) -> None: ...


class CompiledWaves:
    """A JAX environment, with a row for each member."""

    rows = None
    health = Health()

    def __init__(self, env: Env):
        self._env: Env = jax.tree.map(on_device, env)

    def play(self, agent: Evolution, members: Callable[[int], Tree], key: Array, episodes: int) -> Evaluation:
        return play_compiled(agent, self._env, members(0), key, 0, episodes, explore=True, with_carry=True)

    def close(self) -> None:
        pass


class HostedWaves:
    """Environments outside JAX, a wave of rows at a time. The source seeds its resets."""

    def __init__(self, source: Source):
        self._source, self.rows = source, source.rows

    def play(self, agent: Evolution, members: Callable[[int], Tree], key: Array, episodes: int) -> Evaluation:
        waves = [(start, min(self.rows, episodes - start)) for start in range(0, episodes, self.rows)]
        return joined_evaluation(
            [play_hosted(agent, self._source, members(start), key, start, size, True, True) for start, size in waves]
        )

    @property
    def health(self) -> Health:
        return self._source.health

    def close(self) -> None:
        self._source.close()


class WorkedWaves:
    """The same rows, shared out among workers that act by themselves."""

    def __init__(self, workers: EvaluationWorkers, rows: int):
        self._workers, self.rows = workers, rows
        workers.workers.start()

    def play(self, agent: Evolution, members: Callable[[int], Tree], key: Array, episodes: int) -> Evaluation:
        played = self._workers.play_members(members, key, episodes)
        return played._replace(carry=jax.tree.unflatten(_carry_structure(agent), played.carry))

    @property
    def health(self) -> Health:
        return self._workers.health

    def close(self) -> None:
        self._workers.close()


class _Asked(NamedTuple):
    population: Array  # [P, N]
    drawn: Tree
    next_key: Array
    play_key: Array


@functools.partial(jax.jit, compiler_options=COMPILER_OPTIONS)
def _ask(agent: Evolution, horizon: Array, run: Run) -> _Asked:
    key, ask_key, play_key = jax.random.split(wrap(run.key), 3)
    population, drawn = agent.ask(run.state, ask_key, progress_of(run.timesteps, horizon))
    return _Asked(population, drawn, unwrap(key), unwrap(play_key))


@functools.partial(jax.jit, compiler_options=COMPILER_OPTIONS)
def _members(agent: Evolution, state: Tree, population: Array) -> Tree:
    return agent.members(state, population)


@functools.partial(jax.jit, compiler_options=COMPILER_OPTIONS)
def _tell(agent: Evolution, horizon: Array, run: Run, drawn: Tree, played: Played) -> tuple[Tree, dict, Array]:
    state, metrics = agent.tell(run.state, drawn, played, progress_of(run.timesteps, horizon))
    return state, metrics, all_finite(state)


def _begin(agent: Evolution, key: Array) -> Run:
    run_key, agent_key = jax.random.split(wrap(key))
    none: Any = ()
    counters = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.uint32)
    return Run(agent.init(agent_key), none, none, unwrap(run_key), *counters)


def members_shapes(agent: Evolution) -> Tree:
    """The form of what `Evolution.members` gives; computes nothing."""

    def made(data: Array) -> Tree:
        state = agent.init(wrap(data))
        return agent.members(state, agent.ask(state, wrap(data), jnp.zeros(()))[0])

    return jax.eval_shape(made, jax.ShapeDtypeStruct((2,), np.uint32))


def _carry_structure(agent: Evolution) -> Any:
    start = functools.partial(agent.start, rows=1)
    key = jax.eval_shape(lambda: wrap(np.zeros(2, np.uint32)))
    return jax.tree.structure(jax.eval_shape(lambda view, key: start(view, key=key), members_shapes(agent), key))


class GenerationTraining:
    """One run of an `Evolution`: a `Training` whose iteration is a generation, played in `waves`."""

    length = LONGEST_EPISODE  # steps that an iteration may take of a row: how many it does is known after it
    memory_since = 0
    output: EpisodeOutput | None = None

    def __init__(self, agent: Evolution, waves: Waves, horizon: float, key: Array, begins: bool = True):
        self._evolution: Evolution = jax.tree.map(on_device, agent)
        self.agent: Agent = self._evolution
        self._waves, self._horizon, self._key = waves, on_device(horizon), key
        shape = jax.eval_shape(_ask, self._evolution, self._horizon, self.shapes).population.shape
        self.rows: int = shape[0]
        self._taken: list[Progress] = []  # that were not told yet
        self._run: Run | None = None
        if begins:
            self._run = self.run

    @property
    def shapes(self) -> Run:
        return jax.eval_shape(_begin, self._evolution, jax.ShapeDtypeStruct((2,), np.uint32))

    @property
    def run(self) -> Run:
        if self._run is None:
            self._run = jax.jit(_begin, compiler_options=RUN_ONCE_OPTIONS)(self._evolution, self._key)
        return self._run

    @run.setter
    def run(self, run: Run) -> None:
        self._run = run

    @property
    def learned(self) -> Run:
        return self.run

    def advance(self, iterations: int) -> Progress:
        with Interrupts() as interrupts:
            while len(self._taken) < iterations:
                interrupts.at_once = True  # nothing is lost: the same generation is played again
                run, progress = self._generation(self.run)
                interrupts.at_once = False
                self._run, self._taken = run, [*self._taken, progress]
                interrupts.raise_noted()
        taken, self._taken = self._taken, []
        return joined(taken)

    def _generation(self, run: Run) -> tuple[Run, Progress]:
        start = time.perf_counter()
        asked = _ask(self._evolution, self._horizon, run)
        population: Any = asked.population if self._waves.rows is None else np.asarray(asked.population)

        def members(first: int) -> Tree:
            if self._waves.rows is None:
                return _members(self._evolution, run.state, population)
            places = (first + np.arange(self._waves.rows)) % self.rows  # the last wave may have rows to spare
            return _members(self._evolution, run.state, population[places])

        evaluation = self._waves.play(self._evolution, members, np.asarray(asked.play_key), self.rows)
        stepped = time.perf_counter()
        played = Played(evaluation.returns, evaluation.lengths, evaluation.carry)
        state, metrics, finite = _tell(self._evolution, self._horizon, run, asked.drawn, played)
        timesteps = int(evaluation.lengths.sum())
        counters = np.asarray(run.iteration) + np.int32(1), count(np.asarray(run.timesteps), timesteps)
        metrics, finite = jax.device_get((metrics, finite))
        table = {tuple(metrics): np.array([[*metrics.values()]], np.float64)}
        told = self._evolution.policy_episodes or self.rows
        seconds = {"env_step": stepped - start, "learn": time.perf_counter() - stepped}
        return Run(state, run.store, run.rows, asked.next_key, *counters), Progress(
            timesteps,
            timesteps,
            means(table),
            evaluation.returns[-told:],
            evaluation.lengths[-told:],
            seconds,
            told=evaluation.told,
            fault=find_fault(table, None if finite else state),
        )

    def restore(self, run: Run, memory_since: int = 0, load_store: LoadStore | None = None) -> None:
        """Go on from `run` with the next generation."""
        none: Any = ()
        self._run, self._taken = jax.device_put(run._replace(store=none, rows=none)), []

    @property
    def health(self) -> Health:
        return self._waves.health

    def close(self) -> None:
        self._waves.close()
