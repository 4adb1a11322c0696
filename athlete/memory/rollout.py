"""The memory of on-policy algorithms: none."""

from __future__ import annotations

from typing import ClassVar

from athlete.core import Array, Key, Memory, Transition, Tree, hyper


@hyper
class Rollout(Memory):
    """Gives back the trajectory that was just collected, whole; stores nothing."""

    keeps: ClassVar[bool] = False

    def init(self, example: Transition, rows: int) -> Tree:
        return ()

    def add(self, store: Tree, trajectory: Transition) -> Tree:
        return store

    def sample(self, store: Tree, trajectory: Transition, key: Key, progress: Array) -> Transition:
        return trajectory
