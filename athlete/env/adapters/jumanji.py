"""Environments of the package Jumanji (Bonnet et al. 2024, arXiv:2306.09884): `.environment("jumanji/Snake-v1")`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Env, Key, Step, Tree
from athlete.env.adapters.jax_packages import (
    Adapted,
    Settings,
    import_package,
    make_env,
    misfit,
    require_known,
)
from athlete.spaces import ACTION_MASK, Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, has_mask

MOST_CATEGORIES = 256  # observed counts of more values, such as steps, are a number and not one-hot


class Actions(NamedTuple):
    """The space of actions, and how one of them is Jumanji's."""

    space: Space
    theirs: Callable[[Array], Array]


def make_jumanji(env_id: str, env_config: Mapping[str, Any] | None = None) -> Env:
    """The environment of an id such as `"jumanji/Snake-v1"`.

    Where Jumanji says which actions are legal, observations have it in `"action_mask"`. Where it says so of every
    combination of a few choices, an action is the number of a combination.

    Args:
        env_id: `"jumanji/"` and Jumanji's name.
        env_config: arguments of its class, such as `time_limit`.

    Raises:
        ValueError: Jumanji is not installed, it has no environment of that name, or the class takes no such argument.
    """
    return make_env("jumanji", env_id, env_config)


def adapt(name: str, settings: Settings) -> Adapted:
    """An episode that ends with a discount above 0 is truncated, else terminated, as Jumanji has it.

    Rewards of many agents are summed, and the highest of their discounts counts, as by its `MultiToSingleWrapper`.
    """
    jumanji = import_package("jumanji", name, "jumanji")
    require_known("jumanji", name, jumanji.registered_environments())
    try:
        env = jumanji.make(name, **dict(settings))
    except TypeError as error:
        raise misfit("jumanji", name, settings, error) from error
    obs_space = _space(env.observation_spec)
    actions = _actions(env.action_spec, None)
    if isinstance(obs_space, Dict) and has_mask(obs_space):
        entries = dict(obs_space.items)
        actions = _actions(env.action_spec, entries[ACTION_MASK].shape)
        obs_space = Dict({**entries, ACTION_MASK: MultiBinary((math.prod(entries[ACTION_MASK].shape),))})

    def reset(key: Key) -> tuple[Tree, Tree]:
        state, timestep = env.reset(key)
        return state, timestep.observation

    def step(state: Tree, action: Array, key: Key) -> tuple[Tree, Step]:
        state, timestep = env.step(state, actions.theirs(action))
        goes_on = jnp.max(timestep.discount) > 0
        ended = timestep.last()
        return state, Step(timestep.observation, jnp.sum(timestep.reward), ended & ~goes_on, ended & goes_on, {})

    return Adapted(obs_space, actions.space, reset, step)


def _actions(spec: Any, mask_shape: tuple[int, ...] | None) -> Actions:
    dtype = np.dtype(spec.dtype)
    if not spec.shape:
        return Actions(Discrete(int(spec.num_values)), lambda action: jnp.asarray(action, dtype))
    if not np.issubdtype(dtype, np.integer):
        return Actions(_space(spec), lambda action: action)
    low, high = (np.broadcast_to(np.asarray(bound), spec.shape) for bound in (spec.minimum, spec.maximum))
    sizes = tuple(int(size) for size in (high - low + 1).ravel())
    if mask_shape == sizes:
        return Actions(
            Discrete(math.prod(sizes)),
            lambda action: jnp.stack(jnp.unravel_index(action, sizes)).astype(dtype) + jnp.asarray(low, dtype),
        )
    return Actions(MultiDiscrete(sizes), lambda action: jnp.asarray(action, dtype).reshape(spec.shape) + low)


def _space(spec: Any) -> Space:
    if getattr(spec, "_specs", None):
        return Dict({name: _space(part) for name, part in spec._specs.items()})
    if hasattr(spec, "num_values") and not spec.shape and int(spec.num_values) <= MOST_CATEGORIES:
        return Discrete(int(spec.num_values))
    dtype = np.dtype(spec.dtype)
    if dtype == np.bool_:
        return Box(0.0, 1.0, spec.shape)
    low, high = getattr(spec, "minimum", -np.inf), getattr(spec, "maximum", np.inf)
    return Box(np.asarray(low), np.asarray(high), spec.shape, dtype if dtype == np.uint8 else np.float32)
