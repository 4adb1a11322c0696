"""Uniformly random elements of spaces, inside a compiled program."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Key, Spec, Tree
from athlete.ops.masks import action_mask, random_legal
from athlete.ops.tree import where
from athlete.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, OneOf, Space, Tuple, to_canonical


def random_action(spec: Spec, obs: Tree, shape: tuple[int, ...], key: Key) -> Tree:
    """Canonical actions `[*shape, ...]`, uniform over what is legal at `obs` `[*shape, ...]`, to each agent of many."""
    if spec.groups:
        return {
            name: random_action(
                Spec(group.obs, group.action), obs["obs"][name], (*shape, group.size), jax.random.fold_in(key, i)
            )
            for i, (name, group) in enumerate(spec.groups)
        }
    mask = action_mask(spec, obs)
    if mask is None:
        return to_canonical(spec.action, sample(spec.action, key, shape))
    return random_legal(spec, mask, key)


def sample(space: Space, key: Key, shape: tuple[int, ...] = ()) -> Any:
    """Random elements of a space, each leaf `[*shape, *space.shape]` in the space's dtype, as Gymnasium samples them.

    Box entries are uniform between two finite bounds, exponential away from a single one and standard normal where
    there is none; integer Boxes, Discrete, MultiDiscrete and MultiBinary are uniform over their values.

    Raises:
        TypeError: not a space of `athlete.spaces`.
    """
    match space:
        case Tuple():
            keys = jax.random.split(key, max(len(space.spaces), 1))
            return tuple(sample(part, keys[i], shape) for i, part in enumerate(space.spaces))
        case Dict():
            keys = jax.random.split(key, max(len(space.items), 1))
            return {name: sample(part, keys[i], shape) for i, (name, part) in enumerate(space.items)}
        case OneOf():
            choice_key, parts_key = jax.random.split(key)
            choice = _integers(choice_key, shape, len(space.spaces), 0)
            parts = enumerate(sample(Tuple(space.spaces), parts_key, shape))
            return choice, *(where(choice == i, part, jax.tree.map(jnp.zeros_like, part)) for i, part in parts)
        case Discrete():
            return _integers(key, shape, space.n, space.start).astype(space.dtype)
        case MultiDiscrete():
            count = np.array(space.nvec, np.uint32)
            return _integers(key, shape + space.shape, count, space.lowest).astype(space.dtype)
        case MultiBinary():
            return _integers(key, shape + space.shape, 2, 0).astype(space.dtype)
        case Box():
            return _sample_box(space, key, shape + space.shape).astype(jax.dtypes.canonicalize_dtype(space.dtype))
    raise TypeError(f"sample({space!r}, ...): expected a space of athlete.spaces, got {type(space).__name__}")


def _integers(key: Key, shape: tuple[int, ...], count: Any, start: Any) -> Array:
    """`start + (0 ... count - 1)`. The remainder of 32 bits favours none by more than `count / 2**32`."""
    bits = jax.random.bits(key, shape, jnp.uint32)
    return (bits % jnp.asarray(count, jnp.uint32)).astype(jnp.int32) + start


def _sample_box(space: Box, key: Key, shape: tuple[int, ...]) -> Array:
    if space.dtype.kind in "iub":
        # In wrapping 32-bit arithmetic, so that the whole range of int32 or uint32 has room; 0 stands for 2**32 values.
        low, high = space.low.astype(np.int64), space.high.astype(np.int64)
        count = (high - low + 1).astype(np.uint32)
        bits = jax.random.bits(key, shape, jnp.uint32)
        return jnp.where(count == 0, bits, bits % np.maximum(count, 1)) + low.astype(np.uint32)
    below, above = np.isfinite(space.low), np.isfinite(space.high)
    largest = np.finfo(np.float32).max
    floor = np.where(below, space.low, 0).clip(-largest, largest).astype(np.float32)
    ceiling = np.where(above, space.high, 0).clip(-largest, largest).astype(np.float32)
    uniform = jax.random.uniform(key, shape)
    inside = floor * (1 - uniform) + ceiling * uniform
    if space.bounded.all():
        return inside
    tail = -jnp.log1p(-uniform)
    outside = jnp.where(below, floor + tail, jnp.where(above, ceiling - tail, jax.random.normal(key, shape)))
    return jnp.where(space.bounded, inside, outside)
