"""Contextual bandits: episodes of one step, whose `info["regret"]` is what the best arm would have paid more."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from athlete.env.registry import EnvContext, create

if TYPE_CHECKING:
    from athlete.core import Env

_ENVIRONMENTS = {
    "LinearBandit-v0": ("linear", "LinearBandit"),
    "ItemBandit-v0": ("linear", "ItemBandit"),
    "WheelBandit-v0": ("wheel", "WheelBandit"),
    "ContextualBandit-v0": ("contextual", "ContextualBandit"),
}


def make_bandit(env_id: str, env_config: Mapping[str, Any] | None = None) -> Env:
    """The environment of an id, such as `"LinearBandit-v0"`; `env_config` has its fields.

    Raises ValueError for an entry that is none.
    """
    module, name = _ENVIRONMENTS[env_id]
    return create(getattr(importlib.import_module(f"{__name__}.{module}"), name), EnvContext(env_config))
