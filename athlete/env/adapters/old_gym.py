"""Answers of the old Gym API as those of today. Imports no Gymnasium."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from athlete.env.adapters.buffers import MisfitError
from athlete.log import logger

_told: set[str] = set()  # the environments that were already spoken of


def is_reset_result(result: Any) -> bool:
    """Whether `reset` answered in today's form, `(observation, info)`."""
    return isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)


def todays_reset(env: Any, result: Any) -> tuple[Any, Any]:
    """What `reset` of `env` gave as `(observation, info)`: the old API gave the observation alone."""
    if is_reset_result(result):
        return result
    _say_once(env)
    return result, {}


def todays_step(env: Any, result: Any) -> tuple[Any, Any, Any, Any, Any]:
    """What `step` of `env` gave as five values. Of the old API's four, `done` becomes `terminated`, or `truncated`
    where `info["TimeLimit.truncated"]` is true.

    Raises MisfitError for any other number of values.
    """
    count = len(result) if isinstance(result, tuple | list) else None
    if count == 5:
        return tuple(result)  # type: ignore[return-value]
    if count != 4:
        came = f"{count} values" if count is not None else f"a {type(result).__name__}"
        raise MisfitError(f"step returned {came}; expected five: observation, reward, terminated, truncated, info")
    _say_once(env)
    obs, reward, done, info = result
    truncated = bool(done) and bool(info.get("TimeLimit.truncated", False))
    return obs, reward, bool(done) and not truncated, truncated, info


def _say_once(env: Any) -> None:
    name = type(env).__name__
    if name not in _told:
        _told.add(name)
        logger.warning(
            "%s follows the old Gym API; it runs through an adapter: done becomes truncated where "
            "info['TimeLimit.truncated'] is true, else terminated",
            name,
        )
