"""An experiment: a folder with trials in it, and the state file that a resume and an analysis read."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import athlete.version
from athlete.record.results import from_json, to_json, write_beside
from athlete.tune.names import TuneError
from athlete.tune.trial import RUNNING, Trial

STATE = "experiment_state.json"
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
    start_time: float = field(default_factory=time.time)
    status: str = RUNNING

    def save(self) -> None:
        """Write the state file: beside it, then renamed, so that it is always whole."""
        state = {
            "format": _FORMAT,
            "athlete": athlete.version.__version__,
            **self.facts,
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
    state = from_json((folder / STATE).read_text(encoding="utf-8"), missing=None)
    if state.get("format") != _FORMAT:
        raise TuneError(f"{folder / STATE} has format {state.get('format')}; this version of athlete reads {_FORMAT}")
    return state


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
