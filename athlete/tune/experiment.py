"""An experiment: a folder with trials in it, and the state file that a resume and an analysis read."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import athlete.version
from athlete.record.files import write_beside
from athlete.record.names import TuneError
from athlete.record.results import from_json, to_json
from athlete.tune.trial import ERROR, LONGEST_FOLDER, PAUSED, PENDING, RUNNING, TERMINATED, Trial, legal

STATE = "experiment_state.json"
LARGEST_EXPERIMENT = 100_000  # trials
_FORMAT = 1


@dataclass
class Experiment:
    """What is run. `configs` holds, by trial_id, what `make_trainable` takes; `facts` what a resume must know.

    `status` is RUNNING, TERMINATED (every trial has ended) or PAUSED (a resume has something to do).
    """

    folder: Path
    run: Any
    trials: list[Trial]
    configs: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)  # name, run, seed, metric, mode, stop
    memories: dict[str, Any] = field(default_factory=dict)  # "scheduler" -> what has `save()`
    start_time: float = field(default_factory=time.time)
    status: str = RUNNING

    def save(self) -> None:
        """Write the state file: beside it, then renamed, so that it is always whole."""
        state = {
            "format": _FORMAT,
            "athlete": athlete.version.__version__,
            **self.facts,
            **{kind: {"name": type(keeper).__name__, "state": keeper.save()} for kind, keeper in self.memories.items()},
            "status": self.status,
            "start_time": self.start_time,
            "timestamp": time.time(),
            "trials": [trial.to_state() for trial in self.trials],
        }
        write_beside(self.folder / STATE, to_json(state, indent=1) + "\n")


def read_state(folder: Path) -> dict[str, Any]:
    """The state file of an experiment's folder. Raises TuneError, with what is there instead, if there is none."""
    if not (folder / STATE).is_file():
        raise TuneError(f"there is no experiment in {folder} (no {STATE}){_others(folder)}")
    path = folder / STATE
    try:
        state = from_json(path.read_bytes(), missing=None)
    except (ValueError, RecursionError) as error:
        raise TuneError(f"{path} is damaged: it is not JSON ({error})") from error
    version = state.get("format") if isinstance(state, dict) else None
    if version != _FORMAT:
        raise TuneError(f"{path} has format {version}; this version of athlete reads {_FORMAT}")
    check_state(path, state)
    return state


def check_state(path: Path, state: Mapping[str, Any]) -> None:
    """Raise TuneError, naming the entry, unless the state file holds what `Experiment.save` writes.

    A trial's folder is a plain name within the experiment's: what a resume deletes and overwrites is nowhere else.
    """
    wrong = _wrong_entry(state, _EXPERIMENT, "")
    folders: set[str] = set()
    for index, trial in enumerate(state["trials"] if wrong is None else ()):
        wrong = wrong or _wrong_entry(trial, _TRIAL, f"trials[{index}]")
        if wrong is None and (trial["folder"] in folders or not is_within(path.parent, trial["folder"])):
            wrong = f"trials[{index}]['folder'] is {trial['folder']!r}; each trial has a folder of its own in this one"
        folders.add(str(trial.get("folder")) if isinstance(trial, Mapping) else "")
    if wrong is not None:
        raise TuneError(f"{path} is damaged: {wrong[:300]}")


def is_within(folder: Path, name: str) -> bool:
    """Whether `name` is one plain name that stays in `folder`, symbolic links followed."""
    return legal(name, LONGEST_FOLDER) == name and (folder / name).resolve().parent == folder.resolve()


def _wrong_entry(value: Any, entries: Mapping[str, _Entry], where: str) -> str | None:
    """What is wrong with a dictionary that must have these entries; None if nothing is."""
    if not isinstance(value, Mapping):
        return f"{where} is {value!r}; a dictionary is expected"
    for name, (is_right, expected) in entries.items():
        if name not in value and name in _NEWER:
            continue
        if name not in value:
            return f"{where or 'it'} has no {name!r}"
        if not is_right(value[name]):
            return f"{where}[{name!r}] is {value[name]!r}; {expected} is expected"
    return None


_Entry = tuple[Callable[[Any], bool], str]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_pick(value: Any) -> bool:
    is_pair = isinstance(value, list) and len(value) == 2 and isinstance(value[0], list) and value[0]
    return bool(is_pair) and all(isinstance(part, str) or _is_count(part) for part in value[0])


def _is_checkpoint(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("path"), str) and "score" in value


def _is_memory(value: Any) -> bool:
    """Whether it is what a scheduler left: its name and what it gave."""
    return isinstance(value, dict) and _is_text(value.get("name")) and isinstance(value.get("state"), dict)


def _are(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(check(part) for part in value)


def _has_progress(result: Any) -> bool:
    """Whether it is a result, whose iteration and time can be counted on from."""
    if not isinstance(result, dict) or not _is_count(result.get("training_iteration", 0)):
        return False
    return _is_time(result.get("time_total_s", 0.0))


_EXPERIMENT: dict[str, _Entry] = {
    **dict.fromkeys(("name", "run"), (_is_text, "a text")),
    "num_samples": (lambda value: _is_count(value) and 1 <= value <= LARGEST_EXPERIMENT, "a count of samples"),
    "seed": (_is_count, "a whole number of at least 0"),
    "metric": (lambda value: value is None or _is_text(value), "a result's name or null"),
    "mode": (lambda value: value in (None, "min", "max"), "'min', 'max' or null"),
    **dict.fromkeys(("start_time", "timestamp"), (_is_time, "a finite number of seconds")),
    "num_seeds": (lambda value: _is_count(value) and 1 <= value <= LARGEST_EXPERIMENT, "a count of seeds"),
    "scheduler": (_is_memory, "a name and a state"),
    "trials": (_are(lambda value: isinstance(value, dict)), "a list of trials"),
}
_NEWER = ("changes", "scheduler", "num_seeds")  # older state files have none
_TRIAL: dict[str, _Entry] = {
    **dict.fromkeys(("trial_id", "name", "folder", "experiment_tag"), (_is_text, "a text")),
    **dict.fromkeys(("index", "failures"), (_is_count, "a whole number of at least 0")),
    "status": (lambda value: value in (PENDING, RUNNING, PAUSED, TERMINATED, ERROR), "a trial's status"),
    "picks": (_are(_is_pick), "a list of pairs of a path and what was chosen"),
    "changes": (_are(_is_pick), "a list of pairs of a path and what was changed"),
    "config": (lambda value: isinstance(value, dict), "a dictionary"),
    "last_result": (_has_progress, "a result"),
    "checkpoints": (_are(_is_checkpoint), "a list of checkpoints"),
}


def read_trials(folder: Path, state: Mapping[str, Any]) -> list[Trial]:
    """The trials that a state file describes."""
    return [Trial.from_state(folder, entry) for entry in state["trials"]]


def experiments(folder: Path) -> list[Path]:
    """The experiments within a folder, newest first."""
    found = [path.parent for path in folder.glob(f"*/{STATE}")]
    return sorted(found, key=lambda path: (path / STATE).stat().st_mtime, reverse=True)


def _others(folder: Path) -> str:
    if (folder.parent / STATE).is_file():
        return f"; it is one of the trials of {folder.parent}"
    for where in (folder, folder.parent):
        near = [path.name for path in experiments(where)[:3]]
        if near:
            return f"; in {where} there are {', '.join(near)}"
    return ""
