"""Whether a value lies in a space, and if not, where and why; and random elements of a space. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from athlete.spaces import (
    ACTION_MASK,
    Box,
    Dict,
    Discrete,
    MultiBinary,
    MultiDiscrete,
    OneOf,
    Space,
    Tuple,
    by_entry,
)


def violation(space: Space, value: Any, name: str) -> str:
    """What is wrong with `value` as an element of `space`, as a sentence about `name`; empty if nothing is.

    The entry is named by its path, `observation['arm'][2]`, with its value and the bound it breaks. A dtype may be
    narrower than the space's (float32 in float64), not wider. NaN and infinity are wrong even where no bound is.
    """
    if isinstance(space, Tuple):
        return _tuple_violation(space, value, name)
    if isinstance(space, Dict):
        return _dict_violation(space, value, name)
    if isinstance(space, OneOf):
        return _one_of_violation(space, value, name)
    is_number = isinstance(value, int | float) and space.shape == ()
    if not is_number and not hasattr(value, "dtype"):
        return f"{name} is {_told(value)}; expected {_expected(space)}"
    array = np.asarray(value)
    if array.shape != space.shape:
        return f"{name} has shape {array.shape}; expected {_expected(space)}"
    if isinstance(space, Box):
        if not is_number and not np.can_cast(array.dtype, space.dtype):
            return f"{name} has dtype {array.dtype}; expected {_expected(space)}"
        return range_violation(array, space.low, space.high, name)
    if array.dtype.kind not in ("iub" if isinstance(space, MultiBinary) else "iu"):
        came = f"is {_told(value)}" if is_number else f"has dtype {array.dtype}"
        return f"{name} {came}; expected {_expected(space)}"
    low, high = _integer_range(space)
    return range_violation(array, low, high, name)


def sample(space: Space, generator: np.random.Generator) -> Any:
    """A random element: uniform where bounded, normal where not. Integers come as NumPy scalars and arrays."""
    if isinstance(space, Tuple):
        return tuple(sample(part, generator) for part in space.spaces)
    if isinstance(space, Dict):
        return {name: sample(part, generator) for name, part in space.items}
    if isinstance(space, OneOf):
        choice = generator.integers(len(space.spaces))
        return choice, sample(space.spaces[choice], generator)
    if not isinstance(space, Box):
        low, high = _integer_range(space)
        return generator.integers(low, high, size=space.shape or None, endpoint=True)
    if space.dtype.kind in "iub":
        low, high = space.low.astype(np.int64), space.high.astype(np.int64)
        return generator.integers(low, high, endpoint=True).astype(space.dtype)
    low, high = (np.asarray(bound, np.float64) for bound in (space.low, space.high))
    free = generator.normal(size=space.shape)
    with np.errstate(invalid="ignore", over="ignore"):
        inside = low + generator.uniform(size=space.shape) * (high - low)
    drawn = np.where(np.isfinite(inside), inside, free.clip(low, high))
    return drawn.astype(space.dtype).clip(space.low, space.high)


def sample_legal(space: Space, mask: np.ndarray | None, generator: np.random.Generator) -> Any:
    """A random action among those that `mask` `[sum(n)]` allows, or any where there is no mask.

    Raises ValueError where the mask allows none.
    """
    if mask is None or not isinstance(space, Discrete | MultiDiscrete):
        return sample(space, generator)
    legal = by_entry(space, mask)
    if not all(part.any() for part in legal):
        raise ValueError(
            f"the observation's {ACTION_MASK!r} leaves no legal action: {mask.astype(np.int8)}. End the episode where "
            "nothing can be done (terminated=True)"
        )
    drawn = np.array([generator.choice(np.flatnonzero(part)) for part in legal]).reshape(space.shape)
    return drawn[()] + _integer_range(space)[0]


def first_difference(one: Any, other: Any, name: str) -> tuple[str, Any, Any] | None:
    """The path of the first entry at which two elements differ by more than rounding, and both values; or None."""
    if isinstance(one, Mapping | tuple | list):
        keys = list(one) if isinstance(one, Mapping) else range(len(one))
        found = (first_difference(one[key], other[key], f"{name}[{key!r}]") for key in keys)
        return next(filter(None, found), None)
    before, after = np.asarray(one), np.asarray(other)
    if before.shape != after.shape:
        return name, before.shape, after.shape
    if before.dtype.kind == after.dtype.kind == "f":  # physics may round otherwise from one episode to the next
        unlike = ~np.isclose(before, after, rtol=1e-5, atol=1e-6, equal_nan=True)
    else:
        unlike = np.asarray(before != after)
    if not unlike.any():
        return None
    where = tuple(np.argwhere(unlike)[0].tolist())
    return name + "".join(f"[{i}]" for i in where), before[where].item(), after[where].item()


def _tuple_violation(space: Tuple, value: Any, name: str) -> str:
    if not isinstance(value, tuple | list):
        return f"{name} is {_told(value)}; expected a tuple of {len(space.spaces)} entries"
    if len(value) != len(space.spaces):
        return f"{name} is a tuple of {len(value)} entries; expected {len(space.spaces)}"
    wrong = (violation(part, value[i], f"{name}[{i}]") for i, part in enumerate(space.spaces))
    return next(filter(None, wrong), "")


def _dict_violation(space: Dict, value: Any, name: str) -> str:
    names = [key for key, _ in space.items]
    if not isinstance(value, Mapping):
        return f"{name} is {_told(value)}; expected a dict with the keys {names}"
    if set(value) != set(names):
        return f"{name} has the keys {sorted(map(str, value))}; expected {names}"
    wrong = (violation(part, value[key], f"{name}[{key!r}]") for key, part in space.items)
    return next(filter(None, wrong), "")


def _one_of_violation(space: OneOf, value: Any, name: str) -> str:
    fixed = 1 + len(space.spaces)  # the length of the form that JAX environments give
    if not isinstance(value, tuple | list) or len(value) not in (2, fixed):
        return f"{name} is {_told(value)}; expected a tuple of the number of the chosen space and its element"
    if wrong := violation(Discrete(len(space.spaces)), value[0], f"{name}[0]"):
        return wrong
    choice = int(value[0])
    place = 1 if len(value) == 2 else 1 + choice
    return violation(space.spaces[choice], value[place], f"{name}[{place}]")


def range_violation(array: np.ndarray, low: Any, high: Any, name: str) -> str:
    """What is wrong with numbers that must be finite and within `low` and `high`, as `violation` says it."""
    finite = np.isfinite(array) if array.dtype.kind == "f" else np.ones(array.shape, bool)
    wrong = ~finite | (array < low) | (array > high)
    if not wrong.any():
        return ""
    where = tuple(int(i) for i in np.argwhere(wrong)[0])
    entry = name + "".join(f"[{i}]" for i in where)
    value = array[where].item()
    if not finite[where]:
        return f"{entry} is {value}; expected a finite number"
    bottom, top = (np.broadcast_to(bound, array.shape)[where].item() for bound in (low, high))
    if value < bottom:
        return f"{entry} is {value}, below its lowest value {bottom}"
    return f"{entry} is {value}, above its highest value {top}"


def _integer_range(space: Space) -> tuple[Any, Any]:
    """The lowest and the highest value of an integer space, both included."""
    if isinstance(space, Discrete):
        return space.start, space.start + space.n - 1
    if isinstance(space, MultiDiscrete):
        return space.lowest, space.lowest + np.array(space.nvec) - 1
    if isinstance(space, MultiBinary):
        return 0, 1
    raise TypeError(f"{space!r} is no integer space")


def _expected(space: Space) -> str:
    if isinstance(space, Discrete):
        return f"an integer from {space.start} to {space.start + space.n - 1}"
    if isinstance(space, Box):
        return f"a NumPy array of shape {space.shape} and dtype {space.dtype}"
    return f"a NumPy array of integers of shape {space.shape}"


def _told(value: Any) -> str:
    if value is None:
        return "None"
    text = repr(value)
    return f"{text} ({type(value).__name__})" if len(text) < 60 else f"a {type(value).__name__}"
