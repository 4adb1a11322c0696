"""What observations and actions look like: a small hashable vocabulary, so that agents are static about it.

Gymnasium's spaces are converted at the border (`athlete.env.adapters.conversion.to_space`); JAX environments use these
directly.
Agents give actions in *canonical* form: a bounded `Box` as numbers in [-1, 1], whole numbers counted from 0.
`to_environment` and `to_canonical` translate; they work on NumPy and JAX arrays alike.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

import numpy as np

ACTION_MASK = "action_mask"  # the entry of a Dict observation that says which actions are legal; see `ops.masks`
SIMULATOR_STATE = "simulator_state"  # the entry that shows a search the state, and that networks do not see


class Space:
    """Base of all spaces. A space is immutable, hashable and equal to another that describes the same set."""

    @property
    def shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    @property
    def dtype(self) -> np.dtype:
        raise NotImplementedError


class Affine(NamedTuple):
    """Canonical to actual actions: `(canonical * scale + offset)`, then clipped to `low` and `high`; float32 arrays."""

    scale: np.ndarray
    offset: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Box(Space):
    """Arrays of `shape` and `dtype` within `low` and `high` (scalars or arrays; infinite where unbounded)."""

    def __init__(self, low: Any, high: Any, shape: tuple[int, ...] | None = None, dtype: Any = np.float32):
        if shape is None:
            shape = np.broadcast_shapes(np.shape(low), np.shape(high))
        self._shape = tuple(int(size) for size in shape)
        self._dtype = np.dtype(dtype)
        self.low = np.broadcast_to(np.asarray(low, self._dtype), self._shape)
        self.high = np.broadcast_to(np.asarray(high, self._dtype), self._shape)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def dtype(self) -> np.dtype:
        return self._dtype

    @property
    def is_integer(self) -> bool:
        return self._dtype.kind in "iub"

    @property
    def bounded(self) -> np.ndarray:
        """Where both bounds are finite, `[*shape]` bool."""
        if self.is_integer:
            return np.ones(self._shape, bool)
        return np.isfinite(self.low) & np.isfinite(self.high)

    @functools.cached_property
    def affine(self) -> Affine | None:
        """How canonical actions are rescaled and clipped; None where the space has no bounds at all."""
        largest = np.finfo(np.float32).max
        # Bounds beyond float32 are how environments write "unbounded" in the largest number of a dtype.
        low, high = (np.clip(bound, -largest, largest).astype(np.float32) for bound in (self.low, self.high))
        if (low == -largest).all() and (high == largest).all():
            return None
        half = high * np.float32(0.5) - low * np.float32(0.5)
        rescaled = self.bounded & (half > 0) & (half < 0.5 * largest)
        scale = np.where(rescaled, half, 1).astype(np.float32)
        # Agents act around 0: where that is outside of a bound on one side, it stands for the bound.
        nearest = np.clip(np.float32(0), low, high)
        offset = np.where(rescaled, high * np.float32(0.5) + low * np.float32(0.5), nearest).astype(np.float32)
        return Affine(scale, offset, low, high)

    def _identity(self) -> tuple:
        return self._shape, self._dtype.str, self.low.tobytes(), self.high.tobytes()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Box) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        if self.low.size and (self.low == self.low.flat[0]).all() and (self.high == self.high.flat[0]).all():
            return f"Box({self.low.flat[0]}, {self.high.flat[0]}, {self._shape}, {self._dtype})"
        return f"Box({self.low.tolist()}, {self.high.tolist()}, {self._shape}, {self._dtype})"


@dataclass(frozen=True)
class Discrete(Space):
    """The integers `start, ..., start + n - 1`."""

    n: int
    start: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int32)


@dataclass(frozen=True)
class MultiDiscrete(Space):
    """Arrays of integers; entry i counts from `start[i]` (0 unless given) and has `nvec[i]` values.

    Both are tuples, of tuples where there is more than one axis: `MultiDiscrete(((2, 3), (4, 5)))` has shape [2, 2].
    """

    nvec: tuple[Any, ...]
    start: tuple[Any, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return np.shape(self.nvec)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many values each entry has, flat."""
        return tuple(np.ravel(self.nvec).tolist())

    @property
    def lowest(self) -> np.ndarray:
        """What each entry counts from, int32 in the space's shape."""
        return np.zeros(self.shape, np.int32) if self.start is None else np.asarray(self.start, np.int32)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int32)


@dataclass(frozen=True)
class MultiBinary(Space):
    """Arrays of zeros and ones, of shape `size`."""

    size: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.size

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int8)


@dataclass(frozen=True)
class Tuple(Space):
    """A tuple of spaces; its elements are tuples of arrays."""

    spaces: tuple[Space, ...]


@dataclass(frozen=True, init=False)
class Dict(Space):
    """A dictionary of spaces, kept sorted by name; its elements are dictionaries of arrays."""

    items: tuple[tuple[str, Space], ...]

    def __init__(self, spaces: Mapping[str, Space] | tuple[tuple[str, Space], ...]):
        pairs = spaces.items() if isinstance(spaces, Mapping) else spaces
        object.__setattr__(self, "items", tuple(sorted(pairs)))


@dataclass(frozen=True)
class OneOf(Space):
    """One of several spaces at a time.

    Its elements have a fixed form here: a tuple of the number of the chosen space (int32) and an element of each space,
    zeros for those not chosen. Gymnasium's are `(number, element)`; `fixed_form` translates.
    """

    spaces: tuple[Space, ...]


