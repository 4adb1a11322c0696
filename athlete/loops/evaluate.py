"""The one evaluation: whole episodes with a policy that does not change, repeatable from its key."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Agent, Array, Env, Key, Rows, Source, Tree
from athlete.log import logger
from athlete.loops.collect import record_step, reset_rows
from athlete.loops.compiling import COMPILER_OPTIONS
from athlete.loops.episodes import Told, WatchedSource, told_of
from athlete.loops.host import act
from athlete.ops.random import unwrap, wrap
from athlete.ops.tree import where
from athlete.spaces import to_environment

MOST_ROWS = 128  # episodes side by side where the environment is compiled
STEPS_A_CALL = 1000  # compiled steps between two looks at the keyboard
LONG_EPISODE = 10_000  # steps after which a line says that it goes on
LONGEST_EPISODE = 100_000  # steps; an episode of an environment without a time limit counts as it stands then


class Evaluation(NamedTuple):
    """Finished episodes in the order in which they were seeded: `[episodes]` each."""

    returns: np.ndarray  # undiscounted sums of rewards; `[episodes, agents]` of many
    lengths: np.ndarray  # steps
    told: tuple[Told, ...] = ()  # what hooks and entries of info left of these episodes, in the order of their ends
    carry: Tree = ()  # of the agent, leaves `[episodes, ...]`, after the last step of the wave; where it was asked for


class _Play(NamedTuple):
    rows: Rows
    finished: Array  # [B]
    returns: Array
    lengths: Array
    key: Array
    steps: Array
    info: dict[str, Array]  # [B] of each of `Env.info_metrics`, as an episode's last step told it


@functools.partial(jax.jit, static_argnames=("rows",), compiler_options=COMPILER_OPTIONS)
def _start(agent: Agent, env: Env, view: Tree, key: Array, rows: int) -> _Play:
    reset_key, play_key = jax.random.split(wrap(key))
    none, zeros = jnp.zeros(rows, bool), jnp.zeros(rows)
    returns = jnp.zeros((rows, *agent.spec.reward_shape))
    first = reset_rows(env, agent, view, rows, reset_key)
    info = dict.fromkeys(env.info_metrics, zeros)
    return _Play(first, none, returns, jnp.zeros(rows, jnp.int32), unwrap(play_key), jnp.zeros((), jnp.int32), info)


@functools.partial(jax.jit, static_argnames=("explore",), compiler_options=COMPILER_OPTIONS)
def _continue(agent: Agent, env: Env, view: Tree, play: _Play, explore: bool) -> _Play:
    """Step until every row has finished its episode, or STEPS_A_CALL times."""
    env_step = jax.vmap(env.step)
    limit = play.steps + STEPS_A_CALL

    def one_step(play: _Play) -> _Play:
        act_key, step_key, next_key = jax.random.split(wrap(play.key), 3)
        rows = play.rows
        action, carry, extras = agent.act(view, rows.carry, rows.obs, rows.first, act_key, explore)
        step_keys = jax.random.split(step_key, rows.first.shape[0])
        env_state, step = env_step(rows.env_state, to_environment(env.action_space, action), step_keys)
        rows, _, episodes = record_step(rows, action, step, carry, extras)
        rows = rows._replace(env_state=where(play.finished, play.rows.env_state, env_state))
        ends = episodes.done & ~play.finished
        return _Play(
            rows,
            play.finished | episodes.done,
            where(ends, episodes.return_, play.returns),
            jnp.where(ends, episodes.length, play.lengths),
            unwrap(next_key),
            play.steps + 1,
            {name: jnp.where(ends, step.info[name].astype(jnp.float32), last) for name, last in play.info.items()},
        )

    return jax.lax.while_loop(lambda play: ~play.finished.all() & (play.steps < limit), one_step, play)


def evaluate_compiled(agent: Agent, env: Env, view: Tree, key: Array, episodes: int, explore: bool) -> Evaluation:
    """`episodes` episodes on a JAX environment, each in a row of its own, so that short ones are not favoured."""
    starts = range(0, episodes, MOST_ROWS)
    return joined_evaluation(
        [play_compiled(agent, env, view, key, start, min(MOST_ROWS, episodes - start), explore) for start in starts]
    )


def play_compiled(
    agent: Agent,
    env: Env,
    view: Tree,
    key: Array,
    start: int,
    episodes: int,
    explore: bool,
    with_carry: bool = False,
) -> Evaluation:
    """Of the evaluation of `key` the wave that begins with the episode `start`: `episodes` side by side."""
    play = _start(agent, env, view, _nth(key, start), episodes)
    while not np.asarray(play.finished).all() and (steps := int(play.steps)) < LONGEST_EPISODE:
        if steps == LONG_EPISODE:
            _tell_of_long(np.asarray(play.finished))
        play = _continue(agent, env, view, play, explore)
    finished = np.asarray(play.finished)
    warn_of_cut(~finished)
    whole = finished if play.returns.ndim == 1 else finished[:, None]
    returns = np.where(whole, play.returns, play.rows.episode_return)
    lengths = np.where(finished, play.lengths, play.rows.episode_length)
    told = told_of({n: np.asarray(v)[finished] for n, v in play.info.items()})
    return Evaluation(returns, lengths, told, play.rows.carry if with_carry else ())


def evaluate_hosted(agent: Agent, source: Source, view: Tree, key: Array, episodes: int, explore: bool) -> Evaluation:
    """`episodes` episodes on a source, a wave of rows at a time; a row that is done waits for the others."""
    starts = range(0, episodes, source.rows)
    return joined_evaluation(
        [play_hosted(agent, source, view, key, start, min(source.rows, episodes - start), explore) for start in starts]
    )


def play_hosted(
    agent: Agent,
    source: Source,
    view: Tree,
    key: Array,
    start: int,
    episodes: int,
    explore: bool,
    with_carry: bool = False,
) -> Evaluation:
    """Of the evaluation of `key` the wave that begins with the episode `start`: the first `episodes` rows, those of
    them that are here.
    """
    here = np.ones(source.rows, bool) if source.here is None else source.here
    returns, lengths, carry = _play_wave(agent, source, view, _nth(key, start), explore, ~here)
    told = source.take() if isinstance(source, WatchedSource) else ()
    counts = here & (np.arange(source.rows) < episodes)
    return Evaluation(
        returns[counts],
        lengths[counts],
        tuple(part for part in told if counts[part.row]),
        jax.tree.map(lambda leaf: np.asarray(leaf)[counts], carry) if with_carry else (),
    )


def _play_wave(
    agent: Agent, source: Source, view: Tree, key: Array, explore: bool, elsewhere: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Tree]:
    """One episode in every row but those `elsewhere` `[B]`: returns, lengths and the carry after the last step."""
    rows = source.rows
    carry_key, reset_key = _keys(key, 0, 1)[:2]
    obs, carry = source.reset(reset_key[0]), _carry(agent, view, carry_key, rows)
    first, finished = np.ones(rows, bool), elsewhere.copy()
    returns, lengths = np.zeros((rows, *agent.spec.reward_shape), np.float32), np.zeros(rows, np.int32)
    step_number = 0
    while not finished.all() and step_number < LONGEST_EPISODE:
        if step_number == LONG_EPISODE:
            _tell_of_long(finished)
        act_key, step_keys, reset_keys = _keys(key, step_number + 1, rows)
        action, carry, _ = act(agent, view, carry, obs, first, act_key, explore=explore)
        step = source.step(jax.device_get(action), step_keys)
        returns += np.where(finished if returns.ndim == 1 else finished[:, None], 0.0, step.reward)
        lengths += ~finished
        first = step.terminated | step.truncated
        if source.faulty is not None:  # played again
            again = source.faulty & ~finished
            returns[again], lengths[again] = 0.0, 0
            finished |= first & ~again
        else:
            finished |= first
        waits = first & ~finished.all()
        obs = source.reset_where(first, step.obs, reset_keys) if waits.any() else step.obs
        step_number += 1
    warn_of_cut(~finished)
    return returns, lengths, carry


def _tell_of_long(finished: np.ndarray) -> None:
    logger.warning(
        "%d of %d evaluation episodes have not ended in %d steps; they are cut after %d. If they never end, give "
        "the environment a limit: env_config={'max_episode_steps': ...} for an id, gymnasium.wrappers.TimeLimit for a "
        "class",
        (~finished).sum(),
        len(finished),
        LONG_EPISODE,
        LONGEST_EPISODE,
    )


def warn_of_cut(cut: np.ndarray) -> None:
    """Say how many of these episodes `[B]` were cut, if any."""
    if cut.any():
        logger.warning(
            "%d of %d evaluation episodes were cut after %d steps: the environment has no time limit that ends them",
            cut.sum(),
            len(cut),
            LONGEST_EPISODE,
        )


@functools.partial(jax.jit, static_argnames=("rows",))
def _carry(agent: Agent, view: Tree, key: Array, rows: int) -> Tree:
    return agent.start(view, rows, wrap(key))


def _nth(key: Key, number: int) -> np.ndarray:
    """A key's data for the part that begins at `number`: another one for each, without a compiled call."""
    return np.random.SeedSequence([*np.asarray(key).tolist(), number]).generate_state(2)


def _keys(key: Key, number: int, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys' data for step `number`: of the policy `[2]`, of the rows' steps and of their resets, `[rows, 2]` each."""
    data = np.random.SeedSequence([*np.asarray(key).tolist(), number]).generate_state(2 + 4 * rows).reshape(-1, 2)
    return data[0], data[1 : 1 + rows], data[1 + rows :]


def joined_evaluation(parts: Sequence[Evaluation]) -> Evaluation:
    """The episodes of all parts, one after the other."""
    if len(parts) == 1:
        return parts[0]
    returns, lengths, told, carries = zip(*parts, strict=True)
    carry = jax.tree.map(lambda *leaves: np.concatenate(leaves), *carries)
    return Evaluation(np.concatenate(returns), np.concatenate(lengths), sum(told, ()), carry)
