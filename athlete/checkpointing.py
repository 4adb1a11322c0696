"""What a checkpoint says of a training, and whether one fits it: `Algorithm.save` and `restore` but for the disk."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from athlete.core import Run, Spec, Tree
from athlete.env.registry import foreign_code
from athlete.env.world import env_name
from athlete.models.catalog import MODEL_DEFAULTS
from athlete.record.checkpoint import CheckpointError, space_to_json
from athlete.record.portable import to_portable
from athlete.settings.config import AlgorithmConfig
from athlete.version import __version__


def metadata_of(config: AlgorithmConfig, spec: Spec, counters: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The metadata of a checkpoint, as JSON, but for how its training runs: rows, and whether it is compiled."""
    return {
        "algorithm": config.algorithm_name,
        "environment": env_name(config.env),
        "observation_space": space_to_json(spec.obs),
        "action_space": space_to_json(spec.action),
        "config": to_portable(config.chosen()),
        "seed": seed,
        "counters": dict(counters),
        "versions": {
            "athlete": __version__,
            "jax": jax.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def learner_part(run: Run, with_memory: bool, with_timesteps: bool = True) -> dict[str, Tree]:
    """What a checkpoint keeps wherever the environments live."""
    part = {"state": run.state, "key": run.key, "iteration": run.iteration}
    if with_timesteps:
        part["timesteps"] = run.timesteps
    return {**part, "store": run.store} if with_memory else part


def counts_timesteps(counters: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's arrays tell its timesteps; those of version 0.1 count iterations alone."""
    return "memory_since_timesteps" in counters


def memory_since(counters: Mapping[str, Any], iteration: int) -> int:
    """The timestep at which the memory that a checkpoint brings was empty: its last where it brings none."""
    total = counters["timesteps_total"]
    if not counters["stores_memory"]:
        return total
    if counts_timesteps(counters):
        return counters["memory_since_timesteps"]
    return counters.get("memory_since", 0) * total // max(iteration, 1)


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
            f"{name.rpartition(':' if ':' in name else '.')[0]!r} first if you trust it, or pass env="
        )
