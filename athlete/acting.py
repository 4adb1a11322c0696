"""Between users and agents: observations as they give them, checked, as rows of arrays; actions as they take them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from athlete.core import Group, Spec, Tree
from athlete.env.masks import OBSERVATIONS, joined_mask, lift, path_in
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
    has_mask,
    value_counts,
    zeros,
)


def row_of(space: Space, observation: Any, where: str = "observation") -> Tree:
    """An observation as one row `[1, ...]`. Raises ValueError, naming the entry, where it does not fit the space."""
    if isinstance(space, Tuple):
        if not isinstance(observation, tuple | list) or len(observation) != len(space.spaces):
            raise ValueError(f"{where}: expected a tuple of {len(space.spaces)} entries, got {observation!r}")
        return tuple(row_of(part, observation[i], f"{where}[{i}]") for i, part in enumerate(space.spaces))
    if isinstance(space, Dict):
        _require_entries(space, observation, where)
        return {name: row_of(part, observation[name], f"{where}[{name!r}]") for name, part in space.items}
    if isinstance(space, OneOf):
        numbers = range(len(space.spaces))
        if not isinstance(observation, tuple | list) or len(observation) != 2 or observation[0] not in numbers:
            raise ValueError(f"{where}: expected (number of the chosen space, its element), got {observation!r}")
        choice, chosen = observation
        rows = [zeros(part, (1,)) for part in space.spaces]
        rows[choice] = row_of(space.spaces[choice], chosen, f"{where}[1]")
        return np.array([choice], np.int32), *rows
    array = _array_of(space, observation, where)
    if array.shape != space.shape:
        many = "; compute_actions takes many observations, this one" if array.shape[1:] == space.shape else ""
        raise ValueError(f"{where}: expected shape {space.shape} of {space}, got {array.shape}{many}")
    _require_inside(space, array, where)
    return array[None]


def joint_observation(groups: Sequence[tuple[str, Group]], ids: Sequence[str], observations: Mapping[str, Any]) -> Tree:
    """Observations by agent as one of all agents, whose names are `ids` in the order of their groups.

    Raises ValueError where an agent's is missing or does not fit its space.
    """
    if set(observations) != set(ids):
        raise ValueError(f"observations: expected those of {', '.join(map(str, ids))}, got {list(observations)}")
    names, joint = iter(ids), {}
    for group_name, group in groups:
        rows = [row_of(group.obs, observations[name], f"observations[{name!r}]") for name in _next(names, group.size)]
        joint[group_name] = jax.tree.map(lambda *leaves: np.concatenate(leaves), *rows)
    return {"obs": joint}


def actions_by_agent(groups: Sequence[tuple[str, Group]], ids: Sequence[str], action: Tree) -> dict[str, Any]:
    """The actions `{group: [n, ...]}` of all agents, by agent, as Gymnasium's spaces contain them."""
    names, found = iter(ids), {}
    for group_name, group in groups:
        for i, name in enumerate(_next(names, group.size)):
            found[name] = as_gymnasium(group.action, jax.tree.map(lambda leaf, i=i: leaf[i], action[group_name]))
    return found


def _next(names: Iterator[str], number: int) -> list[str]:
    return list(itertools.islice(names, number))


def rows_of(space: Space, observations: Any) -> Tree:
    """Many observations as rows `[B, ...]`.

    They come as a list, or stacked: an array `[B, *shape]`, or a dictionary or tuple of such where the space is one.
    Raises ValueError where they do not fit the space, or are none.
    """
    if isinstance(observations, list) and isinstance(space, Tuple | Dict | OneOf):
        rows = [row_of(space, observation, f"observations[{i}]") for i, observation in enumerate(observations)]
        stacked = jax.tree.map(lambda *leaves: np.concatenate(leaves), *rows) if rows else zeros(space, (0,))
    else:
        stacked = _stacked(space, observations, "observations")
    lengths = {len(leaf) for leaf in jax.tree.leaves(stacked)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"observations: expected the same number of each entry, at least 1, got {sorted(lengths)}")
    return stacked


