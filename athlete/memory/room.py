"""How much memory a replay store takes, asked before it is taken."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax

from athlete.core import Memory, Transition, Tree

MEMINFO = Path("/proc/meminfo")
SPARE = 0.1  # of the memory that is available: left to networks, batches and the environments


def store_bytes(memory: Memory, example: Transition, rows: int) -> int:
    """How many bytes the memory's store takes for transitions like `example`, without taking them.

    `example` is one transition of one row, of arrays or of what `jax.eval_shape` gives.
    """
    shapes: Tree = jax.eval_shape(lambda example: memory.init(example, rows), example)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def available_bytes() -> int | None:
    """Main memory that can be taken without swapping; None where the system does not tell."""
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return None
    numbers = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(numbers[0]) * 1024 if numbers else None


def require_room(memory: Memory, example: Transition, rows: int) -> str:
    """The sentence to log about the memory's size, to be asked for before `memory.init`; "" where it stores nothing.

    `example` is one transition of one row, of arrays or of what `jax.eval_shape` gives. Raises ValueError, naming the
    largest capacity that fits, where the store would take more than nine tenths of the machine's available memory.
    """
    needed = store_bytes(memory, example, rows)
    if needed == 0:
        return ""
    sized: Any = memory  # every memory that stores something has a capacity
    environments = "1 environment" if rows == 1 else f"{rows:,} environments"
    sentence = f"replay memory: {sized.capacity:,} timesteps of {environments}, {in_words(needed)}"
    available = available_bytes()
    if available is None or needed <= (1 - SPARE) * available:
        return sentence
    fitting = _fitting_capacity(sized, example, rows, int((1 - SPARE) * available))
    advice = f"take capacity={fitting:,} or less" if fitting else "not even the smallest capacity fits"
    raise ValueError(f"{sentence}, but this machine has {in_words(available)} available; {advice}")


def require_room_for_batch(timesteps: int, observation: Tree) -> None:
    """Raise ValueError where the observations of a batch take more than nine tenths of the machine's available memory.

    `observation` is one row `[1, ...]` of arrays.
    """
    each, available = sum(leaf.nbytes for leaf in jax.tree.leaves(observation)), available_bytes()
    if available is None or each * timesteps <= (1 - SPARE) * available:
        return
    raise ValueError(
        f"a batch: {timesteps:,} observations, {in_words(each * timesteps)}, but this machine has "
        f"{in_words(available)} available; take a train_batch_size, or num_envs_per_worker and "
        f"rollout_fragment_length together, of {int((1 - SPARE) * available) // each:,} or less"
    )


def require_room_for_population(members: Tree, setting: str) -> None:
    """Raise ValueError where members with leaves `[P, ...]` of these shapes, and the noise that they are made of, take
    more than nine tenths of the machine's available memory. `setting` says how many they are.
    """
    needed, available = 2 * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(members)), available_bytes()
    if available is not None and needed > (1 - SPARE) * available:
        raise ValueError(
            f"a population: {in_words(needed)}, but this machine has {in_words(available)} available; make {setting} "
            "or the network smaller"
        )


def _fitting_capacity(memory: Any, example: Transition, rows: int, limit: int) -> int:
    """The largest capacity, within rounding, whose store takes at most `limit` bytes; 0 if there is none."""
    size = store_bytes(memory, example, rows)
    while size > limit:
        capacity = min(memory.capacity - 1, memory.capacity * limit // size)
        memory = dataclasses.replace(memory, capacity=capacity)
        try:
            size = store_bytes(memory, example, rows)
        except ValueError:  # a row would not hold one window
            return 0
    return memory.capacity


def in_words(size: int) -> str:
    """Bytes for people, in powers of 1000: `6.2 MB`."""
    number = float(size)
    for unit in ("bytes", "kB", "MB"):
        if number < 1000:
            return f"{number:,.0f} bytes" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"
