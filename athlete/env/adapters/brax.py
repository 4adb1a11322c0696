"""Environments of the package brax (Freeman et al. 2021, arXiv:2106.13281): `.environment("brax/ant")`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from athlete.core import Env, Key, Step, Tree
from athlete.env.adapters.jax_packages import (
    Adapted,
    Settings,
    form_of,
    import_package,
    make_env,
    misfit,
    require_known,
    space_of_arrays,
)
from athlete.env.wrappers.time_limit import TimeLimit
from athlete.spaces import Box

EPISODE_LENGTH = 1000  # as `brax.envs.create` has it


def make_brax(env_id: str, env_config: Mapping[str, Any] | None = None) -> Env:
    """The environment of an id such as `"brax/ant"`.

    Args:
        env_id: `"brax/"` and brax's name.
        env_config: arguments of its class, such as `backend="spring"`; and `episode_length`, after which episodes are
            truncated, 1000 as in `brax.envs.create`. None sets no limit.

    Raises:
        ValueError: brax is not installed, it has no environment of that name, or the class takes no such argument.
    """
    config = dict(env_config or {})
    limit = config.pop("episode_length", EPISODE_LENGTH)
    env = make_env("brax", env_id, config)
    return env if limit is None else TimeLimit(env, limit)


def adapt(name: str, settings: Settings) -> Adapted:
    """brax ends an episode where it terminates; what truncates is the limit around it."""
    envs = import_package("brax", name, "brax.envs")
    require_known("brax", name, envs._envs)
    try:
        env = envs.get_environment(name, **dict(settings))
    except (TypeError, ValueError) as error:
        raise misfit("brax", name, settings, error) from error
    return Adapted(
        space_of_arrays(form_of(env.reset).obs),
        Box(-1.0, 1.0, (int(env.action_size),)),
        functools.partial(reset, env),
        functools.partial(step, env),
    )


def reset(env: Any, key: Key) -> tuple[Tree, Tree]:
    """Of an environment with brax's interface."""
    state = env.reset(key)
    return state, state.obs


def step(env: Any, state: Any, action: Any, key: Key) -> tuple[Tree, Step]:
    """Of an environment with brax's interface, which has no randomness but that of its state."""
    state = env.step(state, action)
    return state, Step(state.obs, state.reward, state.done > 0, np.False_, {})
