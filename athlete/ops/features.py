"""Observations as the vectors that networks take: what each space says about how to read it."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Tree
from athlete.ops.masks import observed, observed_space
from athlete.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, OneOf, Space, Tuple, parts_of


def _one_hot(index: Array, size: int) -> Array:
    return (index[..., None] == jnp.arange(size)).astype(jnp.float32)


def feature_size(space: Space) -> int:
    """How many numbers `features` gives for an observation of `space`."""
    return _size(observed_space(space))


def feature_vector(size: int) -> Box:
    """The space of `size` features, unbounded."""
    return Box(-np.inf, np.inf, (size,))


def images_in(space: Space) -> list[tuple[int, tuple[int, int, int]]]:
    """Where images, Boxes of three axes, begin among the features of `space`, and their shapes, in order."""
    return _images(observed_space(space), 0)


def _images(space: Space, offset: int) -> list[tuple[int, tuple[int, int, int]]]:
    if isinstance(space, Box) and len(space.shape) == 3:
        height, width, channels = space.shape
        return [(offset, (height, width, channels))]
    found = []
    for part in parts_of(space) if isinstance(space, Tuple | Dict) else ():
        found += _images(part, offset)
        offset += _size(part)
    return found


def are_channels_first(shape: tuple[int, ...]) -> bool:
    """Whether an image of `shape` reads as `[channels, height, width]`, as stacks of frames do: `[4, 84, 84]`."""
    return len(shape) == 3 and min(shape[1:]) >= max(16, 2 * shape[0])


def pictures_of_other_axes(space: Space, name: str = "observation") -> list[tuple[str, tuple[int, ...]]]:
    """Boxes of bytes that are as large as pictures but have not three axes: their names and shapes."""
    if isinstance(space, Tuple | Dict):
        named = enumerate(space.spaces) if isinstance(space, Tuple) else space.items
        return [found for key, part in named for found in pictures_of_other_axes(part, f"{name}[{key!r}]")]
    if not isinstance(space, Box) or space.dtype != np.uint8 or len(space.shape) == 3:
        return []
    return [(name, space.shape)] if sum(size >= 16 for size in space.shape) > 1 else []


def _size(space: Space) -> int:
    if isinstance(space, Discrete):
        return space.n
    if isinstance(space, MultiDiscrete):
        return sum(space.sizes)
    if isinstance(space, Tuple | Dict):
        return sum(map(_size, parts_of(space)))
    if isinstance(space, OneOf):
        return len(space.spaces) + sum(map(_size, space.spaces))
    return math.prod(space.shape)


def features(space: Space, obs: Tree) -> Array:
    """An observation with leading axes `[T, B]` as float32 vectors `[T, B, feature_size]`.

    Discrete entries become one-hot, uint8 boxes are scaled to [0, 1], others are flattened; Tuple and Dict join
    their parts in order. A OneOf is the one-hot choice and all its parts, zeros for those not chosen. A mask of actions
    (`ops.masks`) is no feature.

    Raises:
        ValueError: a space that is none of `athlete.spaces`.
    """
    return _features(observed_space(space), observed(space, obs))


def _features(space: Space, obs: Tree) -> Array:
    if isinstance(space, Discrete):
        return _one_hot(obs - space.start if space.start else obs, space.n)
    if isinstance(space, MultiDiscrete):
        index = (obs - space.lowest).reshape((*obs.shape[: obs.ndim - len(space.shape)], -1))
        parts = [_one_hot(index[..., i], size) for i, size in enumerate(space.sizes)]
        return jnp.concatenate(parts, axis=-1)
    if isinstance(space, Tuple):
        return jnp.concatenate([_features(part, obs[i]) for i, part in enumerate(space.spaces)], axis=-1)
    if isinstance(space, Dict):
        return jnp.concatenate([_features(part, obs[name]) for name, part in space.items], axis=-1)
    if isinstance(space, OneOf):
        choice = _one_hot(obs[0], len(space.spaces))
        parts = [_features(part, obs[1 + i]) * choice[..., i, None] for i, part in enumerate(space.spaces)]
        return jnp.concatenate([choice, *parts], axis=-1)
    if not isinstance(space, Box | MultiBinary):
        raise ValueError(f"observations of {space} cannot be turned into features")
    leading = obs.shape[: obs.ndim - len(space.shape)]
    vector = obs.reshape((*leading, -1)).astype(jnp.float32)
    return vector / _largest(space) if space.dtype == np.uint8 else vector


def _largest(space: Space) -> float:
    """The highest value of a uint8 Box: 255 of an image, 1 of flags."""
    assert isinstance(space, Box)
    return max(float(space.high.max(initial=1)), 1.0)


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
        flat = action.reshape((*action.shape[: action.ndim - len(space.shape)], -1))
        parts = [(flat[..., i, None] == np.arange(n)).astype(np.float32) for i, n in enumerate(space.sizes)]
    elif isinstance(space, Discrete):
        return (action[..., None] == np.arange(space.n)).astype(np.float32)
    else:
        leading = action.shape[: action.ndim - len(space.shape)]
        return action.reshape((*leading, -1)).astype(np.float32)
    array_module = np if all(isinstance(part, np.ndarray) for part in parts) else jnp
    return array_module.concatenate(parts, axis=-1)
