"""Names of results: looking them up, and what to say when there is none of that name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from athlete.record.results import flatten, is_number

# How RLlib's later versions call the results that stops and criteria are about.
_RESULTS = {
    "episode_return_mean": "episode_reward_mean",
    "episode_return_min": "episode_reward_min",
    "episode_return_max": "episode_reward_max",
    "num_env_steps_sampled_lifetime": "timesteps_total",
}


class TuneError(Exception):
    """An experiment could not go on, or trials of it failed."""


def lookup(result: Mapping[str, Any], key: str) -> Any:
    """A result's value by its flat key, `info/learner/loss`, or by what RLlib calls it; None if it is not there."""
    found = _by_path(result, key)
    return _by_path(result, result_name(key)) if found is None else found


def _by_path(result: Mapping[str, Any], key: str) -> Any:
    if key in result:
        return result[key]
    head, slash, rest = key.partition("/")
    inner = result.get(head)
    return _by_path(inner, rest) if slash and isinstance(inner, Mapping) else None


def result_name(key: str) -> str:
    """What a result of any of RLlib's versions is called here."""
    parts = [part for part in key.split("/") if part not in ("sampler_results", "env_runners")]
    return "/".join([*parts[:-1], _RESULTS.get(parts[-1], parts[-1])]) if parts else key


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
