"""Where environments tell which actions are legal, and how that comes to stand where agents read it.

Agents read the entry `action_mask` of a Dict observation (`ops.masks`). Others tell it in an entry `action_masks` or
`valid_avail_actions_mask` (RLlib), in a Dict within the Dict, in `info["action_mask"]` (Gymnasium) or by a method
`action_masks()` (sb3-contrib). No JAX and no Gymnasium here, since worker processes import it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from athlete.log import logger
from athlete.spaces import (
    ACTION_MASK,
    Box,
    Dict,
    Discrete,
    MultiBinary,
    MultiDiscrete,
    Space,
    Tuple,
    has_mask,
    value_counts,
)

METHOD = "action_masks"
NAMES = (ACTION_MASK, METHOD, "valid_avail_actions_mask")
OBSERVATIONS = "observations"  # the entry of what an environment shows, where a mask is put beside it

Path = tuple[str, ...]  # the keys of a mask in nested dictionaries


def mask_path(obs_space: Space | None, action_space: Space | None) -> Path | None:
    """Where in observations a mask stands that agents would not read; None where there is none, or one that they do."""
    if not isinstance(obs_space, Dict) or has_mask(obs_space) or not isinstance(action_space, Discrete | MultiDiscrete):
        return None
    size = sum(value_counts(action_space))
    places: list[tuple[Path, Space]] = []
    for name, part in obs_space.items:
        places.append(((name,), part))
        places += [((name, inner), space) for inner, space in part.items] if isinstance(part, Dict) else []
    found = [path for path, space in places if path[-1] in NAMES and _holds_mask(space, size)]
    return found[0] if len(found) == 1 and len(places) > 1 else None


def unread_masks(obs_space: Space, action_space: Space) -> list[str]:
    """Parts of observations that have a mask's name and shape, and that nobody reads as one: `observation['a'][0]`."""
    if not isinstance(action_space, Discrete | MultiDiscrete):
        return []
    size = sum(value_counts(action_space))
    read = ((ACTION_MASK,),) if has_mask(obs_space) else (mask_path(obs_space, action_space),)
    return [
        told_path(path)
        for path, part in _leaves(obs_space, ())
        if path not in read and _HINT.search(str(path[-1:])) and _holds_mask(part, size)
    ]


_HINT = re.compile("mask|legal|valid|avail", re.IGNORECASE)


def _leaves(space: Space, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Space]]:
    if isinstance(space, Dict | Tuple):
        for key, part in space.items if isinstance(space, Dict) else enumerate(space.spaces):
            yield from _leaves(part, (*path, key))
    else:
        yield path, space


def _holds_mask(space: Space, size: int) -> bool:
    return isinstance(space, Box | MultiBinary) and space.shape == (size,)


def told_path(path: tuple[Any, ...]) -> str:
    """`observation['room']['action_mask']`."""
    return "observation" + "".join(f"[{key!r}]" for key in path)


def lift(parts: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The entries of a Dict, of spaces or of arrays, with the mask at `path` as their entry `action_mask`."""
    lifted = dict(parts)
    if len(path) == 1:
        mask = lifted.pop(path[0])
    else:
        inner = dict(lifted.pop(path[0]))
        mask = inner.pop(path[1])
        if inner:
            lifted[path[0]] = inner
    return {**lifted, ACTION_MASK: mask}


def lift_space(space: Dict, path: Path) -> Dict:
    """The space of what `lift` gives."""
    lifted = lift({name: dict(part.items) if isinstance(part, Dict) else part for name, part in space.items}, path)
    return Dict({name: Dict(part) if isinstance(part, dict) else part for name, part in lifted.items()})


def path_in(observation: Mapping[str, Any]) -> Path | None:
    """Where in an observation the mask stands, as `mask_path` says it of a space; None where there is none."""
    places: list[Path] = [(name,) for name in observation]
    places += [(name, inner) for name, part in observation.items() if isinstance(part, Mapping) for inner in part]
    return next((path for path in places if path[-1] in NAMES), None)


def mask_method(env: Any) -> Callable[[], Any] | None:
    """The method `action_masks` of an environment or of one that it wraps."""
    level, seen = env, 0
    while level is not None and seen < 100:  # wrappers of wrappers; the number ends a circle
        method = getattr(level, METHOD, None)
        if callable(method):
            return method
        level, seen = getattr(level, "env", None), seen + 1
    return None


def joined_mask(mask: Any, size: int, told: str) -> np.ndarray:
    """A mask, or those of the entries of a MultiDiscrete, as one row of zeros and ones, int8 `[size]`.

    Raises ValueError, beginning with `told`, where it has another size.
    """
    joined = np.concatenate(list(map(np.ravel, mask))) if isinstance(mask, tuple | list) else np.ravel(mask)
    if joined.size != size:
        raise ValueError(f"{told} of {joined.size} entries; the actions need {size}")
    return (joined > 0).astype(np.int8)


def told_mask(env: Any, obs_space: Space, action_space: Space, obs: Any, info: Any) -> np.ndarray | None:
    """Which actions are legal now, wherever the environment tells it: `[sum(n)]`, or None where it does not."""
    if not isinstance(action_space, Discrete | MultiDiscrete):
        return None
    size = sum(value_counts(action_space))
    if has_mask(obs_space):
        return np.asarray(obs[ACTION_MASK]) > 0
    if path := mask_path(obs_space, action_space):
        return np.asarray(lift(obs, path)[ACTION_MASK]) > 0
    if isinstance(info, Mapping) and ACTION_MASK in info:
        return joined_mask(info[ACTION_MASK], size, f"info[{ACTION_MASK!r}]") > 0
    method = mask_method(env)
    return None if method is None else joined_mask(method(), size, f"{METHOD}() gave a mask") > 0


def warn_of_unread_masks(name: str, obs_space: Space, action_space: Space) -> None:
    """A warning for each part of the observations that looks like a mask of actions and is read as none."""
    for place in unread_masks(obs_space, action_space):
        logger.warning(
            "%s: %s looks like a mask of actions, and nobody reads it there: make it the entry %r of the observation, "
            "a Dict, and the only one of its kind",
            name,
            place,
            ACTION_MASK,
        )


_told: set[tuple[str, str]] = set()  # of which environments it was said already


def say_masks_are_read(name: str, place: str) -> None:
    """One line for an environment: its legal actions are read from `place`."""
    if (name, place) not in _told:
        _told.add((name, place))
        logger.info("%s tells legal actions in %s: no others are taken", name, place)
