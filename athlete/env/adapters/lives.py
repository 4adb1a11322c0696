"""Where in its life each row is: what a message of `EnvError` ends with, so that what happened can be repeated."""

from __future__ import annotations

from typing import Any

import numpy as np


class Lives:
    """Seeds, episodes and steps of `rows` rows, and what they were asked last."""

    def __init__(self, rows: int):
        self._seeds: list[int | None] = [None] * rows
        self._resets = np.zeros(rows, int)  # since the seed
        self._begun = np.zeros(rows, int)  # how many vector steps had been taken when the episode began
        self._steps = 0
        self._actions: Any = None  # of the step under way; None in a reset

    def reset(self, where: np.ndarray, seed: int | None) -> None:
        """The rows `where` `[B]` begin an episode, row i seeded with `seed + i`, if at all."""
        self._actions = None
        self._begun[where] = self._steps
        self._resets[where] += 1
        if seed is not None:
            self._resets[where] = 0
            self._seeds = [seed + row if where[row] else old for row, old in enumerate(self._seeds)]

    def step(self, actions: Any) -> None:
        """All rows take a step with `actions` `[B, ...]`."""
        self._actions = actions
        self._steps += 1

    def tell(self, row: int) -> str:
        """The sentence about a row."""
        seed, resets = self._seeds[row], self._resets[row]
        seeded = "never seeded" if seed is None else f"seeded with {seed}"
        later = f", {resets} episode{'s' if resets > 1 else ''} later" if resets else ""
        steps = self._steps - self._begun[row]
        return f"This was row {row}, {seeded}{later}, in step {steps} of its episode, in {self.told_call(row)}"

    def told_call(self, row: int | None = None) -> str:
        """What was asked last, of a row or of all."""
        if self._actions is None:
            return "reset"
        return f"step({(self._actions if row is None else _of_row(self._actions, row))!r})"


def _of_row(tree: Any, row: int) -> Any:
    if isinstance(tree, tuple):
        return tuple(_of_row(part, row) for part in tree)
    if isinstance(tree, dict):
        return {name: _of_row(part, row) for name, part in tree.items()}
    return tree[row]
