"""Whole episodes as they are played: what a data set is made of."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from athlete.core import Agent, Array, Env, Key, Rows, Source, Transition, Tree
from athlete.distributions import flat_action
from athlete.loops.collect import record_step, reset_rows
from athlete.loops.compiling import COMPILER_OPTIONS
from athlete.ops.random import unwrap, wrap
from athlete.ops.tree import where
from athlete.spaces import to_canonical, to_environment

MOST_ROWS = 64  # episodes side by side where the environment is compiled
CHUNK = 200  # steps of all rows between two looks at who is done
LONGEST_EPISODE = 100_000  # steps; an episode of an environment without a time limit is cut there

# (number of the wave, its rows) -> a function that gives the next CHUNK steps of all rows, `[T, B, ...]` of NumPy
Wave = Callable[[int, int], Callable[[], Transition]]


def play_episodes(wave: Wave, most_rows: int, episodes: int) -> Transition:
    """`episodes` whole episodes one behind the other, `[N, ...]` in NumPy arrays.

    Each is the first one of a row of its own, so that short ones are not favoured. One that does not end is cut.
    """
    kept: list[Transition] = []
    for number, start in enumerate(range(0, episodes, most_rows)):
        rows = min(most_rows, episodes - start)
        steps = wave(number, rows)
        parts: list[Transition] = []
        done = np.zeros((0, rows), bool)
        while not done.any(axis=0).all() and len(done) < LONGEST_EPISODE:
            parts.append(steps())
            done = np.concatenate([done, parts[-1].terminated | parts[-1].truncated])
        whole = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        for row in range(rows):
            length = int(np.argmax(done[:, row])) + 1 if done[:, row].any() else len(done)
            episode = jax.tree.map(lambda leaf, row=row, length=length: leaf[:length, row].copy(), whole)
            episode.truncated[-1] |= not episode.terminated[-1]
            kept.append(episode)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *kept)


def compiled_wave(agent: Agent, env: Env, view: Tree, key: Array, explore: bool) -> Wave:
    """Of a JAX environment."""

    def begin(number: int, rows: int) -> Callable[[], Transition]:
        held: list[Any] = list(_start(agent, env, view, key + np.array([0, number + 1], np.uint32), rows))

        def steps() -> Transition:
            *held[:], trajectory = _steps(agent, env, view, held[0], held[1], explore)
            return jax.device_get(trajectory)

        return steps

    return begin


@functools.partial(jax.jit, static_argnames=("rows",), compiler_options=COMPILER_OPTIONS)
def _start(agent: Agent, env: Env, view: Tree, key: Array, rows: int) -> tuple[Rows, Array]:
    reset_key, play_key = jax.random.split(wrap(key))
    return reset_rows(env, agent, view, rows, reset_key), unwrap(play_key)


@functools.partial(jax.jit, static_argnames=("explore",), compiler_options=COMPILER_OPTIONS)
def _steps(agent: Agent, env: Env, view: Tree, rows: Rows, key: Array, explore: bool) -> tuple:
    env_step, env_reset = jax.vmap(env.step), jax.vmap(env.reset)

    def one_step(held: tuple[Rows, Array], _: None) -> tuple[tuple[Rows, Array], Transition]:
        rows, key = held
        number = rows.first.shape[0]
        act_key, step_key, reset_key, next_key = jax.random.split(wrap(key), 4)
        before = rows
        action, carry, _ = agent.act(view, rows.carry, rows.obs, rows.first, act_key, explore)
        taken = to_environment(env.action_space, action)
        env_state, step = env_step(rows.env_state, taken, jax.random.split(step_key, number))
        rows, transition, episodes = record_step(rows, taken, step, carry, {})
        reset_state, reset_obs = env_reset(jax.random.split(reset_key, number))
        rows = rows._replace(
            env_state=where(episodes.done, reset_state, env_state), obs=where(episodes.done, reset_obs, rows.obs)
        )
        extras = {"log_prob": _log_prob(agent, view, before, taken)} if explore else {}
        return (rows, unwrap(next_key)), transition._replace(carry=(), extras=_known(extras))

    (rows, key), trajectory = jax.lax.scan(one_step, (rows, key), None, length=CHUNK)
    return rows, key, trajectory


def hosted_wave(agent: Agent, source: Source, view: Tree, key: Array, explore: bool) -> Wave:
    """Of environments outside JAX: each wave plays all rows of the source."""

    def begin(number: int, rows: int) -> Callable[[], Transition]:
        generator = np.random.default_rng([*np.asarray(key).tolist(), number])
        draw = functools.partial(generator.integers, 0, 2**32, dtype=np.uint32)
        obs, first = source.reset(draw(size=2)), np.ones(source.rows, bool)
        held: list[Any] = [obs, first, _carry(agent, view, draw(size=2), source.rows)]

        def one_step() -> Transition:
            obs, first, carry = held
            outputs = _act(agent, view, carry, obs, first, draw(size=2), explore)
            action, taken, extras = jax.device_get((outputs[0], outputs[1], outputs[3]))
            step = source.step(action, draw(size=(source.rows, 2)))
            done = step.terminated | step.truncated
            after = source.reset_where(done, step.obs, draw(size=(source.rows, 2))) if done.any() else step.obs
            held[:] = after, done, outputs[2]
            flags = step.terminated, step.truncated
            whole = Transition(obs, first, taken, step.reward, step.obs, *flags, (), extras)
            return jax.tree.map(lambda leaf: np.array(leaf[:rows]), whole)

        def steps() -> Transition:
            return jax.tree.map(lambda *leaves: np.stack(leaves), *[one_step() for _ in range(CHUNK)])

        return steps

    return begin


@functools.partial(jax.jit, static_argnames=("explore",), compiler_options=COMPILER_OPTIONS)
def _act(agent: Agent, view: Tree, carry: Tree, obs: Tree, first: Array, key: Array, explore: bool) -> tuple:
    """The canonical action, the one that the environment takes, the carry after it, and what is known of it."""
    action, after, _ = agent.act(view, carry, obs, first, wrap(key), explore)
    taken = to_environment(agent.spec.action, action)
    rows = Rows((), obs, first, carry, first, first)
    return action, taken, after, _known({"log_prob": _log_prob(agent, view, rows, taken)} if explore else {})


@functools.partial(jax.jit, static_argnames=("rows",))
def _carry(agent: Agent, view: Tree, key: Key, rows: int) -> Tree:
    return agent.start(view, rows, wrap(key))


def _log_prob(agent: Agent, view: Tree, rows: Rows, taken: Tree) -> Array | None:
    """Of the actions `[B, ...]` that the environment took, under what they were drawn from, `[B]`."""
    drawn_from = agent.distribution(view, rows.carry, rows.obs, rows.first)
    if drawn_from is None:
        return None
    return drawn_from.log_prob(flat_action(agent.spec.action, to_canonical(agent.spec.action, taken)))


def _known(extras: dict[str, Array | None]) -> dict[str, Array]:
    return {name: part for name, part in extras.items() if part is not None}
