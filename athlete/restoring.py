"""Reading a checkpoint back: the configuration that it was saved with, and the state that a training goes on from."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from athlete.checkpointing import (
    check_compatible,
    check_meaning,
    check_metadata,
    config_of,
    counts_timesteps,
    learner_part,
    memory_since,
    require_finite,
)
from athlete.core import Run
from athlete.log import logger
from athlete.loops.learn import MOST_TIMESTEPS
from athlete.loops.train import LoadStore, Training
from athlete.record.checkpoint import CheckpointError, open_checkpoint, read_metadata
from athlete.settings.config import AlgorithmConfig
from athlete.settings.devices import AUTO, wanted_devices
from athlete.teams import keeps_memory


class Saved(NamedTuple):
    """What a checkpoint holds of a training."""

    run: Run  # its store is None, and so are its rows where new episodes begin
    memory_since: int  # the timestep at which the memory was empty
    load_store: LoadStore | None  # reads the memory, where the checkpoint has it
    counters: Mapping[str, Any]
    seed: int


def read_training(path: str | Path, training: Training, config: AlgorithmConfig, compiled: bool) -> Saved:
    """What `training` goes on from, read from the checkpoint `path`.

    Raises CheckpointError with a sentence that says what does not fit, or which entry cannot be.
    """
    stored = open_checkpoint(path)
    metadata, spec = stored.metadata, training.agent.spec
    assert spec is not None
    check_metadata(metadata, path)
    counters = metadata["counters"]
    check_compatible(metadata, algorithm=config.algorithm_name, observation_space=spec.obs, action_space=spec.action)
    check_meaning(metadata["config"], config, path)
    shapes = training.shapes
    learner = stored.load("agent", learner_part(shapes, counts_timesteps(counters)))
    learner.setdefault("timesteps", np.uint32(min(counters["timesteps_total"], MOST_TIMESTEPS)))
    require_finite(learner["state"], f"{path} is not restored")
    since, load_store = memory_since(counters, learner, path), None
    if "memory" in stored.files:
        stored.require_fit("memory", shapes.store)
        load_store = functools.partial(stored.load, "memory", shapes.store)
    elif keeps_memory(training.agent) and not config.is_offline():
        logger.info("%s holds no replay memory: training fills a new one before it learns", path)
        since = int(learner["timesteps"])
    rows: Any = None
    if compiled:
        try:  # every sum is right by now: what can fail is that another environment has another state
            rows = stored.load("rows", shapes.rows)
        except CheckpointError:
            logger.warning("restored onto other environments than it was saved with: training starts new episodes")
    return Saved(Run(rows=rows, store=None, **learner), since, load_store, counters, metadata["seed"])


def read_config(path: str | Path, env: Any, settings: Mapping[str, Any]) -> AlgorithmConfig:
    """The configuration that the checkpoint `path` was saved with, `settings` and `env` in place of its own.

    Raises CheckpointError where it names code that its reader did not, or asks for more than a file may.
    """
    metadata = read_metadata(path)
    check_metadata(metadata, path)
    # Where results are written and which cluster is talked to is never for a file to say.
    given = ("callbacks", "logdir", "ray", *settings, *(() if env is None else ("env",)))
    if metadata["config"].get("ray"):
        settings = {"ray": "auto", **settings}
    config = config_of(metadata, path, given)
    wanted, found = wanted_devices(config) or 1, len(jax.devices())
    if wanted > found:
        logger.info("%s: it was trained on %d devices, and goes on on as many as there are of %d", path, wanted, found)
        settings = {"num_learners": AUTO, "num_gpus": 0, **settings}
    return config.ready(env, **settings)
