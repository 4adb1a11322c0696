"""Learning to adapt: in each iteration a `MetaLearner` acts in several tasks, adapts in each of them, and acts again.

Tasks are one compiled environment with other numbers: fields of it, drawn anew in every iteration and mapped over.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Agent, Array, Env, Episodes, Health, MetaLearner, Run, Tree
from athlete.loops.collect import collect, reset_rows
from athlete.loops.compiling import COMPILER_OPTIONS, RUN_ONCE_OPTIONS
from athlete.loops.interrupts import Interrupts
from athlete.loops.learn import count, progress_of
from athlete.loops.output import EpisodeOutput
from athlete.loops.progress import Progress, find_fault, finished, joined, means
from athlete.loops.train import LoadStore
from athlete.loops.transport import on_device
from athlete.ops.finite import all_finite
from athlete.ops.random import unwrap, wrap

Tasks = tuple[tuple[str, float, float], ...]  # fields of an environment, and between what they are drawn


def tasks_of(env: Env, given: Mapping[str, Any]) -> Tasks:
    """What `{"field": [low, high]}` says. Raises ValueError for a field that the environment does not have, or that
    shapes its program, and for what is no range.
    """
    found = []
    for name, bounds in given.items():
        holder = _holder(env, name)
        if holder is None or not isinstance(getattr(holder, name), float):
            there = ", ".join(_floats(env))
            raise ValueError(f"tasks={{{name!r}: ...}}: the environment has no such number; it has {there or 'none'}")
        numbers = isinstance(bounds, list | tuple) and len(bounds) == 2
        if not numbers or not all(isinstance(end, int | float) for end in bounds) or bounds[0] > bounds[1]:
            raise ValueError(f"tasks={{{name!r}: {bounds!r}}}: expected a range [low, high]")
        found.append((name, float(bounds[0]), float(bounds[1])))
    return tuple(found)


def in_task(env: Env, values: Mapping[str, Array]) -> Env:
    """The environment with other numbers in the fields of `values`, under whatever is around it."""
    for name, value in values.items():
        env = _replaced(env, name, value)
    return env


def _replaced(env: Any, name: str, value: Array) -> Any:
    if hasattr(env, name):
        return dataclasses.replace(env, **{name: value})
    return dataclasses.replace(env, env=_replaced(env.env, name, value))


def _holder(env: Any, name: str) -> Any:
    while env is not None and not hasattr(env, name):
        env = getattr(env, "env", None)
    return env


def _floats(env: Any) -> list[str]:
    while getattr(env, "env", None) is not None:
        env = env.env
    return [field.name for field in dataclasses.fields(env) if isinstance(getattr(env, field.name), float)]


class Sizes(NamedTuple):
    """What an iteration is made of. Static."""

    tasks: Tasks
    rows: int  # environments in each task
    length: int  # steps that they take between two adaptations


class Told(NamedTuple):
    """What an iteration told: episodes after adapting, metrics, and whether the state is finite."""

    episodes: Episodes  # [tasks, T, B]
    metrics: dict[str, Array]
    finite: Array


@functools.partial(jax.jit, static_argnames=("sizes",), compiler_options=COMPILER_OPTIONS)
def _iterate(agent: MetaLearner, env: Env, sizes: Sizes, horizon: Array, run: Run) -> tuple[Run, Told]:
    """One iteration: in every task as many steps before and after each adaptation."""
    tasks, rows, length = sizes
    key, task_key, act_key = jax.random.split(wrap(run.key), 3)
    number, progress = agent.meta_batch_size, progress_of(run.timesteps, horizon)
    low, high = (jnp.array([each[i] for each in tasks]) for i in (1, 2))
    drawn = low + (high - low) * jax.random.uniform(task_key, (number, len(tasks)))

    def in_one(values: Array, key: Array) -> tuple[list[Tree], list[Episodes], Array]:
        world = in_task(env, {name: values[i] for i, (name, _, _) in enumerate(tasks)})
        params, batches, episodes, returns = agent.view(run.state, progress), [], [], []
        for step, step_key in enumerate(jax.random.split(key, agent.inner_adaptation_steps + 1)):
            reset_key, collect_key = jax.random.split(step_key)
            begun = reset_rows(world, agent, params, rows, reset_key)
            _, trajectory, ended = collect(agent, world, params, begun, collect_key, length)
            batches.append(agent.prepare(params, trajectory))
            episodes.append(ended)
            # Of each episode that was begun, those that still run included.
            begun_episodes = rows + jnp.sum(ended.done[:-1])
            returns.append(jnp.sum(trajectory.reward) / begun_episodes)
            if step < agent.inner_adaptation_steps:
                params = agent.adapt(params, batches[-1])
        return batches, episodes, jnp.stack(returns)

    batches, episodes, returns = jax.vmap(in_one)(drawn, jax.random.split(act_key, number))
    state, metrics = agent.meta_update(run.state, batches, progress)
    means_of_tasks = jnp.mean(returns, axis=0)
    metrics |= {f"return_adapt_{step}": means_of_tasks[step] for step in range(agent.inner_adaptation_steps + 1)}
    metrics["adaptation_delta"] = means_of_tasks[-1] - means_of_tasks[0]
    timesteps = number * rows * length * (agent.inner_adaptation_steps + 1)
    counters = run.iteration + 1, count(run.timesteps, timesteps)
    none: Any = ()
    return Run(state, none, none, unwrap(key), *counters), Told(episodes[-1], metrics, all_finite(state))


def _begin(agent: MetaLearner, key: Array) -> Run:
    run_key, agent_key = jax.random.split(wrap(key))
    none: Any = ()
    counters = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.uint32)
    return Run(agent.init(agent_key), none, none, unwrap(run_key), *counters)


class MetaTraining:
    """One run of a `MetaLearner` in a compiled environment. Episodes that results tell of are those after adapting."""

    memory_since = 0
    output: EpisodeOutput | None = None
    health = Health()

    def __init__(self, agent: MetaLearner, env: Env, sizes: Sizes, horizon: float, key: Array, begins: bool = True):
        self._learner: MetaLearner = jax.tree.map(on_device, agent)
        self.agent: Agent = self._learner
        self._env: Env = jax.tree.map(on_device, env)
        self._sizes = sizes
        self.rows = agent.meta_batch_size * sizes.rows
        self.length = sizes.length * (agent.inner_adaptation_steps + 1)
        self._horizon, self._key = on_device(horizon), key
        self._taken: list[Progress] = []  # that were not told yet
        self._run: Run | None = None
        if begins:
            self._run = self.run

    @property
    def shapes(self) -> Run:
        return jax.eval_shape(_begin, self._learner, jax.ShapeDtypeStruct((2,), np.uint32))

    @property
    def run(self) -> Run:
        if self._run is None:
            self._run = jax.jit(_begin, compiler_options=RUN_ONCE_OPTIONS)(self._learner, self._key)
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
                run, progress = self._one()
                self._run, self._taken = run, [*self._taken, progress]
                interrupts.raise_noted()
        taken, self._taken = self._taken, []
        return joined(taken)

    def _one(self) -> tuple[Run, Progress]:
        start = time.perf_counter()
        run, told = _iterate(self._learner, self._env, self._sizes, self._horizon, self.run)
        told = jax.device_get(told)
        table = {tuple(told.metrics): np.array([[*told.metrics.values()]], np.float64)}
        returns, lengths = finished([told.episodes])
        timesteps, seconds = self.rows * self.length, {"sample_and_learn": time.perf_counter() - start}
        fault = find_fault(table, None if told.finite else run.state)
        return run, Progress(timesteps, timesteps, means(table), returns, lengths, seconds, fault=fault)

    def restore(self, run: Run, memory_since: int = 0, load_store: LoadStore | None = None) -> None:
        """Go on from `run` with the next iteration."""
        none: Any = ()
        self._run, self._taken = jax.device_put(run._replace(store=none, rows=none)), []

    def close(self) -> None:
        """Nothing is open."""
