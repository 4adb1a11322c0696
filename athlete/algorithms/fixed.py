"""Policies that do not learn: uniformly random actions, heuristics of the user's own, and RLlib's of its examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Self

import jax
import jax.numpy as jnp

from athlete.core import Agent, Array, Key, Memory, Spec, Transition, Tree, hyper
from athlete.distributions import Categorical
from athlete.memory.rollout import Rollout
from athlete.ops.masks import action_mask, masked
from athlete.ops.sampling import random_action
from athlete.ops.tree import where
from athlete.spaces import Discrete, to_canonical, zeros


@hyper
class Fixed(Agent):
    """An agent without parameters. Subclasses give `act`, and `start` where they remember: their carry `[B, ...]`.

    Actions are canonical: `athlete.spaces.to_canonical` makes them of what the environment takes.
    """

    memory: Memory = Rollout()
    updates: int = 0
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> Self:
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> Tree:
        return ()

    def view(self, state: Tree, progress: Array) -> Tree:
        return ()

    def update(self, state: Tree, batch: Transition, key: Key, progress: Array) -> tuple[Tree, dict[str, Array]]:
        return state, {}


@hyper
class RandomPolicy(Fixed):
    """Uniformly random actions, among the legal ones where there is a mask."""

    def act(self, view: Tree, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        return random_action(self.spec, obs, first.shape, key), carry, {}

    def distribution(self, view: Tree, carry: Tree, obs: Tree, first: Array) -> Categorical | None:
        if not isinstance(self.spec.action, Discrete):
            return None
        return Categorical(masked(jnp.zeros((*first.shape, self.spec.action.n)), action_mask(self.spec, obs)))


@hyper
class Heuristic(Fixed):
    """What a function `(observations [B, ...], key) -> actions [B, ...]` of JAX says, as the action space has it."""

    function: Callable[[Tree, Key], Tree] = None  # type: ignore[assignment]

    def act(self, view: Tree, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        return to_canonical(self.spec.action, self.function(obs, key)), carry, {}


@hyper
class AlwaysSame(Fixed):
    """In all of an episode the action that was drawn at its start. RLlib's `AlwaysSameHeuristic`."""

    def start(self, view: Tree, rows: int, key: Key) -> Tree:
        return jax.tree.map(jnp.asarray, to_canonical(self.spec.action, zeros(self.spec.action, (rows,))))

    def act(self, view: Tree, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        action = where(first, random_action(self.spec, obs, first.shape, key), carry)
        return action, action, {}
