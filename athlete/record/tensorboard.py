"""TensorBoard event files: one event a result, all scalars of the result in it.

The x axis is `timesteps_total`, or `training_iteration` where a trainable counts no steps. Tags are chosen by `tag`.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from athlete.record.results import FLUSH_SECONDS, is_number

_NOT_CHARTED = {"timestamp", "pid", "seed", "done", "trial_id", "experiment_id", "iterations_since_restore"}
_NOT_CHARTED |= {"timesteps_since_restore", "time_since_restore", "training_iteration", "timesteps_total"}
COMPARED = ("train/episode_reward_mean", "evaluation/episode_reward_mean")  # tags, on the HParams page
_MOST_FLOAT32 = 3.4028234e38


def tag(key: str) -> str | None:
    """The TensorBoard tag of a flat result key, None where a curve would say nothing.

    `train/...`        everything at the top level: `train/episode_reward_mean`, `train/num_env_steps_sampled`
    `evaluation/...`   what evaluation found: `evaluation/episode_reward_mean`
    `learner/...`      losses: `info/learner/default_policy/learner_stats/entropy` is `learner/entropy`;
                       other policies keep their names, `learner/<policy>/entropy`
    Any other group keeps its own name: `timers/...`, `perf/...`, `custom_metrics/...`.
    """
    if key in _NOT_CHARTED or key.startswith("config/"):
        return None
    if key.startswith("info/learner/"):
        parts = key.removeprefix("info/learner/").split("/")
        return "/".join(["learner"] + [part for part in parts if part not in ("default_policy", "learner_stats")])
    return key if "/" in key else f"train/{key}"


class EventWriter:
    """Writes the scalars of results as TensorBoard events into a trial's folder.

    `purge_step` is for a resumed run: TensorBoard then hides what an earlier file has from that step on.
    """

    def __init__(self, folder: str | os.PathLike[str], purge_step: int | None = None):
        from tensorboardX import SummaryWriter
        from tensorboardX.proto.summary_pb2 import Summary

        self._summary = Summary
        # Names of files tell seconds: a resume within one must not write over the file before it.
        suffix = f".{os.getpid()}.{time.monotonic_ns()}"
        self._writer = SummaryWriter(
            os.fspath(folder), purge_step=purge_step, max_queue=1000, flush_secs=FLUSH_SECONDS, filename_suffix=suffix
        )

    def compare_by(self, settings: Mapping[str, Any]) -> None:
        """Say which settings, flat, the HParams page shows this training with, beside its mean rewards."""
        from tensorboardX.summary import hparams

        told = {name: value for name, value in settings.items() if isinstance(value, (str, bool, int, float))}
        begin = hparams(told, dict.fromkeys(COMPARED))[:2]  # the third would say that it has ended
        for summary in begin:
            self._writer._get_file_writer().add_summary(summary)

    def write(self, flat: dict[str, Any]) -> None:
        """Take in one flattened result."""
        # One summary of all scalars: `add_scalar` writes an event each, at ten times the cost.
        summary = self._summary()
        for key, value in flat.items():
            name = tag(key)
            if name is not None and is_number(value):
                summary.value.add(tag=name, simple_value=_float32(value))
        self._writer._get_file_writer().add_summary(summary, step_of(flat))

    def film(self, path: str | os.PathLike[str], step: int) -> None:
        """Take in a film as the moving picture `films/NAME`, small and at most some seconds long."""
        from athlete.record.video import as_gif

        # The writer's own `add_video` wants another package, to write the same GIF.
        data, height, width = as_gif(Path(path))
        summary = self._summary()
        picture = self._summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        summary.value.add(tag=f"films/{Path(path).stem}", image=picture)
        self._writer._get_file_writer().add_summary(summary, step)

    def flush(self) -> None:
        """Put everything taken in so far into the file."""
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def step_of(flat: dict[str, Any]) -> int:
    """Where a result stands on the x axis."""
    step = flat.get("timesteps_total")
    if is_number(step) and math.isfinite(step):
        return int(step)
    return int(flat.get("training_iteration", 0))


def _float32(value: Any) -> float:
    """A number beyond float32's range as infinity."""
    number = float(value)
    return math.copysign(math.inf, number) if math.isfinite(number) and abs(number) > _MOST_FLOAT32 else number
