"""The memory of on-policy algorithms: none."""

from __future__ import annotations

from athlete.core import Key, Memory, Transition, Tree, hyper


@hyper
class Latest(Memory):
    """Gives back the trajectory that was just collected, whole; stores nothing."""

    def init(self, example: Transition, rows: int) -> Tree:
        return ()

    def add(self, store: Tree, trajectory: Transition) -> Tree:
        return store

    def sample(self, store: Tree, trajectory: Transition, key: Key) -> Transition:
        return trajectory
