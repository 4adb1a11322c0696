"""Which checkpoints of a training are kept, and how good each is."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from athlete.record.names import TuneError, advice, lookup
from athlete.record.results import is_number


@dataclass(frozen=True)
class Checkpoint:
    """A saved state of a training: where it is, after which iteration, and its value of `checkpoint_score_attr`."""

    path: str
    iteration: int
    score: float | None = None


def checkpoint_name(iteration: int) -> str:
    return f"checkpoint_{iteration:06d}"


def checkpoint_score(attribute: str | None, result: Mapping[str, Any]) -> float | None:
    """How good a checkpoint is by `checkpoint_score_attr`: higher is better; `min-loss` turns the order round.

    None where the result says nothing: no attribute asked for, no evaluation on this iteration, NaN.
    """
    if attribute is None:
        return None
    sign, key = signed(attribute)
    value = lookup(result, key)
    if value is None and key.startswith("evaluation/") and not result.get("evaluation"):
        return None
    if value is None or not is_number(value):
        raise TuneError(
            f"checkpoint_score_attr={attribute!r}: the results have no number {key!r}; {advice(key, result)}"
        )
    return sign * float(value) if math.isfinite(float(value)) else None


def signed(attribute: str) -> tuple[float, str]:
    """The result that `checkpoint_score_attr` names, and the sign that makes higher better."""
    return (-1.0, attribute[4:]) if attribute.startswith("min-") else (1.0, attribute)


def ranked(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """The best first; of equal ones, and where there are no scores, the newest."""

    def rank(checkpoint: Checkpoint) -> tuple[float, int]:
        return (-math.inf if checkpoint.score is None else checkpoint.score), checkpoint.iteration

    return sorted(checkpoints, key=rank, reverse=True)


def kept(checkpoints: Sequence[Checkpoint], keep: int | None) -> list[Checkpoint]:
    """Delete all but the `keep` best of `checkpoints`, oldest first, and never the newest, which a resume needs.

    Those that stay.
    """
    if keep is None or len(checkpoints) <= keep:
        return list(checkpoints)
    staying = {*ranked(checkpoints)[:keep], checkpoints[-1]}
    for checkpoint in checkpoints:
        if checkpoint not in staying:
            shutil.rmtree(checkpoint.path, ignore_errors=True)
    return [checkpoint for checkpoint in checkpoints if checkpoint in staying]


class Keeper:
    """The checkpoints that a loop over `train()` saves by itself: every `frequency` iterations, or, where there is no
    frequency, every `seconds` (or so that saving takes a twentieth of the time); the best `keep` stay.
    """

    def __init__(self, frequency: int, keep: int | None, attribute: str | None, seconds: float = math.inf):
        self._frequency, self._keep, self._attribute, self._seconds = frequency, keep, attribute, seconds
        self._due = time.monotonic() + seconds
        self.checkpoints: list[Checkpoint] = []

    def take(self, result: Mapping[str, Any], save: Callable[[], str]) -> None:
        """Save after an iteration whose turn it is. Raises TuneError for a score that results do not have."""
        if not self._frequency and self._seconds == math.inf:
            return
        score = checkpoint_score(self._attribute, result)
        iteration, began = int(result["training_iteration"]), time.monotonic()
        if iteration % self._frequency == 0 if self._frequency else began >= self._due:
            new = Checkpoint(save(), iteration, score)
            ended = time.monotonic()
            self._due = ended + max(self._seconds, 20 * (ended - began))
            others = [old for old in self.checkpoints if old.path != new.path]
            self.checkpoints = kept([*others, new], self._keep)

    @property
    def best(self) -> str | None:
        """The path of the best; without scores the newest, None where there is none."""
        return ranked(self.checkpoints)[0].path if self.checkpoints else None
