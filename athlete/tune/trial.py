"""One trial: its config, folder, status, last result and checkpoints. A plain record; `runner` makes it happen."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from athlete.record.files import sweep
from athlete.record.keeping import Checkpoint, checkpoint_name, kept
from athlete.record.results import is_number
from athlete.tune.space import Path as ConfigPath
from athlete.tune.space import path_name

PENDING, RUNNING, PAUSED, TERMINATED, ERROR = "PENDING", "RUNNING", "PAUSED", "TERMINATED", "ERROR"

_CHECKPOINT = re.compile(r"checkpoint_(\d{6,})")
_LONGEST_NAME, LONGEST_FOLDER = 60, 120


@dataclass
class Trial:
    """One training with one config.

    `picks` is what the search put into the config, by path; `changes` is what the scheduler has put there since.
    `status` is PENDING, RUNNING, PAUSED (interrupted, can be resumed, or waiting for others), TERMINATED (reached its
    stop) or ERROR. `last_result` is nested as it was reported.
    """

    trial_id: str
    index: int
    name: str
    config: dict[str, Any]
    folder: Path
    picks: dict[ConfigPath, Any] = field(default_factory=dict)
    changes: dict[ConfigPath, Any] = field(default_factory=dict)
    experiment_tag: str = ""
    status: str = PENDING
    last_result: dict[str, Any] = field(default_factory=dict)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    failures: int = 0
    progress: float | None = None  # towards the stop, in [0, 1], as far as it can be told

    def __str__(self) -> str:
        return self.name

    @property
    def logdir(self) -> str:
        """The trial's folder."""
        return str(self.folder)

    local_path = path = logdir

    @property
    def iteration(self) -> int:
        """Iterations done so far."""
        return int(self.last_result.get("training_iteration", 0))

    @property
    def evaluated_params(self) -> dict[str, Any]:
        """What the search and the scheduler chose: `{"model/width": 64}`."""
        return {path_name(path): value for path, value in {**self.picks, **self.changes}.items()}

    @property
    def checkpoint(self) -> str | None:
        """The path of the newest checkpoint."""
        return self.checkpoints[-1].path if self.checkpoints else None

    @property
    def error_file(self) -> str | None:
        """The file with the tracebacks of its failures, if there were any."""
        path = self.folder / "error.txt"
        return str(path) if path.exists() else None

    def to_state(self) -> dict[str, Any]:
        """What `experiment_state.json` holds of the trial; paths are relative, so that folders can be moved."""
        checkpoints = [
            {"path": Path(checkpoint.path).name, "iteration": checkpoint.iteration, "score": checkpoint.score}
            for checkpoint in self.checkpoints
        ]
        return {
            "trial_id": self.trial_id,
            "index": self.index,
            "name": self.name,
            "folder": self.folder.name,
            "status": self.status,
            "failures": self.failures,
            "experiment_tag": self.experiment_tag,
            "picks": [[list(path), value] for path, value in self.picks.items()],
            "changes": [[list(path), value] for path, value in self.changes.items()],
            "config": self.config,
            "last_result": self.last_result,
            "checkpoints": checkpoints,
        }

    @classmethod
    def from_state(cls, experiment: Path, state: Mapping[str, Any]) -> Trial:
        """The trial as `experiment_state.json` describes it, with the checkpoints that its folder really has."""
        folder = experiment / state["folder"]
        trial = cls(
            trial_id=state["trial_id"],
            index=int(state["index"]),
            name=state["name"],
            config=dict(state["config"]),
            folder=folder,
            picks={tuple(path): value for path, value in state["picks"]},
            changes={tuple(path): value for path, value in state.get("changes", ())},
            experiment_tag=state["experiment_tag"],
            status=state["status"],
            last_result=_results(state["last_result"]),
            failures=int(state["failures"]),
        )
        scores = {entry["path"]: entry["score"] for entry in state["checkpoints"]}
        trial.checkpoints = find_checkpoints(folder, scores)
        return trial


def _results(value: Any) -> Any:
    """A result out of the state file: what is None there was NaN."""
    if isinstance(value, dict):
        return {key: _results(entry) for key, entry in value.items()}
    return math.nan if value is None else value


def find_checkpoints(folder: Path, scores: Mapping[str, Any]) -> list[Checkpoint]:
    """The checkpoints in a trial's folder, oldest first. The folder is the truth: a state file may be a moment old."""
    found = []
    for path in folder.glob("checkpoint_*"):
        match = _CHECKPOINT.fullmatch(path.name)
        if match and path.is_dir():
            score = scores.get(path.name)
            known = float(score) if is_number(score) and math.isfinite(score) else None
            found.append(Checkpoint(str(path), int(match.group(1)), known))
    return sorted(found, key=lambda checkpoint: checkpoint.iteration)


