"""Observations as the vectors that networks take: what each space says about how to read it."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Tree
from athlete.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple


def _one_hot(index: Array, size: int) -> Array:
    return (index[..., None] == jnp.arange(size)).astype(jnp.float32)


def feature_size(space: Space) -> int:
    """How many numbers `features` gives for an observation of `space`."""
    if isinstance(space, Discrete):
        return space.n
    if isinstance(space, MultiDiscrete):
        return sum(space.nvec)
    if isinstance(space, Tuple):
        return sum(feature_size(part) for part in space.spaces)
    if isinstance(space, Dict):
        return sum(feature_size(part) for _, part in space.items)
    return math.prod(space.shape)


def features(space: Space, obs: Tree) -> Array:
    """An observation with leading axes `[T, B]` as float32 vectors `[T, B, feature_size]`.

    Discrete entries become one-hot, uint8 boxes are scaled to [0, 1], others are flattened; Tuple and Dict join
    their parts in order.
    """
    if isinstance(space, Discrete):
        return _one_hot(obs - space.start if space.start else obs, space.n)
    if isinstance(space, MultiDiscrete):
        start = space.start or (0,) * len(space.nvec)
        parts = [_one_hot(obs[..., i] - start[i], size) for i, size in enumerate(space.nvec)]
        return jnp.concatenate(parts, axis=-1)
    if isinstance(space, Tuple):
        return jnp.concatenate([features(part, obs[i]) for i, part in enumerate(space.spaces)], axis=-1)
    if isinstance(space, Dict):
        return jnp.concatenate([features(part, obs[name]) for name, part in space.items], axis=-1)
    if not isinstance(space, Box | MultiBinary):
        raise ValueError(f"observations of {space} cannot be turned into features")
    leading = obs.shape[: obs.ndim - len(space.shape)]
    vector = obs.reshape((*leading, -1)).astype(jnp.float32)
    return vector / 255.0 if space.dtype == np.uint8 else vector


def action_features(space: Space, action: Tree) -> Array:
    """Canonical actions with leading axes `[T, B]` as float32 vectors `[T, B, feature_size]`.

    Discrete entries become one-hot, others are flattened as they are; Tuple and Dict join their parts in order. NumPy
    arrays stay NumPy arrays: environments outside JAX call this in every step.
    """
    if isinstance(space, Tuple):
        parts = [action_features(part, action[i]) for i, part in enumerate(space.spaces)]
    elif isinstance(space, Dict):
        parts = [action_features(part, action[name]) for name, part in space.items]
    elif isinstance(space, MultiDiscrete):
        parts = [(action[..., i, None] == np.arange(n)).astype(np.float32) for i, n in enumerate(space.nvec)]
    elif isinstance(space, Discrete):
        return (action[..., None] == np.arange(space.n)).astype(np.float32)
    else:
        leading = action.shape[: action.ndim - len(space.shape)]
        return action.reshape((*leading, -1)).astype(np.float32)
    array_module = np if all(isinstance(part, np.ndarray) for part in parts) else jnp
    return array_module.concatenate(parts, axis=-1)
