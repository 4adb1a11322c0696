"""Stepping environments with an agent, compiled into one program. `loops/host.py` takes the same steps outside it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Agent, Array, Env, Episodes, Key, Rows, Spec, Step, Transition, Tree, Which
from athlete.ops.sampling import random_action
from athlete.ops.tree import packed_scan, where
from athlete.spaces import to_environment


class Keys(NamedTuple):
    """The randomness of one trajectory, drawn at once so that both collectors use the same."""

    act: Array  # [T]
    step: Array  # [T, B]
    reset: Array  # [T, B]


def spec_of(env: Env) -> Spec:
    return Spec(env.observation_space, env.action_space, env.groups)


def draw_keys(key: Key, length: int, rows: int) -> Keys:
    act, step, reset = jax.random.split(key, 3)
    return Keys(
        jax.random.split(act, length),
        jax.random.split(step, (length, rows)),
        jax.random.split(reset, (length, rows)),
    )


def reset_rows(env: Env, agent: Agent, view: Tree, rows: int, key: Key) -> Rows:
    """All rows at the start of an episode."""
    reset_key, carry_key = jax.random.split(key)
    env_state, obs = jax.vmap(env.reset)(jax.random.split(reset_key, rows))
    return fresh_rows(agent, env_state, obs, agent.start(view, rows, carry_key), rows)


def fresh_rows(agent: Agent, env_state: Tree, obs: Tree, carry: Tree, rows: int) -> Rows:
    returns, lengths = jnp.zeros((rows, *agent.spec.reward_shape)), jnp.zeros(rows, jnp.int32)
    return Rows(env_state, obs, jnp.ones(rows, bool), carry, returns, lengths, agent.accumulators(rows))


def record_step(rows: Rows, action: Tree, step: Step, carry: Tree, extras: Tree) -> tuple[Rows, Transition, Episodes]:
    """What one step of all rows means, whoever stepped: rows before any reset, the transition, who finished."""
    transition = Transition(
        rows.obs, rows.first, action, step.reward, step.obs, step.terminated, step.truncated, rows.carry, extras
    )
    done = step.terminated | step.truncated
    total = rows.episode_return + step.reward
    length = rows.episode_length + 1
    rows = rows._replace(
        obs=step.obs,
        first=done,
        carry=carry,
        episode_return=jnp.where(done if total.ndim == 1 else done[:, None], 0.0, total),
        episode_length=jnp.where(done, 0, length),
    )
    return rows, transition, Episodes(done, total, length)


def choose(
    agent: Any, view: Tree, carry: Tree, obs: Tree, first: Array, key: Key, random: Which
) -> tuple[Tree, Tree, Tree]:
    """`Agent.act`, exploring; where `random`, actions `[B, ...]` are uniform over their space, or its legal part.

    Nothing is searched or planned then, nor compiled, as nothing that was found is used.
    """
    action, carry, extras = agent.act(view, carry, obs, first, key)
    if isinstance(random, frozenset):  # of some policies of a team
        action = agent.randomized(action, obs, jax.random.fold_in(key, 1), random)
    elif random:
        spec, seen = agent.seen(obs)
        drawn = random_action(spec, seen, first.shape, jax.random.fold_in(key, 1))
        action = jax.tree.map(lambda new, like: new.astype(like.dtype), drawn, action)
        extras = jax.tree.map(jnp.zeros_like, extras) if agent.searches else extras
        carry = jax.tree.map(jnp.zeros_like, carry) if agent.plans else carry
    return action, carry, extras


def collect(
    agent: Agent, env: Env, view: Tree, rows: Rows, key: Key, length: int, random: Which = False
) -> tuple[Rows, Transition, Episodes]:
    """`length` steps of all rows as one scan: rows, trajectory `[T, B, ...]`, ended episodes `[T, B]`.

    Resets are drawn for all steps beforehand: the same number of draws as inside the scan, in one vector operation.
    """
    keys = draw_keys(key, length, rows.first.shape[0])
    resets = jax.vmap(jax.vmap(env.reset))(keys.reset)
    env_step = jax.vmap(env.step)

    def one_step(rows: Rows, inputs):
        act_key, step_keys, (reset_state, reset_obs) = inputs
        action, carry, extras = choose(agent, view, rows.carry, rows.obs, rows.first, act_key, random)
        env_state, step = env_step(rows.env_state, to_environment(env.action_space, action), step_keys)
        rows, transition, episodes = record_step(rows, action, step, carry, extras)
        if env.info_metrics:
            episodes = episodes._replace(info={name: step.info[name].astype(jnp.float32) for name in env.info_metrics})
        rows = rows._replace(
            env_state=where(episodes.done, reset_state, env_state), obs=where(episodes.done, reset_obs, rows.obs)
        )
        return rows, (transition, episodes)

    rows, (trajectory, episodes) = packed_scan(one_step, rows, (keys.act, keys.step, resets))
    return rows, trajectory, episodes
