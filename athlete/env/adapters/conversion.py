"""Gymnasium's spaces read as ours.

By the names of their classes, so that old Gym's spaces are read too and neither package is imported.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from athlete.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, OneOf, Space, Tuple, nested_tuples

_SHAPED = ("Box", "Discrete", "MultiDiscrete", "MultiBinary", "Tuple", "Dict", "OneOf")
_NARROW = {"float64": "float32", "int64": "int32", "uint64": "uint32"}


def to_space(space: Any, name: str = "space", exact: bool = False) -> Space:
    """A Gymnasium (or old Gym) space as a space of `athlete.spaces`; one of ours comes back as it is.

    Numbers of 64 bits become numbers of 32, in which the library computes, unless `exact`.

    Raises:
        ValueError: names the entry (`name['camera'][0]`) that is no space, has impossible bounds, or is of a kind
            that agents cannot serve: Text, Graph, Sequence.
    """
    if isinstance(space, Space):
        return space
    kind = _kind(space)
    if kind is None:
        raise ValueError(f"{name} is {space!r} ({type(space).__name__}); expected a space of gymnasium.spaces")
    if kind == "Tuple":
        parts = tuple(to_space(part, f"{name}[{i}]", exact) for i, part in enumerate(space.spaces))
        return Tuple(_not_empty(parts, name))
    if kind == "OneOf":
        return OneOf(tuple(to_space(part, f"{name}[{i}]", exact) for i, part in enumerate(space.spaces)))
    if kind == "Dict":
        odd = [key for key in space.spaces if not isinstance(key, str)]
        if odd:
            raise ValueError(f"{name} is a Dict with the key {odd[0]!r}; keys must be strings")
        entries = {key: to_space(part, f"{name}[{key!r}]", exact) for key, part in space.spaces.items()}
        return Dict(_not_empty(entries, name))
    if kind == "Box":
        return _box(space, name, exact)
    if kind == "Discrete":
        return _discrete(space, name)
    if kind == "MultiDiscrete":
        return _multi_discrete(space, name)
    if kind == "MultiBinary":
        return MultiBinary(tuple(int(size) for size in space.shape))
    raise ValueError(
        f"{name} is a {kind} space, which has no fixed shape; agents take Box, Discrete, MultiDiscrete, MultiBinary, "
        f"Tuple, Dict and OneOf: put what is needed of it into one of these with a wrapper "
        "(gymnasium.ObservationWrapper); training leaves out such an entry of a Dict observation that has others"
    )


def has_fixed_shape(space: Any) -> bool:
    """Whether `to_space` knows the kind of a space as one of numbers, whatever its entries are."""
    return _kind(space) in _SHAPED


def _kind(space: Any) -> str | None:
    """The kind of space that an object is or inherits from, else the name of its class; None for what is no space."""
    ancestry = [ancestor.__name__ for ancestor in type(space).__mro__]
    if "Space" not in ancestry:
        return None
    return next((ancestor for ancestor in ancestry if ancestor in _SHAPED), ancestry[0])


def _not_empty(parts: Any, name: str) -> Any:
    if not parts:
        raise ValueError(f"{name} is empty; a Tuple or Dict space needs at least one entry")
    return parts


def _box(space: Any, name: str, exact: bool) -> Box:
    low, high, dtype = np.asarray(space.low), np.asarray(space.high), np.dtype(space.dtype)
    wrong = np.isnan(low) | np.isnan(high) | (low > high) if dtype.kind == "f" else low > high
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        entry = f"{name}{list(where)}" if where else name
        raise ValueError(f"{entry} is bounded by low={low[where]} and high={high[where]}; low must not exceed high")
    if not exact and dtype.name in _NARROW:
        dtype = np.dtype(_NARROW[dtype.name])
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            low, high = low.clip(limits.min, limits.max), high.clip(limits.min, limits.max)
    with np.errstate(over="ignore"):  # a bound beyond float32 is no bound: it becomes infinite
        return Box(low, high, tuple(space.shape), dtype)


def _discrete(space: Any, name: str) -> Discrete:
    if int(space.n) < 1:
        raise ValueError(f"{name} is Discrete with n={space.n}; it needs at least one value")
    return Discrete(int(space.n), int(getattr(space, "start", 0)))  # old Gym's counts from 0 and has no start


def _multi_discrete(space: Any, name: str) -> MultiDiscrete:
    nvec = np.asarray(space.nvec)
    if (nvec < 1).any():
        raise ValueError(f"{name} is MultiDiscrete with nvec={nvec.tolist()}; each entry needs at least one value")
    start = np.asarray(getattr(space, "start", np.zeros_like(nvec)))
    return MultiDiscrete(nested_tuples(nvec), nested_tuples(start) if start.any() else None)
