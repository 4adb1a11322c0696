"""A data set: recorded steps as arrays, episodes one behind the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from athlete.core import Spec, Transition, Tree
from athlete.log import logger
from athlete.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple, parts_of, to_canonical

TOLERANCE = 1e-3  # by which an action may pass its bounds: files round


class DataError(ValueError):
    """A data set that cannot be read or learned from; the message is one sentence that says which, where and why."""


class Part(NamedTuple):
    """What came from one place."""

    name: str  # of the file, or what the user gave
    steps: int
    first: int = 0  # which row of it the first step is


class DataSet:
    """Recorded steps `[N, ...]`, NumPy arrays or trees of them in the form of their spaces.

    Steps of an episode are consecutive and its last one is terminated or truncated, where the recording broke off
    too. Actions are as the environment took them, unless `normalized` says that they are in [-1, 1] already.
    `log_prob` is that of each action under what chose it, None where nobody knows. Spaces are None where the data do
    not tell them.
    """

    def __init__(
        self,
        obs: Tree,
        action: Tree,
        reward: np.ndarray,
        next_obs: Tree,
        terminated: np.ndarray,
        truncated: np.ndarray,
        *,
        log_prob: np.ndarray | None = None,
        observation_space: Space | None = None,
        action_space: Space | None = None,
        normalized: bool = False,
        parts: Sequence[Part] = (),
    ):
        self.obs, self.action, self.reward, self.next_obs = obs, action, reward, next_obs
        self.terminated, self.truncated, self.log_prob = terminated, truncated, log_prob
        self.observation_space, self.action_space, self.normalized = observation_space, action_space, normalized
        self.parts = tuple(parts) or (Part("the data", len(reward)),)

    def __len__(self) -> int:
        """The number of steps."""
        return len(self.reward)

    def __repr__(self) -> str:
        return f"DataSet({len(self):,} steps of {len(self.ends):,} episodes from {self.parts[0].name})"

    @property
    def done(self) -> np.ndarray:
        """bool `[N]`: an episode ended here."""
        return self.terminated | self.truncated

    @property
    def first(self) -> np.ndarray:
        """bool `[N]`: an episode began here."""
        return np.concatenate([[True], self.done[:-1]])

    @property
    def ends(self) -> np.ndarray:
        """int `[episodes]`: the number of each episode's last step."""
        return np.flatnonzero(self.done)

    @property
    def lengths(self) -> np.ndarray:
        """int `[episodes]`."""
        return np.diff(self.ends, prepend=-1)

    @property
    def returns(self) -> np.ndarray:
        """float64 `[episodes]`: undiscounted."""
        return np.add.reduceat(self.reward.astype(np.float64), self.ends - self.lengths + 1)

    def place(self, row: int) -> str:
        """Where step `row` came from, for messages: `walker.json, row 12`."""
        for part in self.parts:
            if row < part.steps:
                return f"{part.name}, row {part.first + row}"
            row -= part.steps
        return f"row {row}"

    def as_normalized(self) -> DataSet:
        """The same, where all actions are in [-1, 1] already."""
        same = self.mapped(lambda array: array, self.parts)
        same.normalized = True
        return same

    def with_observations(self, obs: Tree, next_obs: Tree, space: Space) -> DataSet:
        """The same with other observations, of `space`."""
        same = self.mapped(lambda array: array, self.parts)
        same.obs, same.next_obs, same.observation_space = obs, next_obs, space
        return same

    def mapped(self, function: Callable[[np.ndarray], np.ndarray], parts: Sequence[Part]) -> DataSet:
        """The same of what `function` makes of each array."""
        return DataSet(
            *(mapped(function, tree) for tree in (self.obs, self.action, self.reward, self.next_obs)),
            *map(function, (self.terminated, self.truncated)),
            log_prob=None if self.log_prob is None else function(self.log_prob),
            observation_space=self.observation_space,
            action_space=self.action_space,
            normalized=self.normalized,
            parts=parts,
        )

    def episodes(self, numbers: Sequence[int] | np.ndarray) -> DataSet:
        """The episodes of these numbers, in this order."""
        ends, lengths = self.ends, self.lengths
        steps = [np.arange(ends[n] - lengths[n] + 1, ends[n] + 1) for n in numbers]
        index = np.concatenate(steps) if steps else np.zeros(0, np.int64)
        return self.mapped(lambda array: array[index], [Part(f"episodes of {self.parts[0].name}", len(index))])

    def transitions(self, spec: Spec, doubts: bool = True) -> Transition:
        """All steps as a trajectory of one row, `[N, 1, ...]`, with canonical actions. `doubts` are warned of, unless
        that was done before.

        Raises DataError, naming file and row, for what does not fit the spaces.
        """
        check_fit(self, spec)
        if doubts:
            _doubt_units(self, spec.action)
        action = self.action if self.normalized else to_canonical(spec.action, self.action)
        action = mapped(_as_trained, action)
        action = mapped(lambda part: part.clip(-1.0, 1.0), action) if _is_bounded(spec.action) else action
        obs, next_obs = (_as_space(spec.obs, part) for part in (self.obs, self.next_obs))
        whole = Transition(obs, self.first, action, self.reward, next_obs, self.terminated, self.truncated, (), {})
        return mapped(lambda leaf: leaf[:, None], whole)

    def returns_to_go(self, gamma: float) -> tuple[np.ndarray, np.ndarray]:
        """Of each step the discounted rewards from it to the end of its episode, and what the value there counts.

        G_t = sum over k >= t of gamma^(k - t) r_k, and gamma^(T - t + 1) where step T cut the episode, 0 where it
        terminated; float32 `[N]` each. A cut episode goes on from `next_obs` of its last step.
        """
        total, counts = self.reward.astype(np.float64), np.zeros(len(self))
        ends, lengths = self.ends, self.lengths
        counts[ends] = np.where(self.terminated[ends], 0.0, gamma)
        for back in range(1, lengths.max()):  # a step of every episode that is so long at once
            step = ends[lengths > back] - back
            total[step] += gamma * total[step + 1]
            counts[step] = gamma * counts[step + 1]
        return total.astype(np.float32), counts.astype(np.float32)

    def to_ends(self, steps: Transition, gamma: float) -> Transition:
        """`transitions` in which each step leads to the end of its episode: for `Agent.learns_returns`.

        Its reward is what followed, discounted; `next_obs` is where the episode ended, `extras["discount"]` what a
        value there counts (`returns_to_go`), and `extras["time"]` how many steps came before in the episode.
        """
        total, counts = self.returns_to_go(gamma)
        end = np.repeat(self.ends, self.lengths)
        time = (np.arange(len(self)) - end + np.repeat(self.lengths, self.lengths) - 1).astype(np.int32)
        extras = {"discount": counts[:, None], "time": time[:, None]}
        next_obs = mapped(lambda leaf: leaf[end], steps.next_obs)
        return steps._replace(reward=total[:, None], next_obs=next_obs, extras=extras)