def drop_checkpoints(trial: Trial, keep: int | None) -> None:
    """Delete all but the `keep` best checkpoints (without scores: the newest); never the newest, resume needs it."""
    trial.checkpoints = kept(trial.checkpoints, keep)


def copy_checkpoint(donor: Trial, trial: Trial) -> None:
    """Give a trial a copy of the donor's newest checkpoint for its own newest; those of later iterations go."""
    source = donor.checkpoints[-1]
    place = trial.folder / checkpoint_name(source.iteration)
    beside = place.with_name(f".tmp-{place.name}")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(source.path, beside)
    later = [checkpoint for checkpoint in trial.checkpoints if checkpoint.iteration >= source.iteration]
    for checkpoint in later:
        shutil.rmtree(checkpoint.path, ignore_errors=True)
    beside.rename(place)
    kept = [checkpoint for checkpoint in trial.checkpoints if checkpoint not in later]
    trial.checkpoints = [*kept, Checkpoint(str(place), source.iteration, source.score)]


def set_aside(trial: Trial) -> Path:
    """Take the newest checkpoint out of the trial's list, under a name that no resume finds; where it is now."""
    path = Path(trial.checkpoints.pop().path)
    aside = path.with_name(f"damaged_{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    return aside


def clear_leftovers(folder: Path) -> None:
    """Remove what killed processes left half written in a trial's folder, which nobody else writes into."""
    sweep(folder)
    for left in folder.glob(".tmp-checkpoint*"):
        shutil.rmtree(left, ignore_errors=True)
    for left in folder.glob(".lock-checkpoint*"):
        left.unlink(missing_ok=True)


def legal(name: str, longest: int) -> str:
    """A name that every file system takes, Windows' included, of bounded length."""
    return re.sub(r"[^A-Za-z0-9_.=,+-]+", "_", name)[:longest].rstrip(". ") or "_"


def pick_tag(picks: Mapping[ConfigPath, Any]) -> str:
    """`lr=0.001,width=64`: what makes this trial differ, for people and for its folder's name."""
    parts = []
    for path, value in picks.items():
        keys = [part for part in path if isinstance(part, str)]
        shown = f"{value:.4g}" if isinstance(value, float) else getattr(value, "__name__", None) or str(value)
        parts.append(f"{keys[-1] if keys else path_name(path)}={shown[:30]}")
    return ",".join(parts)


def trial_name(run_name: str, env: Any, trial_id: str) -> str:
    """`PPO_CartPole-v1_1a2b3_00000`."""
    env_name = env if isinstance(env, str) else getattr(env, "__name__", "") if env is not None else ""
    return f"{legal(f'{run_name}_{env_name}' if env_name else run_name, _LONGEST_NAME)}_{trial_id}"


def folder_name(name: str, index: int, tag: str, date: str) -> str:
    """`PPO_CartPole-v1_1a2b3_00000_0_lr=0.001_2026-01-31_12-00-00`; a long tag is cut, the rest never."""
    head = legal(f"{name}_{index}", LONGEST_FOLDER - len(date) - 1)
    room = LONGEST_FOLDER - len(head) - len(date) - 2
    return f"{head}_{legal(tag, room)}_{date}" if tag and room > 0 else f"{head}_{date}"


def custom_name(creator: Callable[[Trial], str] | None, trial: Trial, default: str) -> str:
    """What a user's `trial_name_creator` or `trial_dirname_creator` says, made legal; the default without one."""
    return default if creator is None else legal(str(creator(trial)), LONGEST_FOLDER)


def results_folder(local_dir: str | os.PathLike[str] | None) -> Path:
    """Where experiments go: `local_dir`, else `$ATHLETE_RESULTS_DIR`, else `~/athlete_results`."""
    chosen = local_dir or os.environ.get("ATHLETE_RESULTS_DIR") or "~/athlete_results"
    return Path(chosen).expanduser().absolute()


def last_line(trace: str) -> str:
    """The line of a traceback that says what went wrong; under it JAX may have put a note about itself."""
    lines = trace.strip().splitlines()
    while len(lines) > 1 and (lines[-1].startswith("For simplicity, JAX has removed") or set(lines[-1]) <= {"-"}):
        lines.pop()
    return lines[-1] if lines else "unknown"
