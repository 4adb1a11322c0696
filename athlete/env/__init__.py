"""Environments: compiled twins of Gymnasium's, the adapters to Gymnasium itself, checks and the random baseline."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from athlete.env.adapters.multi_agent_env import MultiAgentEnv as MultiAgentEnv
    from athlete.env.adapters.multi_agent_env import make_multi_agent as make_multi_agent

_HOMES = {
    "MultiAgentEnv": "athlete.env.adapters.multi_agent_env",
    "make_multi_agent": "athlete.env.adapters.multi_agent_env",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'athlete.env' has no {name!r}")