def as_data(steps: Transition, spec: Spec, name: str) -> DataSet:
    """Steps `[N, ...]` of whole episodes as a data set; their actions are as the environment took them."""
    return DataSet(
        steps.obs,
        steps.action,
        steps.reward,
        steps.next_obs,
        steps.terminated,
        steps.truncated,
        log_prob=steps.extras.get("log_prob"),
        observation_space=spec.obs,
        action_space=spec.action,
        parts=[Part(name, len(steps.reward))],
    )


def joined(sets: Sequence[DataSet]) -> DataSet:
    """Several data sets one behind the other. Raises DataError, naming both, where they do not go together."""
    first = sets[0]
    for other in sets[1:]:
        for name in ("observation_space", "action_space", "normalized"):
            ours, theirs = getattr(first, name), getattr(other, name)
            if ours != theirs and None not in (ours, theirs):
                raise DataError(
                    f"{other.parts[0].name} has the {name.replace('_', ' ')} {theirs}, and {first.parts[0].name} has "
                    f"{ours}: they are of different environments"
                )
        for name in ("obs", "action"):
            (ours, theirs) = (_forms(getattr(one, name)) for one in (first, other))
            if ours != theirs:
                raise DataError(
                    f"{other.parts[0].name} has {name} of {theirs}, and {first.parts[0].name} has {ours}: they are of "
                    "different environments"
                )
    if len(sets) == 1:
        return first
    known = [one.log_prob for one in sets]
    return DataSet(
        *(
            _stacked([getattr(one, name) for one in sets])
            for name in ("obs", "action", "reward", "next_obs", "terminated", "truncated")
        ),
        log_prob=None if any(part is None for part in known) else np.concatenate(known),  # type: ignore[arg-type]
        observation_space=next((one.observation_space for one in sets if one.observation_space), None),
        action_space=next((one.action_space for one in sets if one.action_space), None),
        normalized=first.normalized,
        parts=[part for one in sets for part in one.parts],
    )


