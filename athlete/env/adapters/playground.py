"""Environments of MuJoCo Playground (Zakka et al. 2025, arXiv:2502.08844): `"playground/CartpoleBalance"`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from athlete.core import Env
from athlete.env.adapters.brax import reset, step
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


def make_playground(env_id: str, env_config: Mapping[str, Any] | None = None) -> Env:
    """The environment of an id such as `"playground/CartpoleBalance"`.

    Args:
        env_id: `"playground/"` and Playground's name.
        env_config: entries of its configuration, such as `ctrl_dt` or `reward_config.scales.energy`; `episode_length`
            among them truncates episodes, None sets no limit.

    Raises:
        ValueError: Playground is not installed, it has no environment of that name, or its configuration no such entry.
    """
    name = env_id.removeprefix("playground/")
    registry = _registry(name)
    config = dict(env_config or {})
    limit = config.pop("episode_length", registry.get_default_config(name).get("episode_length", None))
    env = make_env("playground", env_id, config)
    return env if limit is None else TimeLimit(env, int(limit))


def _registry(name: str) -> Any:
    registry = import_package("playground", name, "mujoco_playground").registry
    require_known("playground", name, registry.ALL_ENVS)
    return registry


def adapt(name: str, settings: Settings) -> Adapted:
    """Playground ends an episode where it terminates; what truncates is the limit around it."""
    try:
        env = _registry(name).load(name, config_overrides=dict(settings))
    except (KeyError, TypeError, AttributeError) as error:
        raise misfit("playground", name, settings, f"{error}") from error
    return Adapted(
        space_of_arrays(form_of(env.reset).obs),
        Box(-1.0, 1.0, (int(env.action_size),)),
        functools.partial(reset, env),
        functools.partial(step, env),
    )
