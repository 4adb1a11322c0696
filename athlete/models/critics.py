"""Several networks of the same form that value actions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Key, Model, Tree
from athlete.models.forward import forward
from athlete.spaces import Box, Discrete, Space, Tuple


def init_critics(
    model: Model, key: Key, obs_space: Space, action_space: Space, number: int, outputs: int = 1
) -> list[Tree]:
    """Parameters of `number` critics, each with one head "q": of `outputs` numbers for an observation with a continuous
    action, or for an observation alone of one value for each of the Discrete actions.

    A list rather than one tree with a leading axis: on a CPU separate products run faster than batched ones.
    """
    if isinstance(action_space, Discrete):
        seen, outputs = obs_space, action_space.n
    else:
        size = int(np.prod(action_space.shape))
        seen = Tuple((obs_space, Box(-np.ones(size, np.float32), np.ones(size, np.float32))))
    keys = jax.random.split(key, number)
    return [model.init(keys[i], seen, {"q": (outputs, 1.0)}) for i in range(number)]


def critic_values(model: Model, critics: list[Tree], obs: Array, action: Array) -> Array:
    """Values `[number, B, outputs]` of features `obs` `[B, n]` and flat canonical actions `[B, m]`."""
    both = jnp.concatenate([obs, action], axis=-1)
    return jnp.stack([forward(model, critic, both)["q"] for critic in critics])
