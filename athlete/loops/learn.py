"""Learning from what was collected, and the compiled iteration of collecting and learning."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Agent, Array, Env, Episodes, Key, Rows, Run, Transition, Tree, Which, hyper
from athlete.loops.collect import collect, fresh_rows, reset_rows
from athlete.loops.devices import spread_run
from athlete.ops.devices import everywhere
from athlete.ops.finite import all_finite
from athlete.ops.random import unwrap, wrap
from athlete.spaces import zeros


@hyper
class Metrics:
    """Named numbers in one array `[..., names]`."""

    names: tuple[str, ...]
    values: jax.Array


class Report(NamedTuple):
    """What one iteration tells: the learner's metrics and the episodes that ended."""

    metrics: Tree  # {name: scalar}, or Metrics where iterations are stacked
    episodes: Episodes
    finite: Array | bool = True  # whether all numbers of the learner's state are finite, where that was asked
    trajectory: Tree = ()  # what was collected, where that was asked


class Phase(NamedTuple):
    """Iterations of the same stage."""

    iterations: int
    random: Which
    learning: Which


def phases(agent: Agent, batch: int, sampled: int, iterations: int) -> list[Phase]:
    """What the next iterations do: all that are left of a warm-up, then `iterations` in which nothing changes any more.

    `batch` timesteps an iteration, `sampled` timesteps into this memory so far. Learning starts when
    the warm-up's timesteps are complete. An iteration's programs differ by phase, so that no
    program asks at every step whether the warm-up is over.
    """
    changes = {max(0, math.ceil((timesteps - sampled) / batch)) for timesteps in agent.milestones}
    bounds = sorted({0, *changes, max(changes, default=0) + iterations})
    return [Phase(last - first, *agent.stage(sampled + first * batch)) for first, last in itertools.pairwise(bounds)]


def progress_of(timesteps: Array, horizon: Array) -> Array:
    """How far the training is, in [0, 1]: `timesteps` sampled of `horizon`."""
    return jnp.clip(timesteps.astype(jnp.float32) / horizon, 0.0, 1.0)


MOST_TIMESTEPS = 2**32 - 1


def count(timesteps: Array, steps: int) -> Array:
    """`Run.timesteps` after `steps` more; no more are counted than fit. For NumPy and JAX."""
    return timesteps + np.uint32(steps) * (timesteps <= np.uint32(MOST_TIMESTEPS - steps))


def example_transition(agent: Agent, state: Tree, rows: Rows) -> Transition:
    """One transition of one row, zeros without leading axes: what `Memory.init` needs to know. Steps nothing."""

    def one(state: Tree, rows: Rows) -> Transition:
        view = agent.view(state, jnp.zeros(()))
        action, _, extras = agent.act(view, rows.carry, rows.obs, rows.first, wrap(np.zeros(2, np.uint32)))
        number, flag = rows.episode_return, rows.first
        return Transition(rows.obs, flag, action, number, rows.obs, flag, flag, rows.carry, extras)

    shapes = jax.eval_shape(one, state, rows)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), shapes)


def transition_shapes(agent: Agent) -> Transition:
    """What `Memory.init` will be given, as shapes: computes nothing and takes no memory."""

    def one(data: Array) -> Transition:
        key = wrap(data)
        state = agent.init(key)
        obs = jax.tree.map(jnp.asarray, zeros(agent.spec.obs, (1,)))
        carry = agent.start(agent.view(state, jnp.zeros(())), 1, key)
        return example_transition(agent, state, fresh_rows(agent, (), obs, carry, 1))

    return jax.eval_shape(one, jax.ShapeDtypeStruct((2,), np.uint32))


def fresh_store(agent: Agent, state: Tree, rows: Rows) -> Tree:
    """The agent's memory, empty, for the rows of a run."""
    return agent.memory.init(example_transition(agent, state, rows), rows.first.shape[0])


def init_run(agent: Agent, env: Env, rows: int, key: Key, length: int) -> Run:
    """A training about to begin on a JAX environment. Pure: jit it, or `vmap` it over keys."""
    run_key, agent_key, rows_key = jax.random.split(wrap(key), 3)
    state = agent.init(agent_key)
    view = agent.view(state, jnp.zeros(()))
    first_rows = reset_rows(env, agent, view, rows, rows_key)
    store = fresh_store(agent, state, first_rows)
    counters = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.uint32)
    return spread_run(Run(state, store, first_rows, unwrap(run_key), *counters))


def iterate(
    agent: Agent,
    env: Env,
    length: int,
    horizon: Array,
    run: Run,
    random: Which,
    learning: Which,
    sample_async: bool,
) -> tuple[Run, Report]:
    """Collect `length` steps of every row and learn from them, at a stage of `random` and `learning`."""
    rows = run.rows.first.shape[0]
    key, collect_key, learn_key = jax.random.split(wrap(run.key), 3)
    progress = progress_of(run.timesteps, horizon)
    view = agent.view(run.state, progress)
    new_rows, trajectory, episodes = collect(agent, env, view, run.rows, collect_key, length, random)
    state, store, accumulators, metrics = agent.learn(
        run.state, run.store, new_rows.accumulators, trajectory, learn_key, progress, learning, sample_async
    )
    new_rows = new_rows._replace(accumulators=accumulators)
    timesteps = count(run.timesteps, length * rows)
    return Run(state, store, new_rows, unwrap(key), run.iteration + 1, timesteps), Report(
        metrics, episodes, trajectory=trajectory
    )


def iterate_many(
    agent: Agent,
    env: Env,
    length: int,
    iterations: int,
    horizon: Array,
    run: Run,
    random: Which = False,
    learning: Which = True,
    sample_async: bool = False,
    keep: bool = False,
) -> tuple[Run, Report]:
    """`iterations` times `iterate`, as one scan; reports are stacked, `[iterations, ...]`.

    The metrics come as one array, `Metrics` `[iterations, names]`: an array a metric would be a kernel a metric.
    Whether the state is finite is asked once, of the last one. With `keep` they hold what was collected.
    """

    def one_iteration(run: Run, _: None) -> tuple[Run, Report]:
        run, report = iterate(agent, env, length, horizon, run, random, learning, sample_async)
        kept = report.trajectory._replace(carry=(), extras={}) if keep else ()
        return spread_run(run), report._replace(metrics=as_metrics(report.metrics), trajectory=kept)

    run, report = jax.lax.scan(one_iteration, run, None, length=iterations)
    return run, everywhere(report._replace(finite=all_finite(run.state)))


def as_metrics(metrics: dict[str, Array]) -> Metrics:
    """Scalars by name as one array."""
    names = tuple(sorted(metrics))
    values = [jnp.asarray(metrics[name], jnp.float32) for name in names]
    return Metrics(names, jnp.stack(values) if values else jnp.zeros(0))
