"""What one step's worth of replay costs, the memory nearly empty to full: add a transition, sample 32, give feedback.

    python benchmarks/memory_cost.py [--json FILE]

Everything runs inside one compiled scan, as in training, and every batch is written out whole. The figure is
the least of the repeats, in microseconds of processor time a step: the cost without what else the machine does. It
should not depend on the fill; what is left of a rise is that more memory fits the processor's caches less well.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from manifest import add_speed_options, require_idle, write_manifest

from athlete.core import Array, Memory, Transition, Tree
from athlete.loops.compiling import COMPILER_OPTIONS
from athlete.memory.prioritized import Prioritized
from athlete.memory.replay import Replay
from athlete.memory.room import in_words, require_room, store_bytes
from athlete.ops.random import wrap

FILLS = (0.01, 0.03, 0.1, 0.3, 1.0)


class Case(NamedTuple):
    title: str
    memory: Any
    shape: tuple[int, ...]  # of an observation
    dtype: Any
    steps: int  # in one timing


CASES = [
    Case("CartPole, uniform", Replay(capacity=1_000_000), (4,), np.float32, 2_000),
    Case("CartPole, prioritised", Prioritized(capacity=1_000_000), (4,), np.float32, 2_000),
    Case("pixels, uniform", Replay(capacity=10_000), (84, 84, 4), np.uint8, 10),
    Case("pixels, frames once", Replay(capacity=10_000, stack_axis=-1), (84, 84, 4), np.uint8, 10),
    Case("pixels, frames once, prioritised", Prioritized(capacity=10_000, stack_axis=-1), (84, 84, 4), np.uint8, 10),
]


def transition_of(case: Case) -> Transition:
    """One transition in the middle of an episode, without leading axes."""
    obs, flag = jnp.zeros(case.shape, case.dtype), jnp.zeros((), bool)
    return Transition(obs, flag, jnp.zeros((), jnp.int32), jnp.ones(()), obs, flag, flag, (), {})


def add_many(memory: Memory, store: Tree, trajectory: Transition, steps: int) -> Tree:
    return jax.lax.scan(lambda store, _: (memory.add(store, trajectory), None), store, length=steps)[0]


def step_many(memory: Memory, store: Tree, batch: Transition, trajectory: Transition, keys: Array) -> tuple:
    """Add, sample and give feedback once for each of the keys; the batch is a carry, so that all of it is made."""

    def step(carried: tuple, key: Array) -> tuple:
        store = memory.add(carried[0], trajectory)
        batch = memory.sample(store, trajectory, wrap(key), jnp.zeros(()))
        noise = jax.random.normal(wrap(key), batch.reward.shape[1:])
        return (memory.feedback(store, batch, {"td_error": batch.reward[0] * noise}), batch), None

    return jax.lax.scan(step, (store, batch), keys)[0]


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Microseconds a step at each fill; prints a line of the table."""
    memory = case.memory
    example = transition_of(case)
    require_room(memory, example, 1)
    trajectory = jax.tree.map(lambda leaf: leaf[None, None], example)
    jit = functools.partial(jax.jit, compiler_options=COMPILER_OPTIONS)
    store = jit(lambda: memory.init(example, 1))()
    shapes = jax.eval_shape(lambda store: memory.sample(store, trajectory, wrap(np.zeros(2, np.uint32)), 0.0), store)
    batch = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    add = jit(functools.partial(add_many, memory), donate_argnums=0, static_argnames="steps")
    step = jit(functools.partial(step_many, memory), donate_argnums=(0, 1))
    microseconds, added = [], 0
    for seed, fill in enumerate(FILLS):
        missing = round(fill * memory.capacity) - added
        store, added = add(store, trajectory, steps=missing), added + missing
        spent = []
        for repeat in range(rounds + 1):  # the first compiles
            keys = np.random.default_rng((seed, repeat)).integers(0, 2**32, (case.steps, 2), np.uint32)
            start = time.process_time()
            store, batch = jax.block_until_ready(step(store, batch, trajectory, keys))
            spent.append(time.process_time() - start)
            added += case.steps
        microseconds.append(round(min(spent[1:]) / case.steps * 1e6, 2))
    size = store_bytes(memory, example, 1)
    figures = "".join(f"{number:10.1f}" for number in microseconds)
    print(f"{case.title:34}{memory.capacity:>10,}{in_words(size):>11}{figures}", flush=True)
    by_fill = dict(zip(map(str, FILLS), microseconds, strict=True))
    return {"title": case.title, "capacity": memory.capacity, "bytes": size, "cpu_microseconds_a_step_by_fill": by_fill}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_speed_options(parser, rounds=20)
    arguments = parser.parse_args()
    require_idle(arguments)
    print(
        f"{'CPU microseconds a step, batch 32':34}{'timesteps':>10}{'size':>11}" + "".join(f"{f:>10.0%}" for f in FILLS)
    )
    figures = [measure(case, arguments.rounds) for case in CASES]
    if arguments.json:
        write_manifest(arguments.json, figures, {"athlete": sys.executable})


if __name__ == "__main__":
    main()
