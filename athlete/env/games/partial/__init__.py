"""Environments whose observations do not tell all that matters: what a policy needs memory for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from athlete.env.registry import EnvContext, create

if TYPE_CHECKING:
    from athlete.core import Env

# Module, class, and the time limit in steps; None where episodes end by themselves.
_ENVIRONMENTS: dict[str, tuple[str, str, int | None]] = {
    "StatelessCartPole-v1": ("stateless_cartpole", "StatelessCartPole", 500),
    "StatelessPendulum-v1": ("stateless_pendulum", "StatelessPendulum", 200),
    "RepeatInitialObs-v0": ("repeat", "RepeatInitialObs", None),
    "RepeatAfterMe-v0": ("repeat", "RepeatAfterMe", None),
    "MemoryChain-v0": ("memory_chain", "MemoryChain", None),
}


def make_partial(env_id: str, env_config: Mapping[str, Any] | None = None) -> Env:
    """The environment of an id, with its time limit if it has one.

    Args:
        env_id: one of `athlete.env.registry.PARTIAL`, such as `"RepeatAfterMe-v0"`.
        env_config: the environment's fields, and `max_episode_steps` (-1: no limit).

    Raises:
        ValueError: `env_config` has an entry that the environment does not have.
    """
    module, name, limit = _ENVIRONMENTS[env_id]
    fields = dict(env_config or {})
    wanted = fields.pop("max_episode_steps", None)
    limit = limit if wanted is None else wanted
    env = create(getattr(importlib.import_module(f"{__name__}.{module}"), name), EnvContext(fields))
    if limit is None or limit == -1:
        return env
    from athlete.env.wrappers.time_limit import TimeLimit

    return TimeLimit(env, limit)
