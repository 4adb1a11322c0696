"""Spaces of `athlete.spaces` as JSON, exactly, and back: what a checkpoint says of observations and actions."""

from __future__ import annotations

import math
import reprlib
from typing import Any

import numpy as np

from athlete.core import Group
from athlete.record.errors import DamagedError
from athlete.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, OneOf, Space, Tuple, nested_tuples

LARGEST_SPACE = 100_000_000  # numbers in one entry
LARGEST_NUMBER = 2**31 - 1
DEEPEST_SPACE = 32  # Tuples, Dicts and OneOfs within one another
DTYPES = frozenset(("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"))
DTYPES |= {"float16", "bfloat16", "float32", "float64"}


MOST_AGENTS = 10_000  # of all groups


def groups_to_json(groups: tuple[tuple[str, Group], ...]) -> list[dict[str, Any]]:
    """Groups of agents as JSON: see `core.Spec.groups`."""
    return [
        {"name": name, "size": size, "observation_space": space_to_json(obs), "action_space": space_to_json(action)}
        for name, (size, obs, action) in groups
    ]


def groups_from_json(entries: Any) -> tuple[tuple[str, Group], ...]:
    """The inverse of `groups_to_json`. Raises DamagedError, with what it is, for anything else."""
    found = []
    for entry in entries if isinstance(entries, list) else [entries]:
        size = entry.get("size") if isinstance(entry, dict) else None
        if type(size) is not int or not 0 < size <= MOST_AGENTS or not isinstance(entry.get("name"), str):
            raise DamagedError(f"the checkpoint is damaged: {reprlib.repr(entry)} is no group of agents")
        obs, action = (space_from_json(entry.get(name)) for name in ("observation_space", "action_space"))
        found.append((entry["name"], Group(size, obs, action)))
    if (agents := sum(group.size for _, group in found)) > MOST_AGENTS:
        raise DamagedError(f"the checkpoint is damaged: groups of {agents:,} agents, more than {MOST_AGENTS:,}")
    return tuple(found)


def space_to_json(space: Space) -> dict[str, Any]:
    """A space of `athlete.spaces` as JSON, exactly: bounds in full precision, infinities as "inf" and "-inf".

    Raises TypeError for any other object.
    """
    kind = {"type": type(space).__name__}
    if isinstance(space, Box):
        bounds = {"low": _bounds_to_json(space.low), "high": _bounds_to_json(space.high)}
        return kind | {"shape": list(space.shape), "dtype": space.dtype.name} | bounds
    if isinstance(space, Discrete):
        return kind | {"n": int(space.n), "start": int(space.start)}
    if isinstance(space, MultiDiscrete):
        start = None if space.start is None else space.lowest.tolist()
        return kind | {"nvec": np.asarray(space.nvec).tolist(), "start": start}
    if isinstance(space, MultiBinary):
        return kind | {"size": [int(value) for value in space.size]}
    if isinstance(space, Tuple | OneOf):
        return kind | {"spaces": [space_to_json(part) for part in space.spaces]}
    if isinstance(space, Dict):
        return kind | {"items": {name: space_to_json(part) for name, part in space.items}}
    raise TypeError(f"{type(space).__name__} is not a space of athlete.spaces")


def space_from_json(form: Any) -> Space:
    """The space that `space_to_json` described.

    Raises DamagedError if `form` describes none, or one too large to be meant: of more than 100 million numbers in
    an entry, or nested deeper than 32.
    """
    try:
        return _space_from_json(form, DEEPEST_SPACE)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DamagedError(f"this describes no space: {reprlib.repr(form)} ({error})") from error


def _space_from_json(form: Any, depth: int) -> Space:
    if depth == 0:
        raise ValueError(f"nested deeper than {DEEPEST_SPACE}")
    kind = form["type"]
    if kind == "Box":
        return _box(form)
    if kind == "Discrete":
        _require(1 <= _whole(form["n"]) <= LARGEST_NUMBER and abs(_whole(form["start"])) <= LARGEST_NUMBER, "n, start")
        return Discrete(form["n"], form["start"])
    if kind == "MultiDiscrete":
        nvec = np.array(_wholes(form["nvec"]), np.int64)
        start = None if form["start"] is None else np.array(_wholes(form["start"]), np.int64)
        _require(bool((nvec >= 1).all()) and (start is None or start.shape == nvec.shape), "nvec, start")
        return MultiDiscrete(nested_tuples(nvec), None if start is None else nested_tuples(start))
    if kind == "MultiBinary":
        return MultiBinary(_shape(form["size"]))
    if kind in ("Tuple", "OneOf"):
        parts = tuple(_space_from_json(part, depth - 1) for part in form["spaces"])
        return Tuple(parts) if kind == "Tuple" else OneOf(parts)
    if kind == "Dict":
        return Dict({name: _space_from_json(part, depth - 1) for name, part in form["items"].items()})
    raise ValueError(f"type {kind!r}")


def _box(form: Any) -> Box:
    _require(form["dtype"] in DTYPES, "dtype")
    shape, dtype = _shape(form["shape"]), np.dtype(form["dtype"])
    low, high = (_bounds_from_json(form[bound], shape, dtype) for bound in ("low", "high"))
    _require(bool(np.all(low <= high)), "low, high")  # False for NaN too
    return Box(low, high, shape, dtype)


def _require(is_right: bool, what: str) -> None:
    if not is_right:
        raise ValueError(what)


def _whole(value: Any) -> int:
    _require(isinstance(value, int) and not isinstance(value, bool), f"{value!r} is no whole number")
    return value


def _wholes(values: Any) -> Any:
    """Nested lists of whole numbers that fit into 32 bits."""
    if isinstance(values, list):
        return [_wholes(value) for value in values]
    _require(abs(_whole(values)) <= LARGEST_NUMBER, f"{values} is too large")
    return values


def _shape(values: Any) -> tuple[int, ...]:
    sizes = tuple(_whole(value) for value in values)
    _require(
        all(size >= 0 for size in sizes) and math.prod(sizes) <= LARGEST_SPACE, f"{sizes} is no shape, or too large"
    )
    return sizes


def _bounds_to_json(bounds: np.ndarray) -> Any:
    """One number where all bounds are the same, else the list of all in C order."""
    values = [value if np.isfinite(value) else str(value) for value in bounds.ravel().tolist()]
    uniform = bool(values) and bounds.tobytes() == bounds.ravel()[:1].tobytes() * bounds.size
    return values[0] if uniform else values


def _bounds_from_json(form: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    values = form if isinstance(form, list) else [form]
    array = np.array([float(value) if isinstance(value, str) else value for value in values], dtype)
    return array.reshape(shape) if isinstance(form, list) else array[0]
