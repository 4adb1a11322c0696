"""Networks that act: a deterministic policy over a Box of continuous actions."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Key, Model, Tree
from athlete.models.forward import forward
from athlete.spaces import Box, Space


def init_actor(model: Model, key: Key, obs_space: Space, action_space: Box) -> Tree:
    """Parameters of an actor whose first actions are near 0, where tanh is not saturated."""
    return model.init(key, obs_space, {"action": (int(np.prod(action_space.shape)), 0.01)})


def actor_action(model: Model, actor: Tree, obs: Array) -> Array:
    """Flat canonical actions `[B, m]`, squashed into [-1, 1], for features `obs` `[B, n]`."""
    return jnp.tanh(forward(model, actor, obs)["action"])
