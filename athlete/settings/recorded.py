"""`offline_data(input_=...)`: RLlib's ways to say which recorded data are learned from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from athlete.log import logger
from athlete.offline.columns import NAMES
from athlete.offline.dataset import DataSet
from athlete.offline.files import read_data
from athlete.offline.minari_sets import is_minari
from athlete.offline.spaces import space_of
from athlete.settings.checks import is_number
from athlete.settings.memory import MEMORIES
from athlete.spaces import Space

if TYPE_CHECKING:
    from athlete.settings.config import AlgorithmConfig

SAMPLER = "sampler"  # the environment
SPACES = ("observation_space", "action_space")  # of data without an environment
INPUT_SETTINGS = ("max_episode_steps", "format", "path", "paths", "capacity")


def is_input(value: Any) -> bool:
    """Whether `value` may be an `input_`; what is in files shows when they are read."""
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(part, str) or _is_path(part) for part in value)
    if isinstance(value, Mapping):
        return bool(value) and (_is_columns(value) or all(is_number(share) and share > 0 for share in value.values()))
    return isinstance(value, str | DataSet) or _is_path(value) or _is_frame(value) or is_minari(value)


def kept_input(value: Any) -> Any:
    """An `input_` as the configuration keeps it: what is in memory read and checked, what is in files by name."""
    if _is_path(value):
        return str(value)
    if isinstance(value, list | tuple):
        return list(map(str, value))
    if isinstance(value, Mapping) and not _is_columns(value):
        total = math.fsum(value.values())
        return {str(source): share / total for source, share in value.items()}
    return read_data(value) if not isinstance(value, str) else value


def given_spaces(config: AlgorithmConfig) -> tuple[Space | None, Space | None]:
    """The spaces `environment(observation_space=..., action_space=...)`; None where they are not given."""
    obs, action = (space_of(config[name]) for name in SPACES)
    return obs, action


def shares_of(source: Any, input_config: Mapping[str, Any]) -> dict[Any, float]:
    """Each source of data, and its share of every batch; nothing where all comes from the environment.

    Raises ValueError for RLlib's sources that cannot be read here.
    """
    if source == SAMPLER or source is None:
        return {}
    if source == "dataset":
        source = input_config.get("paths", input_config.get("path"))
        if source is None:
            raise ValueError("offline_data(input_='dataset'): input_config says no 'paths'")
    sources = source if isinstance(source, Mapping) else {_hashable(source): 1.0}
    for each in sources:
        if isinstance(each, str) and each.startswith("d4rl."):
            raise ValueError(
                f"offline_data(input_={each!r}): D4RL's sets are not downloaded here; Minari has them, as "
                "'minari:NAME', and `athlete record` makes others"
            )
        if isinstance(each, str) and "://" in each:
            raise ValueError(f"offline_data(input_={each!r}): files are read from this machine's disk; copy it there")
    return dict(sources)


def tell_of_spaces(config: AlgorithmConfig) -> None:
    """Say so where spaces are given and an environment has its own."""
    for name in SPACES:
        if config.env is not None and config[name] is not None:
            logger.warning("environment(%s=...) has no effect: spaces are the environment's own", name)


def require_learnable(config: AlgorithmConfig) -> None:
    """Raise ValueError where the settings `offline_data(...)` do not fit the algorithm or the rest."""
    title = config.algorithm_name
    if not config.offline and "replay_buffer_config" not in config:
        raise ValueError(
            f"{title}: it learns from its own latest steps, and not from recorded ones; BC, MARWIL and algorithms that "
            "learn from replay do (`athlete list algorithms`)"
        )
    for name in config.input_config:
        if name not in INPUT_SETTINGS:
            raise ValueError(
                f"offline_data(input_config={{{name!r}: ...}}): there is no {name!r}; there are "
                f"{', '.join(INPUT_SETTINGS)}"
            )
    _require_capacity(config)
    if config.model.get("use_lstm") and SAMPLER in shares_of(config.input_, config.input_config):
        raise ValueError(f"{title}: recorded steps hold no recurrent state, and those that are collected do")
    if config.policies is not None:
        raise ValueError(f"{title}: recorded data are of one agent, and policies={list(config.policies)} were given")


def _require_capacity(config: AlgorithmConfig) -> None:
    """Raise ValueError where data cannot be read part by part, `capacity` steps at a time."""
    capacity = config.input_config.get("capacity")
    if capacity is None:
        return
    if not isinstance(capacity, int) or isinstance(capacity, bool) or capacity < 1:
        raise ValueError(
            f"offline_data(input_config={{'capacity': {capacity!r}}}): expected a whole number of steps, 1 or more"
        )
    if not config.is_offline():
        raise ValueError(
            f"{config.algorithm_name}: input_config={{'capacity': {capacity}}} reads data part by part between the "
            "iterations of a training that collects nothing; leave it out beside 'sampler'"
        )
    kind = str(config.get("replay_buffer_config", {}).get("type", ""))
    if MEMORIES.get(kind, "uniform") != "uniform" and "replay_buffer_config" in config.chosen():
        raise ValueError(
            f"{config.algorithm_name}: replay_buffer_config has the type {kind!r}, and of data that are read part by "
            "part steps are drawn uniformly; take 'ReplayBuffer', or leave input_config={'capacity': ...} out"
        )


OUTPUT_FORMATS = ("safetensors", "json", "npz", "parquet")


def require_writable(config: AlgorithmConfig) -> None:
    """Raise ValueError where what is collected cannot be written as `offline_data(output=...)` says."""
    title, chosen = config.algorithm_name, config.output_config
    for name in chosen:
        if name != "format":
            raise ValueError(f"offline_data(output_config={{{name!r}: ...}}): there is no {name!r}; there is 'format'")
    if (kind := chosen.get("format", OUTPUT_FORMATS[0])) not in OUTPUT_FORMATS:
        raise ValueError(
            f"offline_data(output_config={{'format': {kind!r}}}): expected one of {', '.join(OUTPUT_FORMATS)}"
        )
    if config.is_offline():
        raise ValueError(
            f"{title}: output={config.output!r} is for what is collected, and it learns from recorded data"
        )
    if config.workers_act and config.num_rollout_workers and config.get("sample_async") is True:
        raise ValueError(
            f"{title}: output={config.output!r} writes whole episodes, and with sample_async=True trajectories of all "
            "rows are mixed as they come; set sample_async='lagged', or False"
        )


def _hashable(source: Any) -> Any:
    return tuple(source) if isinstance(source, list) else source


def _is_columns(value: Mapping) -> bool:
    return any(name in NAMES and not is_number(part) for name, part in value.items())


def _is_path(value: Any) -> bool:
    return hasattr(value, "__fspath__")


def _is_frame(value: Any) -> bool:
    """Whether it is pandas', without importing it."""
    return type(value).__name__ == "DataFrame"
