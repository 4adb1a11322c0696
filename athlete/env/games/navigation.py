"""A point that is to go to a place that it does not see: 2D navigation (Finn et al. 2017, arXiv:1703.03400, 5.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from athlete.core import Array, Env, Key, Step, hyper
from athlete.env.registry import EnvContext, create
from athlete.spaces import Box

NEAR = 0.01  # an episode ends within this distance


class NavigationState(NamedTuple):
    position: Array  # [2]
    steps: Array


@hyper
class Navigation(Env):
    """Move from the origin by at most 0.1 either way a step; the reward is minus the squared distance to the goal.

    The goal is not seen: it is what tasks differ in. An episode ends near it, and is cut after `limit` steps.
    """

    goal_x: float = 0.5
    goal_y: float = 0.5
    limit: int = 100

    @property
    def observation_space(self) -> Box:
        return Box(-10.0, 10.0, (2,))

    @property
    def action_space(self) -> Box:
        return Box(-0.1, 0.1, (2,))

    def reset(self, key: Key) -> tuple[NavigationState, Array]:
        return NavigationState(jnp.zeros(2), jnp.int32(0)), jnp.zeros(2)

    def step(self, state: NavigationState, action: Array, key: Key) -> tuple[NavigationState, Step]:
        position = state.position + jnp.clip(action, -0.1, 0.1)
        square = (position[0] - self.goal_x) ** 2 + (position[1] - self.goal_y) ** 2
        reached = square < NEAR**2
        steps = state.steps + 1
        return NavigationState(position, steps), Step(position, -square, reached, ~reached & (steps >= self.limit), {})


def make_navigation(env_id: str, env_config: Mapping[str, Any] | None = None) -> Env:
    """The environment `"Navigation-v0"`; `env_config` has its fields. Raises ValueError for an entry that is none."""
    return create(Navigation, EnvContext(env_config))
