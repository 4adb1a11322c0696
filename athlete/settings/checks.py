"""What the values of settings are checked with."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Mapping
from typing import Any

SCHEDULE_FORM = "[[timestep, value], ...] with increasing timesteps"


def is_number(value: Any) -> bool:
    """Whether `value` is a number, infinities included, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def is_count(value: Any) -> bool:
    """Whether `value` is a whole number of at least 0, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_schedule(value: Any) -> bool:
    """Whether `value` is `[[timestep, value], ...]` with finite numbers and timesteps that increase from 0 or later."""
    if not isinstance(value, list | tuple) or not value:
        return False
    for point in value:
        if not (isinstance(point, list | tuple) and len(point) == 2 and all(map(is_number, point))):
            return False
    times = [time for time, _ in value]
    increase = all(earlier < later for earlier, later in itertools.pairwise(times))
    return times[0] >= 0 and increase and all(math.isfinite(number) for point in value for number in point)


def require_known(name: str, settings: Mapping[str, Any], where: str) -> None:
    """Raise ValueError, with the nearest name there is, unless `settings` has `name`."""
    if name not in settings:
        near = difflib.get_close_matches(name, settings, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(settings)}"
        raise ValueError(f"{where}: there is no {name!r}; {hint}")


def require_number(settings: Mapping[str, Any], name: str, where: str) -> None:
    """Raise ValueError unless the setting is a finite number of at least 0."""
    value = settings[name]
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < float("inf"):
        raise ValueError(f"{where}={{{name!r}: {value!r}}}: expected a number of at least 0")


def require_count(settings: Mapping[str, Any], name: str, least: int, where: str) -> None:
    """Raise ValueError unless the setting is a whole number of at least `least`."""
    value = settings[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{where}={{{name!r}: {value!r}}}: expected a whole number of at least {least}")