# Trees of NumPy arrays, without JAX: commands that look at data are there at once.


def mapped(function: Callable[[Any], Any], tree: Tree, *others: Tree) -> Tree:
    """`function` of every leaf of trees of the same form."""
    if isinstance(tree, Mapping):
        return {name: mapped(function, tree[name], *(other[name] for other in others)) for name in tree}
    if isinstance(tree, tuple):
        parts = [mapped(function, *each) for each in zip(tree, *others, strict=True)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return function(tree, *others)


def named_leaves(tree: Tree, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Each array under the name of its path: `obs/camera/0`."""
    if isinstance(tree, Mapping):
        for key in tree:
            yield from named_leaves(tree[key], f"{name}/{key}")
    elif isinstance(tree, tuple):
        for i, part in enumerate(tree):
            yield from named_leaves(part, f"{name}/{i}")
    else:
        yield name, tree


def from_named(space: Space, arrays: Mapping[str, np.ndarray], name: str) -> Tree:
    """The inverse of `named_leaves`, in the form of `space`. Raises KeyError for an array that is not there."""
    if isinstance(space, Dict):
        return {key: from_named(part, arrays, f"{name}/{key}") for key, part in space.items}
    if isinstance(space, Tuple):
        return tuple(from_named(part, arrays, f"{name}/{i}") for i, part in enumerate(space.spaces))
    return arrays[name]


def _stacked(trees: Sequence[Tree]) -> Tree:
    return mapped(lambda *leaves: np.concatenate(leaves), *trees)


def _forms(tree: Tree) -> str:
    return ", ".join(f"{leaf.dtype}{list(leaf.shape[1:])}" for _, leaf in named_leaves(tree, ""))


def _as_trained(array: np.ndarray) -> np.ndarray:
    """In the types that agents give: 32 bits."""
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int32)


def _as_space(space: Space, tree: Tree) -> Tree:
    if isinstance(space, Dict):
        return {name: _as_space(part, tree[name]) for name, part in space.items}
    if isinstance(space, Tuple):
        return tuple(_as_space(part, tree[i]) for i, part in enumerate(space.spaces))
    return tree.astype(space.dtype, copy=False)


def _is_bounded(space: Space) -> bool:
    return isinstance(space, Box) and not space.is_integer and bool(space.bounded.all())


# Spaces


def spaces_of(data: DataSet) -> Spec:
    """The spaces that the data tell, else those that their arrays look like.

    Raises DataError where actions could be of more than one space.
    """
    action = data.action_space
    return Spec(observation_space_of(data), action if action is not None else _acted(data))


def observation_space_of(data: DataSet) -> Space:
    """That which the data tell, else what their arrays look like."""
    return data.observation_space if data.observation_space is not None else _observed(data.obs)


def _observed(tree: Tree) -> Space:
    """Boxes without bounds; bytes from 0 to 255."""
    if isinstance(tree, Mapping):
        return Dict({name: _observed(part) for name, part in tree.items()})
    if isinstance(tree, tuple):
        return Tuple(tuple(map(_observed, tree)))
    if tree.dtype == np.uint8:
        return Box(0, 255, tree.shape[1:], np.uint8)
    if tree.ndim == 1 and tree.dtype.kind in "iu":
        return Discrete(int(tree.max()) + 1)
    return Box(-np.inf, np.inf, tree.shape[1:], np.float32)


def _acted(data: DataSet) -> Space:
    name = data.parts[0].name
    if not isinstance(data.action, np.ndarray):
        raise DataError(f"{name} does not tell its action space, and actions have several entries: give an environment")
    action = data.action
    if action.dtype.kind in "iu" and action.ndim == 1 and action.min() >= 0:
        return Discrete(int(action.max()) + 1)
    if action.dtype.kind == "f" and (data.normalized or np.abs(action).max(initial=0.0) <= 1.0 + TOLERANCE):
        return Box(-1.0, 1.0, action.shape[1:])
    raise DataError(
        f"{name} does not tell its action space, and actions go from {action.min()} to {action.max()}: give an "
        "environment, or write the data with their spaces (athlete convert, athlete record)"
    )


def check_fit(data: DataSet, spec: Spec) -> None:
    """Raise DataError, naming file and row, unless all observations and actions are of these spaces."""
    for name, tree in (("obs", data.obs), ("new_obs", data.next_obs)):
        _check_space(data, name, spec.obs, tree, ranges=False)
    if data.normalized and isinstance(spec.action, Box):
        unit = np.ones(spec.action.shape, np.float32)
        _check_space(data, "actions", Box(-unit, unit), data.action, hint=", and they are said to be normalised")
        return
    _check_space(data, "actions", spec.action, data.action)


def _doubt_units(data: DataSet, space: Space) -> None:
    """Warn where actions look normalised already: all within [-1, 1], and near its ends, in a space that is wider."""
    if data.normalized or not _is_bounded(space) or not isinstance(data.action, np.ndarray):
        return
    largest = float(np.abs(data.action).max())
    if 0.99 <= largest <= 1.0 + TOLERANCE and (space.high - space.low).min() >= 3.0:  # type: ignore[attr-defined]
        logger.warning(
            "%s: actions go from -1 to 1 alone, and the space is %s: if they are normalised already, say "
            "actions_in_input_normalized=True",
            data.parts[0].name,
            space,
        )


def _check_space(data: DataSet, name: str, space: Space, tree: Tree, ranges: bool = True, hint: str = "") -> None:
    if isinstance(space, Dict | Tuple):
        expected = [key for key, _ in space.items] if isinstance(space, Dict) else list(range(len(space.spaces)))
        entries = (
            sorted(tree) if isinstance(tree, Mapping) else list(range(len(tree) if isinstance(tree, tuple) else 0))
        )
        if entries != expected:
            raise DataError(f"{data.parts[0].name}: {name} has the entries {entries}, and {expected} are expected")
        for key, part in zip(expected, parts_of(space), strict=True):
            _check_space(data, f"{name}[{key!r}]", part, tree[key], ranges, hint)
        return
    if not isinstance(tree, np.ndarray) or tree.shape[1:] != space.shape:
        there = list(tree.shape[1:]) if isinstance(tree, np.ndarray) else "several entries"
        raise DataError(
            f"{data.parts[0].name}: {name} has shape {there}, and the space {space} has {list(space.shape)}{hint}"
        )
    if space.dtype.kind in "iub" and tree.dtype.kind not in "iub":
        raise DataError(f"{data.parts[0].name}: {name} is of type {tree.dtype}, and the space {space} of whole numbers")
    low, high = _bounds(space)
    if low is None or not (ranges or space.dtype.kind in "iub"):
        return
    slack = TOLERANCE * (1.0 + np.abs(high)) if space.dtype.kind == "f" else 0
    wrong = ((tree < low - slack) | (tree > high + slack)).reshape(len(tree), -1).any(axis=1)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(f"{data.place(row)}: {name} is {_told(tree[row])}, outside of {space}{hint}")


def _bounds(space: Space) -> tuple[Any, Any]:
    if isinstance(space, Box):
        return space.low, space.high
    if isinstance(space, Discrete):
        return space.start, space.start + space.n - 1
    if isinstance(space, MultiDiscrete):
        return space.lowest, space.lowest + np.asarray(space.nvec) - 1
    return (0, 1) if isinstance(space, MultiBinary) else (None, None)


def _told(value: np.ndarray) -> str:
    text = np.array2string(value, precision=4, threshold=8)
    return text if len(text) < 80 else f"{text[:76]}..."
