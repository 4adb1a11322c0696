"""Environments of the package Craftax (Matthews et al. 2024, arXiv:2402.16801): `"craftax/Craftax-Symbolic-v1"`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

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

NAMES = [f"Craftax-{world}{shown}-v1" for world in ("", "Classic-") for shown in ("Symbolic", "Pixels")]


def make_craftax(env_id: str, env_config: Mapping[str, Any] | None = None) -> Env:
    """The environment of an id such as `"craftax/Craftax-Symbolic-v1"`.

    Args:
        env_id: `"craftax/"` and Craftax's name.
        env_config: fields of its parameters, such as `max_timesteps`.

    Raises:
        ValueError: Craftax is not installed, it has no environment of that name, or there is no such parameter.
    """
    return make_env("craftax", env_id, env_config)


def adapt(name: str, settings: Settings) -> Adapted:
    """Craftax gives one flag for all ends. Those that are none without the count of steps are truncations."""
    craftax = import_package("craftax", name, "craftax.craftax_env")
    require_known("craftax", name, NAMES)
    env = craftax.make_craftax_env_from_name(name, auto_reset=False)
    try:
        params = env.default_params.replace(**dict(settings))
    except TypeError as error:
        raise misfit("craftax", name, settings, f"its parameters are {', '.join(vars(env.default_params))}") from error

    def reset(key: Key) -> tuple[Tree, Tree]:
        obs, state = env.reset_env(key, params)
        return state, obs

    def step(state: Any, action: Array, key: Key) -> tuple[Tree, Step]:
        obs, state, reward, _, _ = env.step_env(key, state, action, params)
        terminated = env.is_terminal(state.replace(timestep=jnp.zeros_like(state.timestep)), params)
        return state, Step(obs, reward, terminated, state.timestep >= params.max_timesteps, {})

    space = env.observation_space(params)
    return Adapted(Box(0.0, 1.0, tuple(space.shape)), Discrete(int(env.action_space(params).n)), reset, step)
