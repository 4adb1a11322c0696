"""Names of results: looking them up, and what to say when there is none of that name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from athlete.record.results import flatten, is_number


class TuneError(Exception):
    """An experiment could not go on, or trials of it failed."""


def lookup(result: Mapping[str, Any], key: str) -> Any:
    """A result's value by its flat key, `info/learner/loss`; None if it is not there."""
    if key in result:
        return result[key]
    head, slash, rest = key.partition("/")
    inner = result.get(head)
    return lookup(inner, rest) if slash and isinstance(inner, Mapping) else None


def nearest(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """The names most like one that was not found: those with the same last part first, then by spelling."""
    names = list(names)
    last = name.rpartition("/")[2]
    same_end = [other for other in names if other.rpartition("/")[2] == last or other.startswith(name + "/")]
    similar = difflib.get_close_matches(name, names, count, 0.5)
    ends = {other.rpartition("/")[2]: other for other in names}
    similar += [ends[end] for end in difflib.get_close_matches(last, ends, count, 0.6)]
    return list(dict.fromkeys(same_end + similar))[:count]


def advice(key: str, result: Mapping[str, Any]) -> str:
    """The end of a sentence that said a key is not among the results: the nearest keys, or all."""
    numbers = [name for name, value in flatten(dict(result)).items() if is_number(value)]
    close = nearest(key, numbers)
    if close:
        return "did you mean " + " or ".join(repr(name) for name in close) + "?"
    return "they have " + ", ".join(numbers)