# Kinds of action spaces -> how a sentence calls them. What an algorithm serves is a tuple of these.
ACTION_KINDS: dict[str, str] = {
    "discrete": "Discrete action spaces",
    "continuous": "Box action spaces of floats with finite bounds",
    "other": "other action spaces",
}


# What algorithms may say that they serve: of slates (`algorithms/slateq.py`) observations tell that they are some.
SERVED = {**ACTION_KINDS, "slates": "slates of documents, a MultiDiscrete"}


def action_kind(space: Space) -> str:
    """Which of ACTION_KINDS an action space is: "discrete", "continuous" (a Box of floats, all bounded) or "other".

    Slates (`algorithms/slateq.py`) are "other": only with the observations are they known to be some.
    """
    if isinstance(space, Discrete):
        return "discrete"
    if isinstance(space, Box) and space.dtype.kind == "f" and space.bounded.all():
        return "continuous"
    return "other"


def require_kind(algorithm: str, kinds: tuple[str, ...], space: Space) -> None:
    """Raise ValueError, naming `algorithm`, unless the kind of the action space is one of `kinds`."""
    if action_kind(space) not in kinds:
        served = " and ".join(SERVED[kind] for kind in kinds)
        raise ValueError(f"{algorithm} serves {served}, and this one is {space}")


def has_mask(space: Space) -> TypeGuard[Dict]:
    """Whether observations of the space carry a mask of actions."""
    return isinstance(space, Dict) and any(name == ACTION_MASK for name, _ in space.items)


def value_counts(space: Space) -> tuple[int, ...]:
    """How many values each entry of a Discrete or MultiDiscrete has."""
    assert isinstance(space, Discrete | MultiDiscrete)
    return (space.n,) if isinstance(space, Discrete) else space.sizes


def by_entry(space: Space, mask: Any) -> list[Any]:
    """The mask `[..., sum(n)]` of a Discrete or of the entries of a MultiDiscrete, cut into theirs: `[..., n]` each."""
    counts = value_counts(space)
    ends = itertools.accumulate(counts)
    return [mask[..., end - count : end] for end, count in zip(ends, counts, strict=True)]


def nested_tuples(array: Any) -> Any:
    """Integers `[...]` as tuples of tuples: the `nvec` and `start` of a MultiDiscrete."""
    return tuple(map(nested_tuples, array)) if np.ndim(array) else int(array)


def parts_of(space: Tuple | Dict) -> tuple[Space, ...]:
    """The spaces of the entries, in their order."""
    return space.spaces if isinstance(space, Tuple) else tuple(part for _, part in space.items)


def zeros(space: Space, leading: tuple[int, ...] = ()) -> Any:
    """An element of the space's structure, filled with zeros, with `leading` axes before each leaf's shape."""
    if isinstance(space, Tuple):
        return tuple(zeros(part, leading) for part in space.spaces)
    if isinstance(space, Dict):
        return {name: zeros(part, leading) for name, part in space.items}
    if isinstance(space, OneOf):
        return (np.zeros(leading, np.int32), *(zeros(part, leading) for part in space.spaces))
    return np.zeros(leading + space.shape, space.dtype)


def fixed_form(space: Space, element: Any) -> Any:
    """An element as Gymnasium gives it, without leading axes, in the form of this module: other for a OneOf only."""
    if isinstance(space, Tuple):
        return tuple(fixed_form(part, element[i]) for i, part in enumerate(space.spaces))
    if isinstance(space, Dict):
        return {name: fixed_form(part, element[name]) for name, part in space.items}
    if isinstance(space, OneOf):
        choice, chosen = element
        parts = enumerate(space.spaces)
        return np.int32(choice), *(fixed_form(part, chosen) if i == choice else zeros(part) for i, part in parts)
    return np.asarray(element, space.dtype)


def to_environment(space: Space, action: Any) -> Any:
    """Canonical action -> what the environment takes: Box rescaled and clipped to its bounds, whole numbers shifted.

    Leading axes are kept. Only Box entries bounded on both sides are rescaled from [-1, 1]; others keep their scale and
    are counted from their number nearest to 0: that of Box(100, inf) is 100.
    """
    if isinstance(space, Tuple):
        return tuple(to_environment(part, action[i]) for i, part in enumerate(space.spaces))
    if isinstance(space, Dict):
        return {name: to_environment(part, action[name]) for name, part in space.items}
    if isinstance(space, Discrete):
        return action + space.start if space.start else action
    if isinstance(space, MultiDiscrete) and space.start is not None:
        return action + space.lowest
    if isinstance(space, Box) and space.is_integer:
        return (action + space.low).astype(space.dtype)
    if isinstance(space, Box) and (affine := space.affine) is not None:
        return (action * affine.scale + affine.offset).clip(affine.low, affine.high)
    return action


def to_canonical(space: Space, action: Any) -> Any:
    """The inverse of `to_environment` on actions inside the space: what an agent would have given."""
    if isinstance(space, Tuple):
        return tuple(to_canonical(part, action[i]) for i, part in enumerate(space.spaces))
    if isinstance(space, Dict):
        return {name: to_canonical(part, action[name]) for name, part in space.items}
    if isinstance(space, Discrete):
        return action - space.start
    if isinstance(space, MultiDiscrete) and space.start is not None:
        return action - space.lowest
    if isinstance(space, Box) and space.is_integer:
        return (action - space.low.astype(np.int32)).astype(np.int32)
    if isinstance(space, Box) and (affine := space.affine) is not None:
        return (action - affine.offset) / affine.scale
    return action
