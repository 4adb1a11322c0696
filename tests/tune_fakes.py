"""For the tests of tune: a trainable without a network, which counts, and a searcher that halves."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from athlete.tune.search import Searcher
from athlete.tune.space import Path as ConfigPath


class Counter:
    """Reward `gain * iteration`; `fail_at`, `fail_once` (a marker file), `die_at`, `sleep`, `evaluation_interval`."""

    def __init__(self, config: dict[str, Any]):
        self.config, self.iteration = config, 0
        if config.get("bad"):
            raise ValueError("the config is bad")

    def train(self) -> dict[str, Any]:
        self.iteration += 1
        time.sleep(self.config.get("sleep", 0))
        if self.iteration == self.config.get("die_at"):
            os._exit(7)
        if self.iteration == self.config.get("fail_at") and self._fails():
            raise RuntimeError("the environment broke")
        reward = self.config.get("gain", 1.0) * self.iteration
        result: dict[str, Any] = {
            "training_iteration": self.iteration,
            "timesteps_total": 100 * self.iteration,
            "episode_reward_mean": reward,
            "info": {"learner": {"default_policy": {"learner_stats": {"entropy": 1.0 / self.iteration}}}},
        }
        interval = self.config.get("evaluation_interval")
        if interval and self.iteration % interval == 0:
            result["evaluation"] = {"episode_reward_mean": 2 * reward}
        return result

    def _fails(self) -> bool:
        marker = self.config.get("fail_once")
        if marker is None:
            return True
        failed_before = Path(marker).exists()
        Path(marker).touch()
        return not failed_before

    def save(self, checkpoint_dir: str) -> str:
        beside = Path(checkpoint_dir).with_name(f".tmp-{Path(checkpoint_dir).name}")  # whole or not at all
        beside.mkdir(parents=True)
        (beside / "count.json").write_text(json.dumps(self.iteration))
        beside.rename(checkpoint_dir)
        return checkpoint_dir

    def restore(self, checkpoint_path: str) -> None:
        self.iteration = json.loads((Path(checkpoint_path) / "count.json").read_text())

    def stop(self) -> None:
        pass


class Halves(Searcher):
    """Suggests half of what the last suggestion was; remembers what it was told."""

    def __init__(self, **names: Any):
        super().__init__(**names)
        self.gain, self.told, self.resumed = 8.0, [], []

    def suggest(self, trial_id: str) -> dict[ConfigPath, Any] | None:
        self.gain /= 2
        return {("gain",): self.gain}

    def on_trial_complete(self, trial_id: str, score: float | None) -> None:
        self.told.append((trial_id, score))

    def resume(self, trials: Any) -> None:
        self.resumed = list(trials)
        self.gain = min(picks[("gain",)] for _, picks, _, _ in self.resumed)


def saved_iterations(folder: str | Path) -> list[int]:
    """Which checkpoints a trial's folder holds."""
    return sorted(int(path.name.removeprefix("checkpoint_")) for path in Path(folder).glob("checkpoint_*"))
