"""The iteration of collecting and learning where environments live outside JAX: Gymnasium, in process or in workers.

The same steps with the same randomness in the same order as `loops/learn.iterate`; the tests hold the two equal.
"""

from __future__ import annotations

import functools
import time
from typing import NamedTuple

import jax
import numpy as np

from athlete.core import Agent, Array, Env, Episodes, Rows, Run, Source, Step, Transition, Tree, Which
from athlete.loops.collect import Keys, choose, draw_keys, spec_of
from athlete.loops.compiling import COMPILER_OPTIONS, RUN_ONCE_OPTIONS
from athlete.loops.devices import ONE_DEVICE, Devices, here
from athlete.loops.learn import Report, count, fresh_store, progress_of
from athlete.loops.transport import Packet, fetch, from_packet, to_packet
from athlete.ops.finite import all_finite
from athlete.ops.random import unwrap, wrap
from athlete.spaces import to_environment, zeros


class Plan(NamedTuple):
    """What an iteration needs to know before its first step, all from one compiled call."""

    view: Packet  # of what acts
    progress: Array
    next_key: Array
    learn_key: Array
    act_keys: Array  # uint32 [T, 2]
    step_keys: Array  # uint32 [T, B, 2]
    reset_keys: Array  # uint32 [T, B, 2]


@functools.partial(jax.jit, static_argnames=("length", "rows"), compiler_options=COMPILER_OPTIONS)
def plan(agent: Agent, run_key: Array, state: Tree, timesteps: Array, horizon: Array, length: int, rows: int) -> Plan:
    key, collect_key, learn_key = jax.random.split(wrap(run_key), 3)
    progress = progress_of(timesteps, horizon)
    keys = draw_keys(collect_key, length, rows)
    view = agent.view(state, progress)
    return Plan(to_packet(view), progress, unwrap(key), unwrap(learn_key), *(unwrap(part) for part in keys))


@functools.partial(jax.jit, static_argnames=("explore",), compiler_options=COMPILER_OPTIONS)
def act(agent: Agent, view: Tree, carry: Tree, obs: Tree, first: Array, key: Array, explore: bool) -> tuple:
    """`Agent.act` for rows `[B, ...]`, with the key as data `[2]`."""
    return agent.act(view, carry, obs, first, wrap(key), explore)


@functools.partial(jax.jit, static_argnames=("random",), compiler_options=COMPILER_OPTIONS)
def act_packed(agent: Agent, view: Packet, carry: Tree, inputs: Packet, random: Which) -> tuple[Packet, Tree]:
    """`act`, exploring, for the inner loop: `inputs` are (obs, first, key); gives (action, extras) and the carry."""
    obs, first, key = from_packet(inputs)
    action, carry, extras = choose(agent, from_packet(view), carry, obs, first, wrap(key), random)
    return to_packet((action, extras)), carry


@functools.partial(
    jax.jit, static_argnames=("learning",), donate_argnames=("state", "store"), compiler_options=COMPILER_OPTIONS
)
def learn_from(
    agent: Agent,
    state: Tree,
    store: Tree,
    accumulators: Tree,
    trajectory: Transition,
    key: Array,
    progress: Array,
    learning: Which,
) -> tuple:
    state, *held, metrics = agent.learn(state, store, accumulators, trajectory, wrap(key), progress, learning)
    return state, *held, metrics, all_finite(state)


def beginning(agent: Agent, key: Array, rows: int) -> tuple[Tree, Tree, Tree, Array, Array]:
    """The agent's state, the carry and the accumulators of its rows, the run's key and the key of the first reset."""
    run_key, agent_key, rows_key = jax.random.split(wrap(key), 3)
    state = agent.init(agent_key)
    reset_key, carry_key = jax.random.split(rows_key)
    carry = agent.start(agent.view(state, 0.0), rows, carry_key)
    return state, carry, agent.accumulators(rows), unwrap(run_key), unwrap(reset_key)


begin = jax.jit(beginning, static_argnames=("rows",), compiler_options=RUN_ONCE_OPTIONS)


def host_rows(agent: Agent, obs: Tree, carry: Tree, accumulators: Tree, rows: int) -> Rows:
    """All rows at the start of an episode, as NumPy arrays; the environments' state stays where they live."""
    returns, lengths = np.zeros((rows, *agent.spec.reward_shape), np.float32), np.zeros(rows, np.int32)
    return Rows((), obs, np.ones(rows, bool), carry, returns, lengths, accumulators)


def init_hosted_run(agent: Agent, source: Source, key: Array) -> Run:
    """A training about to begin on a source, its store None yet.

    All else is the same as `init_run` where the source hosts a JAX environment.
    """
    state, carry, accumulators, run_key, reset_key = begin(agent, key, source.rows)
    rows = host_rows(agent, source.reset(np.asarray(reset_key)), carry, accumulators, source.rows)
    counters = np.zeros((), np.int32), np.zeros((), np.uint32)
    return Run(state, None, rows, np.asarray(run_key), *counters)


def hosted_shapes(agent: Agent, rows: int) -> Run:
    """The arrays of a training on `rows` environments outside JAX as `jax.ShapeDtypeStruct`, made without any."""

    def shapes(key: Array) -> Run:
        state, carry, accumulators, run_key, _ = beginning(agent, key, rows)
        at_start = host_rows(agent, zeros(agent.spec.obs, (rows,)), carry, accumulators, rows)
        store = fresh_store(agent, state, at_start)
        return Run(state, store, at_start, run_key, np.zeros((), np.int32), np.zeros((), np.uint32))

    return jax.eval_shape(shapes, jax.ShapeDtypeStruct((2,), np.uint32))