def _stacked(space: Space, observations: Any, where: str) -> Tree:
    if isinstance(space, Tuple):
        if not isinstance(observations, tuple) or len(observations) != len(space.spaces):
            raise ValueError(f"{where}: expected a list of tuples, or a tuple of {len(space.spaces)} stacked arrays")
        return tuple(_stacked(part, observations[i], f"{where}[{i}]") for i, part in enumerate(space.spaces))
    if isinstance(space, Dict):
        _require_entries(space, observations, where)
        return {name: _stacked(part, observations[name], f"{where}[{name!r}]") for name, part in space.items}
    if isinstance(space, OneOf):
        raise ValueError(f"{where}: give those of {space} as a list")
    array = _array_of(space, observations, where)
    if array.shape[1:] != space.shape or array.ndim == 0:
        raise ValueError(f"{where}: expected shape {('B', *space.shape)} for {space}, got {array.shape}")
    _require_inside(space, array, where)
    return array


def _require_entries(space: Dict, observation: Any, where: str) -> None:
    if not hasattr(observation, "keys") or not {name for name, _ in space.items} <= set(observation.keys()):
        raise ValueError(f"{where}: expected the entries {[name for name, _ in space.items]}, got {observation!r}")


def _array_of(space: Space, given: Any, where: str) -> np.ndarray:
    """What was given as an array of the space's type. Raises ValueError where that would change a number."""
    try:
        array = np.asarray(given, space.dtype)
        kept = array.dtype.kind == "f" or np.array_equal(array, given)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {given!r} is no element of {space}") from error
    if not kept:  # cut to a whole number, or wrapped around
        raise ValueError(f"{where}: {given!r} is no element of {space}")
    return array


def _require_inside(space: Space, array: np.ndarray, where: str) -> None:
    if isinstance(space, Discrete | MultiDiscrete):
        start = np.asarray(space.start) if isinstance(space, Discrete) else space.lowest
        count = np.asarray(space.n if isinstance(space, Discrete) else space.nvec)
        if not ((array >= start) & (array < start + count)).all():
            raise ValueError(f"{where}: {array} is outside {space}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{where}: {array} is not finite")


def with_mask(spec: Spec, observation: Any, info: Any) -> Any:
    """The observation with the mask of actions where the policy reads it, wherever the environment tells it.

    `info` is the environment's, or None. Raises ValueError where the mask is missing.
    """
    if not has_mask(spec.obs) or (isinstance(observation, Mapping) and ACTION_MASK in observation):
        return observation
    if isinstance(observation, Mapping) and (path := path_in(observation)):
        return lift(observation, path)
    if OBSERVATIONS not in dict(spec.obs.items):
        return observation  # which does not fit, as `row_of` says
    if not isinstance(info, Mapping) or ACTION_MASK not in info:
        raise ValueError(
            "this policy chooses among the legal actions: give info=..., the environment's, or what its method tells, "
            f"{{{ACTION_MASK!r}: env.action_masks()}}; or the observation as {{{OBSERVATIONS!r}: ..., "
            f"{ACTION_MASK!r}: zeros and ones}}"
        )
    mask = joined_mask(info[ACTION_MASK], sum(value_counts(spec.action)), f"info[{ACTION_MASK!r}]")
    return {OBSERVATIONS: observation, ACTION_MASK: mask}


def as_gymnasium(space: Space, action: Tree) -> Any:
    """An action, or many `[B, ...]`, in the types that Gymnasium's spaces contain: arrays of the space's dtype, an
    integer for a single one of Discrete.
    """
    if isinstance(space, Tuple):
        return tuple(as_gymnasium(part, action[i]) for i, part in enumerate(space.spaces))
    if isinstance(space, Dict):
        return {name: as_gymnasium(part, action[name]) for name, part in space.items}
    if isinstance(space, Discrete):
        return np.asarray(action, np.int64) if np.ndim(action) else int(action)
    if isinstance(space, MultiDiscrete):
        return np.asarray(action, np.int64)
    if isinstance(space, MultiBinary):
        return np.asarray(action, np.int8)
    assert isinstance(space, Box)
    # Rounding in float32 may leave the bounds by one unit in the last place.
    return np.asarray(np.clip(np.asarray(action, space.dtype), space.low, space.high))
