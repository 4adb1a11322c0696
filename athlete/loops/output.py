"""What a training collects, episode by episode, for whoever writes it down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from athlete.core import Key, Source, SourceWrapper, Step, Transition, Tree
from athlete.spaces import Space, to_environment

Write = Callable[[Transition], None]  # takes whole episodes, `[N, ...]`, actions as the environment took them


class EpisodeOutput:
    """Gathers the steps of rows into whole episodes, and has these written once they take `most_bytes`."""

    def __init__(self, rows: int, action_space: Space, write: Write, most_bytes: int):
        self._space, self._write, self._most_bytes = action_space, write, most_bytes
        self._running: list[list[Transition]] = [[] for _ in range(rows)]
        self._whole: list[Transition] = []
        self._bytes = 0

    def take(self, steps: Transition) -> None:
        """The next steps `[T, B, ...]` of all rows, as NumPy arrays, with canonical actions."""
        steps = steps._replace(action=to_environment(self._space, steps.action), carry=(), extras={})
        done = steps.terminated | steps.truncated
        for row, running in enumerate(self._running):
            start = 0
            for end in [*(np.flatnonzero(done[:, row]) + 1).tolist(), len(done)]:
                if end > start:
                    running.append(jax.tree.map(lambda leaf, r=row, s=start, e=end: leaf[s:e, r].copy(), steps))
                if end > start and done[end - 1, row]:
                    self._complete(running)
                start = end
        if self._bytes >= self._most_bytes:
            self.flush()

    def cut(self) -> None:
        """The rows begin new episodes: what they were in ends here."""
        for running in self._running:
            if running:
                running[-1].truncated[-1] = not running[-1].terminated[-1]
                self._complete(running)

    def flush(self) -> None:
        """Have the episodes written that are whole."""
        if self._whole:
            self._write(_joined(self._whole))
            self._whole, self._bytes = [], 0

    def _complete(self, running: list[Transition]) -> None:
        self._whole.append(_joined(running))
        self._bytes += sum(leaf.nbytes for leaf in jax.tree.leaves(self._whole[-1]))
        running.clear()


def _joined(parts: list[Transition]) -> Transition:
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


class OutputSource(SourceWrapper):
    """The rows of `source`, each step of which goes to `output` too."""

    def __init__(self, source: Source, output: EpisodeOutput):
        super().__init__(source)
        self._output = output
        self._obs: Tree = ()
        self._first: Any = np.ones(self.rows, bool)

    def reset(self, key: Key) -> Tree:
        self._output.cut()
        self._obs, self._first = self.source.reset(key), np.ones(self.rows, bool)
        return self._obs

    def step(self, action: Tree, key: Key) -> Step:
        step = self.source.step(action, key)
        taken, flags = self.source.taken_of(action), (step.terminated, step.truncated)
        transition = Transition(self._obs, self._first, taken, step.reward, step.obs, *flags, (), {})
        self._output.take(jax.tree.map(lambda leaf: np.array(leaf)[None], transition))
        self._obs, self._first = step.obs, step.terminated | step.truncated
        return step

    def reset_where(self, done: Any, obs: Tree, key: Key) -> Tree:
        self._obs = self.source.reset_where(done, obs, key)
        return self._obs
