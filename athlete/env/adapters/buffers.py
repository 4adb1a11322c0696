"""The border: what environments return becomes arrays of known shapes and dtypes, or an error that names the entry.

No JAX and no Gymnasium, since worker processes import it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from athlete import spaces
from athlete.env.membership import range_violation

_ALIGNMENT = 64  # bytes; every dtype's arrays begin at a multiple, whatever came before
_OBSERVATION = "observation"
_NUMBERS = "biuf"


class MisfitError(ValueError):
    """An environment returned what does not fit its spaces; the message is a sentence without row, seed and step."""


class Members(NamedTuple):
    """Agents with equal spaces, one group of many agents."""

    name: str
    agents: tuple[Any, ...]  # the environment's own ids of them
    obs: spaces.Space  # of one of them, as policies see it
    action: spaces.Space
    own_action: spaces.Space  # as the environment has it: numbers of 64 bits are such
    mask_path: tuple[str, ...] | None = None  # where what the environment shows has a mask that is moved in `obs`
    mask_size: int = 0  # of the mask that the environment tells in its infos, if it does


class Seat(NamedTuple):
    """Where one agent stands in the arrays of all: `obs["obs"][group.name][:, number]`."""

    agent: Any
    group: Members
    number: int


class Buffers:
    """Where the steps of `rows` environments are written: one block of memory, which processes can share.

    `obs` are observations `[B, ...]` in the structure and dtypes of `space`, `reward` is float32 `[B]`, `terminated`
    and `truncated` are bool `[B]`. The next step overwrites all of them: `copied_obs` is what to keep. `under_way`,
    bool `[B]`, says of which rows the environment is at work, also where its process has died of it.

    With `groups` of agents, `space` is that of `athlete.env.multi_agent.joint_spec` and `reward` is `[B, agents]`, in
    the order of `seats`.
    """

    def __init__(self, space: spaces.Space, rows: int, memory: Any = None, groups: Sequence[Members] = ()):
        self.space, self.rows, self.groups = space, rows, tuple(groups)
        self.seats = [Seat(agent, group, i) for group in groups for i, agent in enumerate(group.agents)]
        leaves = [*_leaves(space), *_step_leaves(groups)]
        places, size = _layout(leaves, rows)
        block = np.zeros(size, np.uint8) if memory is None else np.frombuffer(memory, np.uint8)
        of_dtype = {dtype: block[place].view(dtype) for dtype, place in places.items()}
        taken = dict.fromkeys(of_dtype, 0)
        views = []
        for shape, dtype in leaves:
            begin, count = taken[dtype], rows * math.prod(shape)
            views.append(of_dtype[dtype][begin : begin + count].reshape(rows, *shape))
            taken[dtype] += count
        *_, self.reward, self.terminated, self.truncated, self.under_way = views
        self.obs = _assembled(space, iter(views))
        self._floats = [array for dtype, array in of_dtype.items() if dtype.kind == "f"]
        self._write_row = _writer(space, self.obs, (), _OBSERVATION)
        self._write_all = _writer(space, self.obs, (rows,), _OBSERVATION)
        self.copied_obs = _copier(self.obs)

    @staticmethod
    def size(space: spaces.Space, rows: int, groups: Sequence[Members] = ()) -> int:
        """Of the `memory` that buffers of this space take, in bytes."""
        return _layout([*_leaves(space), *_step_leaves(groups)], rows)[1]

    def seat_writer(self, seat: Seat) -> Writer:
        """What writes one agent's observations: `write(row, observation)`. Raises MisfitError."""
        return _writer(seat.group.obs, self._seen_by(seat), (), f"{_OBSERVATION}[{seat.agent!r}]")

    def _seen_by(self, seat: Seat) -> Any:
        """The observations `[B, ...]` of one agent, which are parts of `obs`."""
        return mapped(lambda leaf: leaf[:, seat.number], self.obs["obs"][seat.group.name])

    def write_obs(self, row: int, obs: Any) -> None:
        """One row's observation, as the environment gave it."""
        self._write_row(row, obs)

    def obs_of(self, row: int) -> Any:
        """A copy of one row's observation."""
        return _of_row(self.obs, row)

    def write_step(self, row: int, obs: Any, reward: Any, terminated: Any, truncated: Any) -> None:
        """One row's step, as the environment gave it. Raises MisfitError."""
        self._write_row(row, obs)
        # What is so already needs no call: every step of every row comes by here.
        self.reward[row] = reward if type(reward) is float else as_reward(reward)
        self.terminated[row] = terminated if type(terminated) is bool else as_flag(terminated, "terminated")
        self.truncated[row] = truncated if type(truncated) is bool else as_flag(truncated, "truncated")

    def write_all_obs(self, obs: Any) -> None:
        """The observations of all rows, as a ready-made vector gave them. Raises MisfitError."""
        self._write_all(slice(None), obs)

    def write_all(self, obs: Any, reward: Any, terminated: Any, truncated: Any) -> None:
        """The step of all rows, as a ready-made vector gave it. Raises MisfitError."""
        self._write_all(slice(None), obs)
        self.reward[:] = _as_column(reward, self.rows, "the rewards")
        for name, column, given in (
            ("terminated", self.terminated, terminated),
            ("truncated", self.truncated, truncated),
        ):
            flags = _as_column(given, self.rows, name)
            if flags.dtype != bool and not np.isin(flags, (0, 1)).all():
                raise MisfitError(f"{name} is {given!r}; expected a bool for each row")
            column[:] = flags

    def all_finite(self) -> bool:
        """Whether no observation and no reward is NaN or infinite: one look at all of them."""
        # A sum of squares of numbers is a number, but for overflows, and the cheapest look at all of them.
        return all(math.isfinite(numbers.dot(numbers)) or np.isfinite(numbers).all() for numbers in self._floats)

    def first_nonfinite(self) -> tuple[int, str]:
        """The row and the sentence about its first number that is none, where `all_finite` is false."""
        named = [*_named_leaves(self.obs, _OBSERVATION), ("the reward", self.reward)]
        if self.seats:
            named = [(f"the reward of {seat.agent!r}", self.reward[:, i]) for i, seat in enumerate(self.seats)]
            for seat in self.seats:
                named += _named_leaves(self._seen_by(seat), f"{_OBSERVATION}[{seat.agent!r}]")
        found = []
        for name, leaf in named:
            if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
                row, *where = np.argwhere(~np.isfinite(leaf))[0].tolist()
                entry = name + "".join(f"[{i}]" for i in where)
                found.append((row, f"{entry} is {leaf[(row, *where)]}; expected a finite number"))
        return min(found)


