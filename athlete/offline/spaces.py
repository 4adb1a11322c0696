"""Spaces that are given for data which do not tell them, as JSON that goes into every file of settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from athlete.env.adapters.conversion import to_space
from athlete.record.errors import DamagedError
from athlete.record.space_json import space_from_json, space_to_json
from athlete.spaces import Space


def is_space(value: Any) -> bool:
    """Whether `value` is a space of Gymnasium or ours, or what `kept_space` makes of one."""
    try:
        kept_space(value)
    except (ValueError, TypeError, DamagedError):
        return False
    return True


def kept_space(value: Any) -> dict[str, Any]:
    """A space, or its JSON, as JSON."""
    return space_to_json(space_from_json(value) if isinstance(value, Mapping) else to_space(value))


def space_of(kept: Mapping[str, Any] | None) -> Space | None:
    """The space that `kept_space` keeps; None where there is none."""
    return None if kept is None else space_from_json(kept)
