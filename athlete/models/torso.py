"""What networks of other libraries have in common here: a torso of theirs, linear heads of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from athlete.core import Array, Key, Model, Tree
from athlete.models.cnn import image_of
from athlete.models.dense import Layer, dense, init_layers
from athlete.ops.features import are_channels_first, images_in
from athlete.ops.tree import where
from athlete.spaces import Box, Space


def standard_key(key: Key) -> Key:
    """A key of JAX's standard kind, which libraries expect, drawn from one of Athlete's."""
    return jax.random.key(jax.random.bits(key, (), jnp.uint32))


def seeing_images(torso: Callable[..., Any], obs_space: Space | None) -> Callable[..., Any]:
    """`torso` of rows `[N, inputs]`, which gets `[N, height, width, channels]` where observations are one image."""
    if not isinstance(obs_space, Box) or not images_in(obs_space):
        return torso
    first = are_channels_first(obs_space.shape)
    height, width, channels = (*obs_space.shape[1:], obs_space.shape[0]) if first else obs_space.shape

    def see(*carry_and_rows: Any) -> Any:
        *carry, rows = carry_and_rows
        return torso(*carry, image_of(rows, (height, width, channels), 0, first))

    return see


def init_heads(
    key: Key, model: Model, torso: Callable[..., Any], inputs: int, heads: dict[str, tuple[int, float]]
) -> dict[str, Tree]:
    """The parameters of a linear layer for each head, as wide as what `torso` gives for rows `[N, inputs]`."""
    carry, row = model.start(1), jnp.zeros((1, inputs))
    given = jax.eval_shape(torso, row) if not jax.tree.leaves(carry) else jax.eval_shape(torso, carry, row)[1]
    layers = [Layer(given.shape[-1], outputs, scale) for outputs, scale in heads.values()]
    return dict(zip(heads, init_layers(key, layers), strict=True))


def apply_torso(
    model: Model, torso: Callable[..., Any], heads: dict[str, Tree], carry: Tree, obs: Array, first: Array
) -> tuple[Tree, dict[str, Array]]:
    """`Model.apply` of a torso that maps rows `[N, inputs]` to `[N, outputs]`, with memory `(carry, x)` to both.

    The carry is `model.start(rows)` again where `first` `[T, B]`; a model that starts with none has no memory.
    """
    start = model.start(first.shape[1])

    def step(carry: Tree, inputs: tuple[Array, Array]) -> tuple[Tree, tuple[Tree, Array]]:
        obs_t, first_t = inputs
        carry, x = torso(where(first_t, start, carry), obs_t)
        return carry, (carry, x)

    if jax.tree.leaves(start):
        _, (carries, x) = jax.lax.scan(step, carry, (obs, first))
    else:
        carries, x = (), torso(obs.reshape(-1, obs.shape[-1])).reshape(*obs.shape[:-1], -1)
    return carries, {name: dense(head, x) for name, head in heads.items()}
