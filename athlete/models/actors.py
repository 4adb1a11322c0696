"""Networks that act: a deterministic policy over a Box of continuous actions."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Key, Model, Tree
from athlete.spaces import Box, Space


def init_actor(model: Model, key: Key, obs_space: Space, action_space: Box) -> Tree:
    """Parameters of an actor whose first actions are near 0, where tanh is not saturated."""
    return model.init(key, obs_space, {"action": (int(np.prod(action_space.shape)), 0.01)})


def actor_action(model: Model, actor: Tree, obs: Array) -> Array:
    """Flat canonical actions `[B, m]`, squashed into [-1, 1], for features `obs` `[B, n]`."""
    never = jnp.zeros((1, obs.shape[0]), bool)
    _, heads = model.apply(actor, model.start(obs.shape[0]), obs[None], never)
    return jnp.tanh(heads["action"][0])
