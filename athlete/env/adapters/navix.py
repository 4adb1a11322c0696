"""Environments of the package Navix (Pignatelli et al. 2024, arXiv:2407.19396): `"navix/Navix-Empty-5x5-v0"`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
from athlete.spaces import Box, Discrete


def make_navix(env_id: str, env_config: Mapping[str, Any] | None = None) -> Env:
    """The environment of an id such as `"navix/Navix-Empty-5x5-v0"`.

    Args:
        env_id: `"navix/"` and Navix's name.
        env_config: arguments of `navix.make`, such as `max_steps`, 100 by default; functions of Navix by their names:
            `observation_fn="rgb"`, `reward_fn`, `termination_fn`.

    Raises:
        ValueError: Navix is not installed, it has no environment of that name, or that takes no such argument.
    """
    return make_env("navix", env_id, env_config)


def adapt(name: str, settings: Settings) -> Adapted:
    """Navix tells truncated from terminated. Its own reset at the step after an end is not used."""
    navix = import_package("navix", name, "navix")
    require_known("navix", name, navix.registry())
    arguments = dict(settings)
    try:
        for argument in ("observation_fn", "reward_fn", "termination_fn"):
            if isinstance(arguments.get(argument), str):
                module = getattr(navix, f"{argument.removesuffix('_fn')}s")
                arguments[argument] = getattr(module, arguments[argument])
        env = navix.make(name, **arguments)
    except (AttributeError, TypeError) as error:
        raise misfit("navix", name, settings, error) from error
    cache = None if "rgb" in env.observation_fn.__name__ else _no_cache()

    def reset(key: Key) -> tuple[Tree, Tree]:
        timestep = env.reset(key, cache)
        return timestep, timestep.observation

    def step(timestep: Any, action: Array, key: Key) -> tuple[Tree, Step]:
        timestep = env._step(timestep, action)
        ended = timestep.is_termination(), timestep.is_truncation()
        return timestep, Step(timestep.observation, timestep.reward, *ended, {})

    shape, dtype = tuple(env.observation_space.shape), np.float32 if cache is not None else np.uint8
    # Navix's own spaces end below some of its codes of objects, which are bytes all the same.
    return Adapted(Box(0, 255, shape, dtype), Discrete(int(env.action_space.n)), reset, step)


def _no_cache() -> Any:
    """Instead of a picture of the walls in every state, which only pictures need."""
    from navix.rendering.cache import RenderingCache

    return RenderingCache(jnp.zeros((), jnp.uint8))
