"""A small environment of two groups of agents that always act, with all that joint methods meet."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Group, Key, MultiEnv, MultiStep, Tree, hyper
from athlete.spaces import Box, Dict, Discrete, MultiBinary, Space


class TogetherState(NamedTuple):
    place: Array  # float32 [3]
    steps: Array


@hyper
class Together(MultiEnv):
    """Two walkers and a guide move a point each; all are paid for being near 0, and more the nearer they are.

    Walkers see the state of the whole and, of discrete actions, which are legal; the guide sees the point alone. An
    episode ends where a point is far from 0, and is cut after `limit` steps.
    """

    limit: int = 7
    continuous: bool = False
    told: bool = True  # the state and the mask

    always_acting = True

    @property
    def groups(self) -> dict[str, Group]:
        action: Space = Box(-2.0, 2.0, (1,)) if self.continuous else Discrete(3)
        obs: Space = Box(-np.inf, np.inf, (2,))
        if self.told:
            parts = {"obs": obs, "state": Box(-np.inf, np.inf, (3,))}
            obs = Dict(parts if self.continuous else parts | {"action_mask": MultiBinary((3,))})
        guided: Space = Box(-1.0, 1.0, (2,)) if self.continuous else Discrete(2)
        return {"walker": Group(2, obs, action), "guide": Group(1, Box(-np.inf, np.inf, (3,)), guided)}

    def reset(self, key: Key) -> tuple[TogetherState, Tree, Tree]:
        state = TogetherState(jax.random.uniform(key, (3,), minval=-1.0, maxval=1.0), jnp.int32(0))
        return state, self._obs(state), ()

    def step(self, state: TogetherState, action: Tree, key: Key) -> tuple[TogetherState, MultiStep]:
        if self.continuous:
            push = jnp.concatenate([action["walker"][:, 0], action["guide"][:, 0]])
        else:
            push = jnp.concatenate([action["walker"] - 1.0, 2.0 * action["guide"] - 1.0])
        place = state.place + 0.3 * push + 0.1 * jax.random.normal(key, (3,))
        state = TogetherState(place, state.steps + 1)
        far = jnp.any(jnp.abs(place) > 1.5)
        reward = {"walker": 1.0 - jnp.abs(place[:2]), "guide": 1.0 - jnp.abs(place[2:])}
        return state, MultiStep(self._obs(state), reward, far, ~far & (state.steps >= self.limit))

    def _obs(self, state: TogetherState) -> Tree:
        own = jnp.stack([state.place[:2], jnp.full(2, state.place[2])], axis=1)
        walker: Any = own
        if self.told:
            walker = {"obs": own, "state": jnp.broadcast_to(state.place, (2, 3))}
            if not self.continuous:
                low, high = state.place[:2] < -1.0, state.place[:2] > 1.0
                walker["action_mask"] = jnp.stack([~low, jnp.ones(2, bool), ~high], axis=1).astype(jnp.int8)
        return {"walker": walker, "guide": state.place[None]}
