"""Minari's data sets (Farama): those that are on this machine, by name or as an object."""

from __future__ import annotations

from typing import Any

import numpy as np

from athlete.env.adapters.conversion import to_space
from athlete.offline.columns import from_columns
from athlete.offline.dataset import DataError, DataSet, joined, mapped

PREFIX = "minari:"


def is_minari(source: Any) -> bool:
    """Whether it is one of Minari's data sets, or the name of one: `"minari:pointmaze/umaze-v2"`."""
    return (isinstance(source, str) and source.startswith(PREFIX)) or type(source).__name__ == "MinariDataset"


def read_minari(source: Any) -> DataSet:
    """All episodes of a data set. Their `T + 1` observations say where each step led, the last one too."""
    name = source if isinstance(source, str) else f"{PREFIX}{source.id}"
    found = _loaded(source) if isinstance(source, str) else source
    spaces = to_space(found.observation_space, "observation_space"), to_space(found.action_space, "action_space")
    episodes = [_episode(episode, f"{name}, episode {episode.id}", spaces) for episode in found.iterate_episodes()]
    if not episodes:
        raise DataError(f"{name} holds no episode")
    return joined(episodes)


def _loaded(name: str) -> Any:
    try:
        import minari
    except ImportError as error:
        raise ImportError(f"{name}: Minari's data sets are read with minari, which is not installed") from error
    try:
        return minari.load_dataset(name.removeprefix(PREFIX))
    except (FileNotFoundError, ValueError) as error:
        raise DataError(f"{name} is not on this machine: {error}") from error


def _episode(episode: Any, name: str, spaces: tuple) -> DataSet:
    columns = {
        "obs": mapped(lambda leaf: np.asarray(leaf)[:-1], episode.observations),
        "new_obs": mapped(lambda leaf: np.asarray(leaf)[1:], episode.observations),
        "actions": mapped(np.asarray, episode.actions),
        "rewards": episode.rewards,
        "terminateds": episode.terminations,
        "truncateds": episode.truncations,
    }
    return from_columns(columns, name, observation_space=spaces[0], action_space=spaces[1])
