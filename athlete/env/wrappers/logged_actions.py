"""Actions that a simulator chose by itself, in the place of those that its training gave."""

from __future__ import annotations

import jax
import numpy as np

from athlete.core import Array, Key, Source, SourceWrapper, Step, Tree
from athlete.spaces import to_canonical

LOGGED_ACTION = "logged_action"  # in an `info`: the action that the row took, as `env.step` would take it


class LoggedActionsSource(SourceWrapper):
    """Rows that tell in their `info` where they took another action than they were given."""

    def __init__(self, source: Source):
        super().__init__(source)
        self._taken: Tree | None = None

    @property
    def taken(self) -> Tree | None:  # type: ignore[override]
        return self._taken

    def reset(self, key: Key) -> Tree:
        return self.source.reset(key)

    def step(self, action: Tree, key: Key) -> Step:
        step = self.source.step(action, key)
        self._taken = jax.tree.map(np.array, action)
        for row, info in enumerate(step.info):
            if LOGGED_ACTION in info:
                logged = to_canonical(self.spec.action, info.pop(LOGGED_ACTION))  # no metric of the user's
                for taken, own in zip(jax.tree.leaves(self._taken), jax.tree.leaves(logged), strict=True):
                    taken[row] = own
        return step

    def reset_where(self, done: Array, obs: Tree, key: Key) -> Tree:
        return self.source.reset_where(done, obs, key)
