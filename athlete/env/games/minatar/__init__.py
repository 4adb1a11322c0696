"""MinAtar's games (Young & Tian 2019, arXiv:1903.03176) in JAX, transition for transition, and what their ids make."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from athlete.env.registry import EnvContext, create

if TYPE_CHECKING:
    from athlete.core import Env

# Modules, and gymnax's time limits in steps; MinAtar itself has none, but Freeway terminates after 2501.
_GAMES = {
    "Asterix": ("asterix", 1000),
    "Breakout": ("breakout", 1000),
    "Freeway": ("freeway", 2500),
    "SpaceInvaders": ("space_invaders", 1000),
}


def make_minatar(env_id: str, env_config: Mapping[str, Any] | None = None) -> Env:
    """The game of an id with gymnax's time limit; version 1 has the actions that the game uses, version 0 all six.

    Args:
        env_id: one of `athlete.env.registry.MINATAR`, such as `"MinAtar/Breakout-v1"`.
        env_config: the game's fields, and `max_episode_steps` (-1: no limit).

    Raises:
        ValueError: `env_config` has an entry that the game does not have.
    """
    name, _, version = env_id.removeprefix("MinAtar/").rpartition("-v")
    module, limit = _GAMES[name]
    fields = {"minimal_actions": version == "1", **(env_config or {})}
    wanted = fields.pop("max_episode_steps", None)
    limit = limit if wanted is None else wanted
    env = create(getattr(importlib.import_module(f"{__name__}.{module}"), name), EnvContext(fields))
    if limit == -1:
        return env
    from athlete.env.wrappers.time_limit import TimeLimit

    return TimeLimit(env, limit)
