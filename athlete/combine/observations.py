"""A user's function of observations around any agent."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from athlete.combine.wrapper import AgentWrapper
from athlete.core import Agent, Array, Key, Spec, Transition, Tree, hyper
from athlete.spaces import Box, Space, zeros


def space_of(function: Callable[[Tree], Tree], space: Space) -> Box:
    """The space of what `function` makes of an observation of `space`: an unbounded Box of its shape.

    Raises ValueError where it does not give one array of floats, or cannot be traced by JAX.
    """
    made = _made(function, space)
    if not isinstance(made, jax.ShapeDtypeStruct) or not jnp.issubdtype(made.dtype, jnp.floating):
        raise ValueError(
            f"observation_fn: it makes {jax.tree.map(_kind, made)} of an observation, and only of an array of floats "
            "the space is known; give a pair, (function, space)"
        )
    return Box(-np.inf, np.inf, made.shape)


def require_space(function: Callable[[Tree], Tree], space: Space, given: Space) -> None:
    """Raise ValueError where what `function` makes of an observation of `space` is none of the space `given`."""
    made = _made(function, space)
    expected = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, zeros(given)))
    if jax.tree.map(_kind, made) != jax.tree.map(_kind, expected):
        raise ValueError(
            f"observation_fn: it makes {jax.tree.map(_kind, made)} of an observation, and the space given with it, "
            f"{given}, has {jax.tree.map(_kind, expected)}"
        )


def _kind(leaf: Array) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _made(function: Callable[[Tree], Tree], space: Space) -> Tree:
    """Shapes of what `function` makes of an observation."""
    example = jax.tree.map(jnp.asarray, zeros(space))
    try:
        return jax.eval_shape(function, example)
    except Exception as error:
        raise ValueError(
            f"observation_fn: it failed on an observation of {space}: {type(error).__name__}: {error}. It is given one "
            "observation as JAX arrays and must compute with jax.numpy"
        ) from error


@hyper
class Observations(AgentWrapper):
    """The agent sees `function(observation)`, of `space`, wherever it acts and learns.

    Memories, evaluation and `compute_single_action` hold and take the environment's own observations.
    """

    agent: Agent
    function: Callable[[Tree], Tree]
    space: Space
    spec: Spec = None  # type: ignore[assignment]  # the environment's, known once bound

    def bind(self, spec: Spec) -> Observations:
        return dataclasses.replace(self, agent=self.agent.bind(Spec(self.space, spec.action)), spec=spec)

    def act(self, view: Tree, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        return self.agent.act(view, carry, jax.vmap(self.function)(obs), first, key, explore)

    def distribution(self, view: Tree, carry: Tree, obs: Tree, first: Array) -> Any:
        return self.agent.distribution(view, carry, jax.vmap(self.function)(obs), first)

    def seen(self, obs: Tree) -> tuple[Spec, Tree]:
        return self.agent.seen(jax.vmap(self.function)(obs))

    def observe(self, state: Tree, accumulators: Tree, trajectory: Transition) -> tuple[Tree, Tree]:
        return self.agent.observe(state, accumulators, self._changed(trajectory))

    def td_errors(self, view: Tree, trajectory: Transition) -> Array:
        return self.agent.td_errors(view, self._changed(trajectory))

    def update(self, state: Tree, batch: Transition, key: Key, progress: Array) -> tuple:
        return self.agent.update(state, self._changed(batch), key, progress)

    def _changed(self, batch: Transition) -> Transition:
        each = jax.vmap(jax.vmap(self.function))
        return batch._replace(obs=each(batch.obs), next_obs=each(batch.next_obs))
