"""Networks that are tables over numbered states: what the tests of algorithms work out by hand."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Model, Spec, Transition, hyper
from athlete.ops.features import feature_size
from athlete.ops.random import wrap
from athlete.ops.values import batched_index
from athlete.spaces import Box, Discrete

QUICK = {"xla_backend_optimization_level": 0}  # tiny programs: compiling is all they cost
KEY = wrap(np.array([0, 1], np.uint32))
STATES = 3
SPEC = Spec(Box(0, 1, (STATES,)), Discrete(2))


@hyper
class Table(Model):
    """Each head is a table: rows for the entries of the input, so those of one-hot observations are the outputs."""

    def init(self, key, obs_space, heads):
        return {name: jnp.zeros((feature_size(obs_space), outputs)) for name, (outputs, _) in heads.items()}

    def apply(self, params, carry, obs, first):
        return (), {name: obs @ table for name, table in params.items()}


def steps_since_first(carry, first):
    """For models whose carry counts: the steps since `first` `[T, B]`, this one included; `carry` `[B]` before them."""

    def step(count, first_t):
        count = jnp.where(first_t, 0.0, count) + 1.0
        return count, count

    return jax.lax.scan(step, carry, first)[1]


def transitions(
    state: Any,
    action: Any,
    reward: Any,
    next_state: Any,
    terminated: Any = False,
    truncated: Any = False,
    weight: Any = None,
) -> Transition:
    """A batch `[T, B, ...]` of numbered states; one step where lists are flat. A row of a window is a column."""
    state, action, next_state = (np.atleast_2d(part) for part in (state, action, next_state))
    reward = np.atleast_2d(np.asarray(reward, np.float32))
    flags = [np.broadcast_to(np.atleast_2d(flag), reward.shape) for flag in (terminated, truncated)]
    one_hot = np.eye(STATES, dtype=np.float32)
    extras = {} if weight is None else {"weight": np.asarray(weight, np.float32)[None]}
    first = np.zeros(reward.shape, bool)
    action = action.astype(np.int32)
    return Transition(one_hot[state], first, action, reward, one_hot[next_state], *flags, (), extras)


def window(**columns: Any) -> Transition:
    """`transitions` of one row that goes through several steps."""
    return transitions(**{name: np.asarray(column)[:, None] for name, column in columns.items()})


def tables(**heads: Any) -> dict[str, Any]:
    """Parameters of a `Table` from nested lists `[states, actions, ...]`."""
    return {name: jnp.asarray(table, jnp.float32).reshape(STATES, -1) for name, table in heads.items()}


@functools.partial(jax.jit, compiler_options=QUICK)
def target(agent, state, batch):
    """What the values of the actions taken should have been, `[B]`: they less the TD errors of an update."""
    values = batched_index(agent._values(state.params, batch.obs[0]), batch.action[0])
    return values - agent.update(state, batch, KEY, 0.0)[1]["td_error"]


@functools.partial(jax.jit, compiler_options=QUICK)
def update(agent, state, batch, key=KEY, progress=0.0):
    return agent.update(state, batch, key, progress)


@functools.partial(jax.jit, static_argnames="explore", compiler_options=QUICK)
def act(agent, state, obs, key=KEY, explore=True, progress=0.0):
    """Actions `[B]` for one-hot `obs` `[B, states]`."""
    view = agent.view(state, progress)
    carry = agent.start(view, obs.shape[0], key)
    return agent.act(view, carry, obs, jnp.ones(obs.shape[0], bool), key, explore)[0]


def observe(*states: int) -> np.ndarray:
    return np.eye(STATES, dtype=np.float32)[list(states)]
