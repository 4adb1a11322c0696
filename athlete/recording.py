"""What a loop over `train()` leaves in its folder: the files of `tune.run`'s trials, from its first result on."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from athlete.env.world import env_name
from athlete.log import logger
from athlete.loops.progress import Progress
from athlete.record.about import write_about
from athlete.record.recorder import Monitor, Recorder, make_room
from athlete.record.results import write_params
from athlete.settings.config import AlgorithmConfig
from athlete.totals import episode_returns


class Recording:
    """The record of one training in `folder`, which is made for its first result.

    A file that cannot be written ends the record with a warning, and the training goes on. `logdir=False` keeps none,
    and so does, for a whole process, an empty `$ATHLETE_RESULTS_DIR` where `logdir` says nothing.
    """

    def __init__(self, config: AlgorithmConfig, folder: Path):
        self._config, self._folder = config, folder
        unset_here = config.logdir is None and os.environ.get("ATHLETE_RESULTS_DIR") == ""
        self.is_on = config.logdir is not False and not unset_here
        self._recorder: Recorder | None = None
        self._monitor: Monitor | None = None

    def write(self, result: Mapping[str, Any], progress: Progress) -> None:
        """Take in the result of one `train()` and the episodes that ended in it."""
        if not self.is_on:
            return
        try:
            if self._recorder is None:
                self._open(result)
            assert self._recorder is not None
            self._recorder.write(result)
            if self._monitor is not None:
                returns = episode_returns(progress.returns)
                self._monitor.write(returns, progress.lengths, _entries(progress, len(returns)))
        except OSError as error:
            self.is_on = False
            logger.warning("%s: the training goes on, and its results are not kept any more", error)
            self.close()

    def show(self, films: Sequence[Path], timesteps: int) -> None:
        """Put films among TensorBoard's pictures, where results are being written."""
        if self._recorder is not None:
            for path in films:
                self._recorder.film(path, timesteps)

    def _open(self, first: Mapping[str, Any]) -> None:
        before = int(first["training_iteration"]) - 1
        aside = make_room(self._folder, before)
        if aside is not None:
            logger.warning("%s held the results of an earlier training; they are now in %s", self._folder, aside)
        self._recorder = Recorder(self._folder, first["timesteps_total"] if before else None, flush_seconds=0.0)
        self._recorder.compare_by(self._config.to_dict())
        write_params(self._folder, self._config.to_dict())
        write_about(self._folder, self._config.algorithm_name)
        if self._config.monitor:
            told = self._config.info_metrics
            names, began = told if isinstance(told, list) else (), time.time() - first["time_this_iter_s"]
            self._monitor = Monitor(self._folder, env_name(self._config.env), names, began)

    def close(self) -> None:
        """Close the files; a further result opens them again, after what the training goes on from."""
        recorder, monitor, self._recorder, self._monitor = self._recorder, self._monitor, None, None
        for writer in (recorder, monitor):
            with contextlib.suppress(OSError):
                if writer is not None:
                    writer.close()


def _entries(progress: Progress, episodes: int) -> list[Mapping[str, Any]]:
    """What `info_metrics` found at the end of each episode; empty where none were asked for."""
    if progress.info:
        columns = {name: values.tolist() for name, values in progress.info.items()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [told.custom_metrics for told in progress.told] if len(progress.told) == episodes else []
