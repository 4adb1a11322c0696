"""What a checkpoint says of a training, and whether one fits it: `Algorithm.save` and `restore` but for the disk."""

from __future__ import annotations

import math
import platform
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from athlete.algorithms import get_config_class
from athlete.core import Run, Spec, Tree
from athlete.env.registry import foreign_code
from athlete.env.world import env_name
from athlete.models.catalog import MODEL_DEFAULTS
from athlete.ops.finite import first_nonfinite
from athlete.record.errors import CheckpointError, DamagedError
from athlete.record.portable import from_portable, to_portable
from athlete.record.space_json import groups_from_json, groups_to_json, space_from_json, space_to_json
from athlete.settings.config import AlgorithmConfig
from athlete.settings.devices import PLACES
from athlete.settings.limits import excess
from athlete.spaces import Space
from athlete.version import __version__


def metadata_of(
    config: AlgorithmConfig, spec: Spec, counters: Mapping[str, Any], seed: int, agent_ids: Sequence[Any] = ()
) -> dict[str, Any]:
    """The metadata of a checkpoint, as JSON, but for how its training runs: rows, and whether it is compiled.

    `agent_ids` are the names of the agents, where `spec` has many of them.
    """
    many = {"groups": groups_to_json(spec.groups), "agent_ids": list(map(str, agent_ids))} if spec.groups else {}
    return many | {
        "algorithm": config.algorithm_name,
        "environment": env_name(config.env),
        "observation_space": space_to_json(spec.obs),
        "action_space": space_to_json(spec.action),
        "config": to_portable({name: value for name, value in config.chosen().items() if name not in PLACES}),
        "seed": seed,
        "counters": dict(counters),
        "versions": {
            "athlete": __version__,
            "jax": jax.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def spec_of_metadata(metadata: Mapping[str, Any]) -> Spec:
    """The spaces that a checkpoint was trained with, and its agents where there are many."""
    obs, action = (space_from_json(metadata[name]) for name in ("observation_space", "action_space"))
    return Spec(obs, action, groups_from_json(metadata.get("groups", [])))


def learner_part(run: Run, with_timesteps: bool = True) -> dict[str, Tree]:
    """What a checkpoint keeps wherever the environments live, but for the replay memory, which may be left out."""
    left_out = ("store", "rows") if with_timesteps else ("store", "rows", "timesteps")
    return {name: part for name, part in run._asdict().items() if name not in left_out}


def require_finite(state: Tree, what: str) -> None:
    """Raise DamagedError where a learner's state holds NaN or an infinity: nothing can be learned from it."""
    if (path := first_nonfinite(state)) is not None:
        raise DamagedError(
            f"{what}: {path!r} is not finite, so that this policy can neither act nor learn any more; go on from an "
            "older checkpoint, with a smaller learning rate or gradients clipped (grad_clip)"
        )


def counts_timesteps(counters: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's arrays tell its timesteps; those of version 0.1 count iterations alone."""
    return "memory_since_timesteps" in counters


def memory_since(counters: Mapping[str, Any], learner: Mapping[str, Any], path: Any) -> int:
    """The timestep at which a checkpoint's memory was empty. Raises DamagedError unless it lies in the training."""
    name, unit = "memory_since_timesteps", "timesteps"
    if not counts_timesteps(counters):
        name, unit = "memory_since", "iterations"
    since: Any = counters.get(name)
    done = int(learner["timesteps"] if unit == "timesteps" else learner["iteration"])
    if not _is_count(since) or since > done:
        raise DamagedError(f"{path} is damaged: its {name} is {since!r}, and {done} {unit} were done")
    return since if unit == "timesteps" else since * counters["timesteps_total"] // max(done, 1)


def check_meaning(saved: Mapping[str, Any], config: AlgorithmConfig, path: Any) -> None:
    """Raise CheckpointError where the arrays would fit, but would mean something else under these settings."""
    for name in ("observation_filter", "fcnet_activation"):
        there, here = (
            {**MODEL_DEFAULTS, **settings["model"], **settings}[name]
            for settings in ({**type(config)().to_dict(), **saved}, config.to_dict())
        )
        if there != here:
            raise CheckpointError(
                f"{path} was trained with {name}={there!r}, and here it is {here!r}: restore it with the settings that "
                "it was trained with, or with Algorithm.from_checkpoint, which needs no config"
            )


def refuse_code(config: Mapping[str, Any], path: Any) -> None:
    """Raise CheckpointError where a file names a module to import for an environment, or something else to call."""
    if (name := foreign_code(config)) is not None:
        raise CheckpointError(
            f"{path}: {name!r} is no environment class of a module that is imported here; import "
            f"{name.rpartition(':' if ':' in name else '.')[0]!r} first if you trust it, or pass env= "
            f"(athlete evaluate --env {name})"
        )


def config_of(metadata: Mapping[str, Any], path: Any, left_out: Iterable[str]) -> AlgorithmConfig:
    """The configuration that a checkpoint was trained with, but for the settings `left_out`.

    Raises CheckpointError where a setting asks for too much, or names code that is not imported here.
    """
    saved = {name: value for name, value in metadata["config"].items() if name not in set(left_out)}
    check_limits(saved, path)
    try:
        values = from_portable(saved)
    except LookupError as error:
        setting = str(error).removeprefix("config.").partition(":")[0].partition(".")[0]
        raise CheckpointError(f"{path}: {error}; give it again: from_checkpoint(path, {setting}=...)") from error
    refuse_code(values, path)
    values = {name: value for name, value in values.items() if name != "env" or value is not None}
    return get_config_class(metadata["algorithm"]).from_dict(values)


def progress_at(timesteps: int, horizon: float) -> np.float32:
    """The training's progress in [0, 1] after so many timesteps."""
    return np.float32(min(timesteps / horizon, 1.0))


def require_same_form(own: Tree, new: Tree) -> None:
    """Raise ValueError where the weights `new` cannot stand in the place of `own`."""
    if str(jax.tree.structure(own)) != str(jax.tree.structure(new)):
        raise ValueError("set_weights: these weights are of another network or algorithm")
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(own), jax.tree.leaves(new), strict=True):
        if np.shape(a) != np.shape(b):
            name = jax.tree_util.keystr(path)
            raise ValueError(f"set_weights: {name} has shape {np.shape(b)}, and here it has {np.shape(a)}")


def check_compatible(
    metadata: Mapping[str, Any], *, algorithm: str, observation_space: Space, action_space: Space
) -> None:
    """Raise CheckpointError unless `metadata` names this algorithm and these spaces.

    It reads the entries "algorithm" (a name), "observation_space" and "action_space" (`space_to_json`).
    """
    if metadata.get("algorithm") != algorithm:
        raise CheckpointError(
            f"the checkpoint was written by {metadata.get('algorithm')}, and this is {algorithm}: "
            f"restore it with {metadata.get('algorithm')}, or with Algorithm.from_checkpoint, which needs no config"
        )
    for entry, here in (("observation_space", observation_space), ("action_space", action_space)):
        there = space_from_json(metadata.get(entry))
        if there != here:
            raise CheckpointError(
                f"the checkpoint was trained with the {entry.replace('_', ' ')} {there}, and this environment has "
                f"{here}: restore it on the environment that it was trained on"
            )


# What metadata must hold. A checkpoint with right sums may still come from anywhere: each entry is looked at before
# anything is made from it.

_Check = tuple[Callable[[Any], bool], str]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_dictionary(value: Any) -> bool:
    return isinstance(value, Mapping)


def _are(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and all(check(part) for part in value)


_COUNT: _Check = (_is_count, "a whole number of at least 0")
_DICTIONARY: _Check = (_is_dictionary, "a dictionary")
_METADATA: dict[str, _Check] = {
    **dict.fromkeys(("algorithm", "environment"), (_is_text, "a text")),
    **dict.fromkeys(("observation_space", "action_space", "config", "counters", "versions"), _DICTIONARY),
    "seed": _COUNT,
    "rows": (lambda value: _is_count(value) and value > 0, "a whole number of at least 1"),
    "compiled": (lambda value: isinstance(value, bool), "true or false"),
}
_COUNTERS: dict[str, _Check] = {
    "iteration": (lambda value: _is_count(value) and value < 2**32, "a whole number below 2^32"),
    **dict.fromkeys(("timesteps_total", "learned_total", "episodes_total"), _COUNT),
    "time_total_s": (lambda value: _is_finite(value) and value >= 0, "a finite number of at least 0"),
    "window_returns": (_are(_is_finite), "a list of finite numbers"),
    "window_lengths": (_are(_is_count), "a list of whole numbers"),
}


def check_metadata(metadata: Mapping[str, Any], path: Any) -> None:
    """Raise DamagedError, naming the entry, unless the metadata are such as `metadata_of` gives."""
    for entries, value, where in ((_METADATA, metadata, ""), (_COUNTERS, metadata.get("counters"), "counters")):
        for name, (is_right, expected) in entries.items():
            full = f"{where}[{name!r}]" if where else repr(name)
            if not isinstance(value, Mapping) or name not in value:
                raise DamagedError(f"{path} is damaged: its metadata lack {full}")
            if not is_right(value[name]):
                raise DamagedError(
                    f"{path} is damaged: {full} is {reprlib.repr(value[name])}, and {expected} is expected"
                )
    counters = metadata["counters"]
    if len(counters["window_returns"]) != len(counters["window_lengths"]):
        raise DamagedError(f"{path} is damaged: its window_returns and window_lengths are not of one length")
    groups, ids = spec_of_metadata(metadata).groups, metadata.get("agent_ids", [])
    if not _are(_is_text)(ids) or len(ids) != sum(group.size for _, group in groups):
        raise DamagedError(f"{path} is damaged: its agent_ids, {reprlib.repr(ids)}, are not those of its groups")
    _check_agent_counters(counters, len(ids), path)


def _check_agent_counters(counters: Mapping[str, Any], agents: int, path: Any) -> None:
    """Raise DamagedError unless what counters tell of many agents is such as `Totals.counters` gives."""
    steps, returns = counters.get("agent_timesteps_total", 0), counters.get("window_agent_returns", [])
    if not _is_count(steps):
        raise DamagedError(f"{path} is damaged: its agent_timesteps_total is {reprlib.repr(steps)}")
    if not _are(_are(_is_finite))(returns) or any(len(row) != agents for row in returns):
        raise DamagedError(f"{path} is damaged: its window_agent_returns are not lists of {agents} finite numbers")


def check_limits(config: Mapping[str, Any], path: Any) -> None:
    """Raise CheckpointError where a file's configuration asks for more processes, rows, memory or time than it may.

    `config` is the saved one, as JSON, without what the caller says instead.
    """
    if (found := excess(config)) is not None:
        name, asked = found
        raise CheckpointError(
            f"{path}: config[{name!r}] asks for {asked}; if you want it, say so yourself: "
            f"from_checkpoint(path, {name}=...)"
        )
