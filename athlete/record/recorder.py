"""The files of one training, whoever runs it: results, their curves, and a line for each episode."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from athlete.record.about import ABOUT
from athlete.record.files import named
from athlete.record.results import (
    FLUSH_SECONDS,
    PARAMS,
    PROGRESS,
    RESULTS,
    ResultWriter,
    cut_results,
    flatten,
    read_results,
    without_repeated,
)
from athlete.record.tensorboard import EventWriter

MONITOR = "monitor.csv"


class Recorder:
    """The open files of a running training: `result.json`, `progress.csv` and TensorBoard events.

    `purge_step` is for one that goes on: TensorBoard then hides what an earlier file has from that step on. Lines come
    into the files at once where `flush_seconds` is 0.
    """

    def __init__(
        self, folder: str | os.PathLike[str], purge_step: int | None = None, flush_seconds: float = FLUSH_SECONDS
    ):
        self._results = ResultWriter(folder, flush_seconds)
        self._events = EventWriter(folder, purge_step)

    def compare_by(self, settings: Mapping[str, Any]) -> None:
        """The settings by which TensorBoard's HParams page compares this training with others."""
        self._events.compare_by(flatten(settings))

    def write(self, result: Mapping[str, Any]) -> None:
        """Take in one result, without what it says twice."""
        told = without_repeated(result)
        flat = flatten(told)
        self._results.write(told, flat)
        self._events.write(flat)

    def film(self, path: Path, timesteps: int) -> None:
        """Take in a film for TensorBoard."""
        self._events.film(path, timesteps)

    def flush(self) -> None:
        """Put everything taken in so far into the files."""
        self._results.flush()
        self._events.flush()

    def close(self) -> None:
        """Write what is left and close the files, whatever becomes of each. Raises OSError, naming the file."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._events.close)
            stack.callback(self._results.close)


class Monitor:
    """`monitor.csv`, a line for each finished episode, in the form of Stable-Baselines3's Monitor.

    Its columns are `r`, the return, `l`, the length, `t`, when the `train()` that reported it ended, in seconds after
    `began` (of the first process that wrote the file), and one for each of `names`.
    """

    def __init__(self, folder: str | os.PathLike[str], env: str, names: Sequence[str], began: float):
        self._path, self._names = Path(folder) / MONITOR, list(names)
        before = _start_of(self._path)
        self._start = began if before is None else before
        with named(self._path):
            self._file = self._path.open("a", newline="", encoding="utf-8")
            if before is None:
                self._file.write(f"#{json.dumps({'t_start': self._start, 'env_id': env})}\n")
                csv.writer(self._file, lineterminator="\n").writerow(["r", "l", "t", *self._names])

    def write(self, returns: Iterable[float], lengths: Iterable[int], more: Sequence[Mapping[str, Any]]) -> None:
        """Append episodes; `more` has the other columns of each, or is empty."""
        seconds = round(time.time() - self._start, 6)
        rows: list[list[Any]] = [
            [round(float(total), 6), int(length), seconds] for total, length in zip(returns, lengths, strict=True)
        ]
        for number, row in enumerate(rows):
            row += [more[number].get(name, "") if more else "" for name in self._names]
        with named(self._path):
            csv.writer(self._file, lineterminator="\n").writerows(rows)
            self._file.flush()

    def close(self) -> None:
        with named(self._path):
            self._file.close()


def _start_of(path: Path) -> float | None:
    """When the first line of a monitor's file was written; None where there is no such file."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError), path.open(encoding="utf-8") as file:
        return float(json.loads(file.readline().removeprefix("#"))["t_start"])
    return None


def make_room(folder: Path, iteration: int) -> Path | None:
    """Let a training that has done `iteration` iterations write into `folder`: where what is not its own stepped aside.

    Earlier results go into a folder `earlier_DATE` beside; those up to `iteration`, which a restored training goes on
    from, also stay. None where there was nothing to step aside.
    """
    results = read_results(folder)
    last = max((int(result.get("training_iteration", 0)) for result in results), default=0)
    if not results or iteration == last:
        return None
    date = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime((folder / RESULTS).stat().st_mtime))
    aside = folder / f"earlier_{date}_{time.monotonic_ns() % 10**6:06d}"
    aside.mkdir()
    own = [folder / name for name in (ABOUT, PARAMS, RESULTS, PROGRESS, MONITOR)]
    for path in [*own, *folder.glob("events.out.tfevents.*")]:
        if path.exists() and iteration:
            shutil.copy2(path, aside)
        elif path.exists():
            path.rename(aside / path.name)
    if iteration:
        cut_results(folder, iteration)
    return aside
