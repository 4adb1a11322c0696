"""Environments with goals, in the form of Gymnasium-Robotics: a reward tells only whether the goal is reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from athlete.env.registry import EnvContext, create

if TYPE_CHECKING:
    from athlete.core import Env


def make_goal_env(env_id: str, env_config: Mapping[str, Any] | None = None) -> Env:
    """The environment of `"BitFlip-v0"` or `"GoalPendulum-v0"`, with its time limit.

    `env_config` has its fields, and `max_episode_steps` (-1: no limit). Raises ValueError for an entry that is none.
    """
    from athlete.env.games.goals.bit_flip import BitFlip
    from athlete.env.games.goals.goal_pendulum import GoalPendulum
    from athlete.env.wrappers.time_limit import TimeLimit

    fields = dict(env_config or {})
    wanted = fields.pop("max_episode_steps", None)
    env = create(BitFlip if env_id == "BitFlip-v0" else GoalPendulum, EnvContext(fields))
    limit = (env.bits if isinstance(env, BitFlip) else 200) if wanted is None else wanted
    return env if limit == -1 else TimeLimit(env, limit)