def collect_hosted(
    agent: Agent, source: Source, view: Packet, keys: Keys, rows: Rows, random: Which
) -> tuple[Rows, Transition, Episodes, dict]:
    """One trajectory `[T, B, ...]` in NumPy arrays; also the seconds spent in the environments and in acting.

    `keys` are uint32 data: `[T, 2]` to act with, else `[T, B, 2]`.
    """
    steps: list[tuple[Transition, Episodes]] = []
    seconds = {"env_step": 0.0, "inference": 0.0}
    for t in range(len(keys.act)):
        start = time.perf_counter()
        inputs = to_packet((rows.obs, rows.first, keys.act[t]))
        outputs, carry = act_packed(agent, view, rows.carry, inputs, random)
        action, extras = fetch(outputs)
        acted = time.perf_counter()
        step = source.step(action, keys.step[t])
        transition = Transition(
            rows.obs, rows.first, action, step.reward, step.obs, step.terminated, step.truncated, rows.carry, extras
        )
        done = step.terminated | step.truncated
        ended = done if source.faulty is None else done & ~source.faulty
        episodes = Episodes(ended, rows.episode_return + step.reward, rows.episode_length + 1)
        steps.append((transition, episodes))
        obs = source.reset_where(done, step.obs, keys.reset[t]) if done.any() else step.obs
        running = ~done
        returns = episodes.return_ * running.reshape(-1, *(1 for _ in agent.spec.reward_shape))
        lengths = episodes.length * running
        rows = Rows((), obs, done, carry, returns, lengths, rows.accumulators)
        seconds["inference"] += acted - start
        seconds["env_step"] += time.perf_counter() - acted
    trajectory, episodes = jax.tree.map(lambda *leaves: np.stack(leaves), *steps)
    return rows, trajectory, episodes, seconds


class Collected(NamedTuple):
    """What an iteration learns from, and what it started from."""

    plan: Plan
    rows: Rows
    trajectory: Transition
    episodes: Episodes
    seconds: dict[str, float]


def collect_for(agent: Agent, source: Source, length: int, horizon: Array, run: Run, random: Which) -> Collected:
    """Collect the next `length` steps of every row. `run` stays as it is: this may be broken off and begun anew."""
    planned = plan(agent, run.key, run.state, run.timesteps, horizon, length, source.rows)
    keys = Keys(*(np.asarray(part) for part in (planned.act_keys, planned.step_keys, planned.reset_keys)))
    return Collected(planned, *collect_hosted(agent, source, here(planned.view), keys, run.rows, random))


def learn_of(
    agent: Agent, run: Run, collected: Collected, learning: Which, devices: Devices = ONE_DEVICE
) -> tuple[Run, Report]:
    """Learn from what was collected, or only take it in. `run` is used up: the new one takes its buffers."""
    start, planned = time.perf_counter(), collected.plan
    rows = collected.rows
    trajectory = devices.in_shares(collected.trajectory, axis=1)
    with devices.set():
        state, store, accumulators, metrics, finite = learn_from(
            agent,
            run.state,
            run.store,
            rows.accumulators,
            trajectory,
            planned.learn_key,
            planned.progress,
            learning,
        )
    rows = rows._replace(accumulators=accumulators)
    timesteps = count(run.timesteps, collected.episodes.done.size)
    key, iteration = np.asarray(planned.next_key), run.iteration + np.int32(1)
    run = Run(state, store, rows, key, iteration, timesteps)
    metrics, finite = jax.device_get((metrics, finite))
    collected.seconds["learn"] = time.perf_counter() - start
    return run, Report(metrics, collected.episodes, finite)


class HostedEnv(Source):
    """Rows of a JAX environment stepped from the host, as a Gymnasium environment would be."""

    def __init__(self, env: Env, rows: int, any_thread: bool = False):
        self.env, self.rows, self.spec, self.any_thread = env, rows, spec_of(env), any_thread
        self._state: Tree = ()
        self._reset = jax.jit(lambda key: jax.vmap(env.reset)(jax.random.split(wrap(key), rows)))
        self._reset_rows = jax.jit(lambda keys: jax.vmap(env.reset)(wrap(keys)))
        self._step = jax.jit(
            lambda state, action, keys: jax.vmap(env.step)(state, to_environment(env.action_space, action), wrap(keys))
        )

    def reset(self, key: Array) -> Tree:
        self._state, obs = self._reset(key)
        return jax.device_get(obs)

    def step(self, action: Tree, key: Array) -> Step:
        self._state, step = self._step(self._state, action, key)
        return jax.device_get(step)

    def reset_where(self, done: Array, obs: Tree, key: Array) -> Tree:
        state, fresh = jax.device_get(self._reset_rows(key))

        def pick(new: Array, old: Array) -> Array:
            return np.where(done.reshape(done.shape + (1,) * (new.ndim - 1)), new, np.asarray(old))

        self._state = jax.tree.map(pick, state, self._state)
        return jax.tree.map(pick, fresh, obs)

    def close(self) -> None:
        self._state = ()
