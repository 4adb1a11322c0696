"""Minari's data sets (Farama): those that are on this machine, by name or as an object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from athlete.env.adapters.conversion import to_space
from athlete.offline.columns import from_columns
from athlete.offline.dataset import DataError, DataSet, joined, mapped
from athlete.offline.streamed import Blocks

PREFIX = "minari:"


def is_minari(source: Any) -> bool:
    """Whether it is one of Minari's data sets, or the name of one: `"minari:pointmaze/umaze-v2"`."""
    return (isinstance(source, str) and source.startswith(PREFIX)) or type(source).__name__ == "MinariDataset"


def read_minari(source: Any) -> DataSet:
    """All episodes of a data set. Their `T + 1` observations say where each step led, the last one too."""
    name, found, given = _opened(source)
    episodes = found.iterate_episodes()
    return joined([from_columns(_columns(each), f"{name}, episode {each.id}", **given) for each in episodes])


def minari_blocks(source: Any, steps: int) -> Blocks:
    """The episodes of a data set, as many in a block as have about so many steps."""
    name, found, given = _opened(source)
    numbers = list(found.episode_indices)
    each = max(1, steps * len(numbers) // max(int(found.total_steps), 1))

    def read(number: int, row: int) -> Mapping[str, Any]:
        chosen = numbers[number * each : (number + 1) * each]
        parts = [_columns(episode) for episode in found.iterate_episodes(chosen)]
        return {key: mapped(lambda *leaves: np.concatenate(leaves), *(part[key] for part in parts)) for key in parts[0]}

    return Blocks(name, -(-len(numbers) // each), read, given)


def _opened(source: Any) -> tuple[str, Any, dict[str, Any]]:
    """A data set's name, the data set, and its spaces."""
    name = source if isinstance(source, str) else f"{PREFIX}{source.id}"
    found = _loaded(source) if isinstance(source, str) else source
    if not len(found.episode_indices):
        raise DataError(f"{name} holds no episode")
    spaces = {key: to_space(getattr(found, key), key) for key in ("observation_space", "action_space")}
    return name, found, spaces


def _loaded(name: str) -> Any:
    try:
        import minari
    except ImportError as error:
        raise ImportError(f"{name}: Minari's data sets are read with minari, which is not installed") from error
    try:
        return minari.load_dataset(name.removeprefix(PREFIX))
    except (FileNotFoundError, ValueError) as error:
        raise DataError(f"{name} is not on this machine: {error}") from error


def _columns(episode: Any) -> dict[str, Any]:
    return {
        "obs": mapped(lambda leaf: np.asarray(leaf)[:-1], episode.observations),
        "new_obs": mapped(lambda leaf: np.asarray(leaf)[1:], episode.observations),
        "actions": mapped(np.asarray, episode.actions),
        "rewards": episode.rewards,
        "terminateds": episode.terminations,
        "truncateds": episode.truncations,
    }
