"""An agent that shows what combinators around it pass on."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from athlete.core import Agent, Memory, Spec, hyper
from athlete.memory.rollout import Rollout


@hyper
class Witness(Agent):
    """Acts with the observation it is shown, and keeps the batch it is shown as its state."""

    memory: Memory = Rollout()
    updates: int = 1
    spec: Spec | None = None

    def bind(self, spec):
        return dataclasses.replace(self, spec=spec)

    def init(self, key):
        return ()

    def view(self, state, progress):
        return {"acts": jnp.zeros(2)}

    def act(self, view, carry, obs, first, key, explore=True):
        return obs, carry, ()

    def update(self, state, batch, key, progress):
        return batch, {"loss": jnp.float32(7)}