def mapped(function: Callable[[np.ndarray], Any], tree: Any) -> Any:
    """`function` of each array of nested tuples and dictionaries."""
    if isinstance(tree, tuple):
        return tuple(mapped(function, part) for part in tree)
    if isinstance(tree, dict):
        return {name: mapped(function, part) for name, part in tree.items()}
    return function(tree)


def as_reward(value: Any, name: str = "the reward") -> float:
    """A reward as a number; arrays of one number are numbers too. Raises MisfitError."""
    if type(value) is float:
        return value
    array = _numeric(value, name, "a number")
    if array.size != 1:
        raise MisfitError(f"{name} is {_told(value)}; expected a number")
    return array.item()


def as_flag(value: Any, name: str) -> bool:
    """An end of an episode as a bool; 0 and 1 of any type are bools too. Raises MisfitError."""
    if value is True or value is False:
        return value
    array = _numeric(value, name, "a bool")
    if array.size != 1 or array.item() not in (0, 1):
        raise MisfitError(f"{name} is {_told(value)}; expected a bool")
    return bool(array.item())


def _as_column(value: Any, rows: int, name: str) -> np.ndarray:
    array = _numeric(value, name, "a number for each row")
    if array.shape != (rows,):
        raise MisfitError(f"{name} have shape {array.shape}; expected {(rows,)}: a number for each row")
    return array


