"""Several processes that train as one, each with devices of its own: on one machine or on many (`jax.distributed`).

All of them run the same script. Each has the rows of its own devices, and what is on every device. Programs are
those of all devices, so that every process calls the same methods in the same order. The first one writes.
"""

from __future__ import annotations

import jax
import numpy as np
from jax.experimental import multihost_utils

from athlete.settings.config import AlgorithmConfig


def connect(config: AlgorithmConfig) -> None:
    """Join the others, where the settings say where they are and nobody has called `jax.distributed.initialize`."""
    address = config.coordinator_address
    if address is None or jax.distributed.is_initialized():
        return
    try:
        jax.distributed.initialize(address, config.num_processes, config.process_id)
    except RuntimeError as error:
        raise RuntimeError(
            f"learners(coordinator_address={address!r}, num_processes={config.num_processes}, "
            f"process_id={config.process_id}): {error}. Build the algorithm before anything else that uses JAX"
        ) from error


def are_several() -> bool:
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this process writes checkpoints and results."""
    return jax.process_index() == 0


def agreed(seed: int) -> int:
    """The first process's seed."""
    if not are_several():
        return seed
    halves = np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32)
    high, low = multihost_utils.broadcast_one_to_all(halves)
    return int(high) << 32 | int(low)


def wait_for_all(what: str) -> None:
    """Wait until every process is here."""
    if are_several():
        multihost_utils.sync_global_devices(what)


def require_together(config: AlgorithmConfig, is_compiled: bool) -> None:
    """Raise ValueError where several processes cannot train as one."""
    if not are_several():
        return
    why = None
    if not is_compiled or config.is_offline():
        why = "the environment has to be compiled (`athlete check` says whether it is)"
    elif config.min_time_s_per_iteration:
        why = "min_time_s_per_iteration ends an iteration at another time in each; leave it out"
    elif config.output is not None:
        why = "what is collected is not written; leave output out"
    if why is not None:
        raise ValueError(f"{config.algorithm_name}: {jax.process_count()} processes train together, and {why}")
