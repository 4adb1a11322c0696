"""Many trainings of one program as one: seeds, and settings that are numbers in it, mapped over.

Each member's arithmetic is that of its own training, but XLA may add up in another order where many are side by side.
Trainings are chaotic, so a member is equal to a training of its own in distribution only.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from athlete.core import Agent, Array, Env, Run, Tree, Which
from athlete.loops.compiling import COMPILER_OPTIONS
from athlete.loops.learn import Phase, Report, iterate_many


@functools.partial(
    jax.jit,
    static_argnames=("length", "iterations", "random", "learning", "sample_async"),
    donate_argnames=("runs",),
    compiler_options=COMPILER_OPTIONS,
)
def _iterate_all(
    held: tuple[Agent, Env, Array],
    runs: Run,
    length: int,
    iterations: int,
    random: Which,
    learning: Which,
    sample_async: bool,
) -> tuple[Run, Report]:
    """`iterate_many` of every member, `[members, ...]`."""

    def one(held: tuple[Agent, Env, Array], run: Run) -> tuple[Run, Report]:
        agent, env, horizon = held
        return iterate_many(agent, env, length, iterations, horizon, run, random, learning, sample_async)

    return jax.vmap(one)(held, runs)


@jax.jit
def _side_by_side(members: Sequence[Tree]) -> Tree:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


@jax.jit
def _member(members: Tree, number: Array) -> Tree:
    return jax.tree.map(lambda leaf: leaf[number], members)


class Population:
    """The members' runs, `[members, ...]`, and what was not told them yet.

    Whoever asks first makes the next step for all, and the others find theirs done. `held` are each member's agent,
    environment and horizon, which differ in their arrays alone.
    """

    def __init__(self, held: Sequence[tuple[Agent, Env, Any]], runs: Sequence[Run], length: int, sample_async: bool):
        self._held = _side_by_side(tuple(held))
        self._runs = _side_by_side(tuple(runs))
        self._length, self._sample_async = length, sample_async
        self._done: list[deque[tuple[Phase, Report]]] = [deque() for _ in runs]

    def iterate(self, number: int, phase: Phase) -> Report:
        """The report of member `number` on its next iterations.

        Raises RuntimeError where it is at another point of its warm-up than those before it.
        """
        if not self._done[number]:
            self._iterate_all(phase)
        done, report = self._done[number].popleft()
        if done != phase:
            raise RuntimeError(
                f"mapped trainings are in step, and member {number} is at {phase} where others are at {done}"
            )
        return report

    def _iterate_all(self, phase: Phase) -> None:
        self._runs, reports = _iterate_all(self._held, self._runs, self._length, *phase, self._sample_async)
        reports = jax.device_get(reports)
        for number, done in enumerate(self._done):
            done.append((phase, jax.tree.map(lambda leaf, at=number: leaf[at], reports)))

    def run(self, number: int) -> Run:
        """A copy of the member's run."""
        return _member(self._runs, number)