def _numeric(value: Any, name: str, expected: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:  # nested lists of unequal lengths
        array = np.asarray(None)
    if array.dtype.kind not in _NUMBERS:
        raise MisfitError(f"{name} is {_told(value)}; expected {expected}")
    return array


def _told(value: Any) -> str:
    text = repr(value)
    text = text if len(text) < 100 else f"{text[:90]}..."
    return f"{text} ({type(value).__name__})"


# The layout -------------------------------------------------------------------------------------------------------


def _leaves(space: spaces.Space) -> Iterator[tuple[tuple[int, ...], np.dtype]]:
    """Shapes and dtypes of the arrays of an element, in the order in which `_assembled` takes them."""
    if isinstance(space, spaces.OneOf):
        yield (), np.dtype(np.int32)
    if isinstance(space, spaces.Tuple | spaces.Dict | spaces.OneOf):
        parts = space.spaces if isinstance(space, spaces.OneOf) else spaces.parts_of(space)
        yield from itertools.chain.from_iterable(map(_leaves, parts))
    else:
        yield space.shape, space.dtype


def _step_leaves(groups: Sequence[Members]) -> list[tuple[tuple[int, ...], np.dtype]]:
    """Those of the reward, terminated, truncated and under_way of a row."""
    reward_shape = (sum(len(group.agents) for group in groups),) if groups else ()
    return [(reward_shape, np.dtype(np.float32)), *[((), np.dtype(bool))] * 3]


def _layout(leaves: list[tuple[tuple[int, ...], np.dtype]], rows: int) -> tuple[dict[np.dtype, slice], int]:
    """Where the numbers of each dtype stand in the block, one array after another, and how long it is, in bytes."""
    sizes: dict[np.dtype, int] = {}
    for shape, dtype in leaves:
        sizes[dtype] = sizes.get(dtype, 0) + rows * math.prod(shape) * dtype.itemsize
    places, end = {}, 0
    for dtype, size in sizes.items():
        places[dtype] = slice(end, end + size)
        end += math.ceil(size / _ALIGNMENT) * _ALIGNMENT
    return places, end


def _assembled(space: spaces.Space, views: Iterator[np.ndarray]) -> Any:
    if isinstance(space, spaces.Tuple):
        return tuple(_assembled(part, views) for part in space.spaces)
    if isinstance(space, spaces.Dict):
        return {name: _assembled(part, views) for name, part in space.items}
    if isinstance(space, spaces.OneOf):
        return (next(views), *(_assembled(part, views) for part in space.spaces))
    return next(views)


def _named_leaves(tree: Any, name: str) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(tree, tuple | dict):
        for key, part in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _named_leaves(part, f"{name}[{key!r}]")
    else:
        yield name, tree


def _of_row(tree: Any, row: int) -> Any:
    if isinstance(tree, tuple):
        return tuple(_of_row(part, row) for part in tree)
    return {name: _of_row(part, row) for name, part in tree.items()} if isinstance(tree, dict) else tree[row].copy()


def _copier(tree: Any) -> Callable[[], Any]:
    """A function that copies arrays of this structure."""
    if isinstance(tree, tuple):
        copiers = [_copier(part) for part in tree]
        return lambda: tuple([copy() for copy in copiers])
    if isinstance(tree, dict):
        named = {name: _copier(part) for name, part in tree.items()}
        return lambda: {name: copy() for name, copy in named.items()}
    return tree.copy


# Writing ----------------------------------------------------------------------------------------------------------

Writer = Callable[[Any, Any], None]  # (index of the row, or all rows; what the environment gave)


def _writer(space: spaces.Space, views: Any, leading: tuple[int, ...], name: str) -> Writer:
    """What writes elements with the axes `leading` into `views`."""
    if isinstance(space, spaces.Tuple):
        return _tuple_writer(space, views, leading, name)
    if isinstance(space, spaces.Dict):
        return _dict_writer(space, views, leading, name)
    if isinstance(space, spaces.OneOf):
        return _one_of_writer(space, views, leading, name)
    if isinstance(space, spaces.Discrete) and not leading:
        return _discrete_writer(space, views, name)
    shape, dtype = leading + space.shape, space.dtype
    # Float arrays hold whatever number comes; others only what they hold exactly.
    kinds = "?bhilqBHILQefdg"
    fitting = frozenset(np.dtype(kind) for kind in kinds if dtype.kind == "f" or np.can_cast(np.dtype(kind), dtype))
    low, high = _index_range(space)

    def write(index: Any, value: Any) -> None:
        if type(value) is not np.ndarray or value.shape != shape or value.dtype not in fitting:
            value = _converted(value, shape, dtype, name)
        if low is not None and ((value < low) | (value > high)).any():
            raise MisfitError(range_violation(np.asarray(value), low, high, name))
        views[index] = value

    return write


def _discrete_writer(space: spaces.Discrete, view: np.ndarray, name: str) -> Writer:
    low, high = space.start, space.start + space.n - 1

    def write(index: Any, value: Any) -> None:
        if type(value) is not int and not isinstance(value, np.integer):
            value = _converted(value, (), space.dtype, name)
        if not low <= value <= high:
            raise MisfitError(range_violation(np.asarray(value), low, high, name))
        view[index] = value

    return write


def _index_range(space: spaces.Space) -> tuple[Any, Any]:
    """The lowest and highest value of a space whose values are looked up by number; None for others."""
    if isinstance(space, spaces.Discrete):
        return space.start, space.start + space.n - 1
    if isinstance(space, spaces.MultiDiscrete):
        return space.lowest, space.lowest + np.array(space.nvec) - 1
    return None, None


def _converted(value: Any, shape: tuple[int, ...], dtype: np.dtype, name: str) -> np.ndarray:
    """`value` as an array; MisfitError where it has another shape, or where other numbers would come of it."""
    array = _numeric(value, name, f"an array of shape {shape} and dtype {dtype}")
    if array.shape != shape:
        raise MisfitError(f"{name} has shape {array.shape}; expected {shape}")
    with np.errstate(invalid="ignore", over="ignore"):
        converted = array.astype(dtype)
    if dtype.kind != "f" and not (converted == array).all():
        where = tuple(np.argwhere(converted != array)[0].tolist())
        entry = name + "".join(f"[{i}]" for i in where)
        raise MisfitError(f"{entry} is {array[where]} ({array.dtype}), which {dtype} does not hold")
    return converted


def _tuple_writer(space: spaces.Tuple, views: Any, leading: tuple[int, ...], name: str) -> Writer:
    writers = [_writer(part, views[i], leading, f"{name}[{i}]") for i, part in enumerate(space.spaces)]

    def write(index: Any, value: Any) -> None:
        if not isinstance(value, tuple | list | np.ndarray) or len(value) != len(writers):
            raise MisfitError(f"{name} is {_told(value)}; expected a tuple of {len(writers)} entries")
        for i, write_part in enumerate(writers):
            write_part(index, value[i])

    return write


def _dict_writer(space: spaces.Dict, views: Any, leading: tuple[int, ...], name: str) -> Writer:
    writers = [(key, _writer(part, views[key], leading, f"{name}[{key!r}]")) for key, part in space.items]
    names = {key for key, _ in writers}

    def write(index: Any, value: Any) -> None:
        if not isinstance(value, Mapping) or not names <= value.keys():
            came = f"has the keys {sorted(map(str, value))}" if isinstance(value, Mapping) else f"is {_told(value)}"
            raise MisfitError(f"{name} {came}; expected a dict with the keys {sorted(names)}")
        for key, write_part in writers:
            write_part(index, value[key])

    return write


def _one_of_writer(space: spaces.OneOf, views: Any, leading: tuple[int, ...], name: str) -> Writer:
    """Elements come as `(number, element)`, of vectors as a tuple of these; the spaces not chosen are zeros."""
    choices, *parts = views
    writers = [_writer(part, parts[i], (), f"{name}[1]") for i, part in enumerate(space.spaces)]

    def write_one(index: Any, value: Any) -> None:
        chosen = value[0] if isinstance(value, tuple | list) and len(value) == 2 else None
        if chosen is None or chosen not in range(len(writers)):
            raise MisfitError(f"{name} is {_told(value)}; expected (number of the chosen space, its element)")
        choices[index] = chosen
        for leaf in _tree_leaves(parts):
            leaf[index] = 0
        writers[int(chosen)](index, value[1])

    def write_rows(_: Any, value: Any) -> None:
        for row, element in enumerate(value):
            write_one(row, element)

    return write_rows if leading else write_one


def _tree_leaves(tree: Any) -> Iterator[np.ndarray]:
    if isinstance(tree, tuple | list | dict):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from _tree_leaves(part)
    else:
        yield tree
