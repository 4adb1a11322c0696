"""Experiment files, in the form that RLlib's users have: `name: {env, run, stop, config, num_samples, ...}`."""

from __future__ import annotations

import difflib
import importlib.util
import re
import runpy
import tempfile
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from athlete.algorithms import get_config_class
from athlete.env.registry import foreign_code
from athlete.log import logger
from athlete.record.names import result_name
from athlete.settings.limits import LARGEST_EXPERIMENT, excess
from athlete.settings.rllib_names import SEQUENCE_MODEL, UNSERVED, said

# What an experiment may say beside `run`, `env`, `config`, `stop` and its criteria: settings of `tune.run`.
_SETTINGS = {
    *(
        "num_samples",
        "num_seeds",
        "seed",
        "metric",
        "mode",
        "local_dir",
        "storage_path",
        "time_budget_s",
        "max_concurrent_trials",
    ),
    *("checkpoint_freq", "checkpoint_at_end", "keep_checkpoints_num", "checkpoint_score_attr", "checkpoint_config"),
    *("restore", "max_failures", "fail_fast", "ray", "resources_per_trial", "sync_config", "scheduler", "search_alg"),
    "num_seeds",
}
_CRITERIA = ("pass_criteria", "floor")

_CHECKPOINT_CONFIG = {
    "checkpoint_frequency": "checkpoint_freq",
    "num_to_keep": "keep_checkpoints_num",
    "checkpoint_score_attribute": "checkpoint_score_attr",
    "checkpoint_at_end": "checkpoint_at_end",
}


@dataclass(frozen=True)
class Experiment:
    """What a file says of one experiment, under Athlete's names. `config` holds the environment as `env`.

    `settings` are further arguments of `tune.run`. `pass_criteria` is what a tuned example must reach in the middle of
    its seeds, `floor` what its worst seed must reach: result -> number.
    """

    name: str | None
    run: str
    config: dict[str, Any]
    stop: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    pass_criteria: dict[str, float] = field(default_factory=dict)
    floor: dict[str, float] = field(default_factory=dict)

    def check(self) -> None:
        """Raise ValueError for an unknown algorithm, and for a setting that its configuration does not take."""
        try:
            get_config_class(self.run).from_dict(self.config)
        except ValueError as error:
            raise ValueError(f"experiment {self.name!r}: {error}" if self.name else str(error)) from error


class _Loader(yaml.SafeLoader):
    """YAML whose numbers may be written `1e-3`; PyYAML alone takes that for a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


LARGEST_FILE = 1_000_000  # values in a text of YAML, with what aliases repeat


def parse_yaml(text: str | bytes, where: str) -> Any:
    """The value of a text in YAML or JSON. Raises ValueError that begins with `where` and says line and column."""
    try:
        value = yaml.load(text, _Loader)  # _Loader is a SafeLoader: it makes plain values only
        count = _count(value, {})
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{where}: not YAML or JSON{at}: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ValueError(f"{where}: not YAML or JSON: {reason}") from error
    if count > LARGEST_FILE:
        raise ValueError(f"{where}: it holds more than {LARGEST_FILE:,} values; are its aliases meant?")
    return value


def _count(value: Any, known: dict[int, int]) -> int:
    """How many values there are in nested ones. What aliases share counts each time, and is looked at once.

    Raises RecursionError for a value that holds itself.
    """
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(value)]


def read_experiments(path: str | Path, trust: bool = False) -> list[Experiment]:
    """The experiments of a YAML or JSON file; of a Python file the one of its `config` and, if it has one, its `stop`.

    A YAML or JSON file runs no code: it names environments by their ids, by names given to `register_env`, or by the
    path of a class whose module is imported already, and asks for no more than `settings.limits` lets a file ask for.
    With `trust` it may do both. A Python file is run.

    Raises ValueError that names the file, the experiment and the entry that is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    if path.suffix == ".py":
        return [_from_python(path)]
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise ValueError(f"{path}: an experiment file ends in .yaml, .json or .py")
    described = parse_yaml(path.read_bytes(), str(path))
    if not isinstance(described, Mapping) or not described:
        raise ValueError(f"{path}: expected experiments, `name: {{run: PPO, env: CartPole-v1, ...}}`")
    places = {name: f"{path}: experiment {name!r}" for name in described}
    found = [experiment_of(str(name), entry, places[name]) for name, entry in described.items()]
    if not trust:
        for experiment, where in zip(found, places.values(), strict=True):
            _refuse_code(experiment.config, where)
            _refuse_excess(experiment, where)
    return found


def _refuse_code(config: Mapping[str, Any], where: str) -> None:
    """Raise ValueError where the file, and nobody else, says what code is to run."""
    if (name := foreign_code(config)) is not None:
        raise ValueError(
            f"{where}: env: {name} would run code that only this file names; if you trust it, import or register it "
            "in your program first, or type athlete train FILE --trust"
        )


def _refuse_excess(experiment: Experiment, where: str) -> None:
    """Raise ValueError where the file asks for more processes, rows, memory or time than one may."""
    try:
        config = get_config_class(experiment.run).from_dict(experiment.config).chosen()
    except ValueError:  # which `check` says
        config = experiment.config
    named = {name: value for name, value in experiment.settings.items() if name == "ray"}
    if (found := excess({**config, **named}, LARGEST_EXPERIMENT)) is not None:
        raise ValueError(f"{where}: {found[0]} asks for {found[1]}; if you trust it, type athlete train FILE --trust")


# Where RLlib's Python files import it; the paths of its environments stay as they are.
_IMPORTED = re.compile(r"^(\s*(?:from|import) )ray\b", re.M)


def _run(path: Path) -> dict[str, Any]:
    """The variables of a Python file, run with its imports of RLlib taken for ours where RLlib is not installed."""
    text = given = path.read_text(encoding="utf-8")
    if importlib.util.find_spec("ray") is None:
        text = _IMPORTED.sub(r"\1athlete", text)
    if text == given:
        return runpy.run_path(str(path))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_text(text, encoding="utf-8")
        return runpy.run_path(str(copy))


def _from_python(path: Path) -> Experiment:
    variables = _run(path)
    config: Any = variables.get("config")
    if not hasattr(config, "chosen"):
        raise ValueError(f"{path}: expected a variable `config`, an AlgorithmConfig such as PPOConfig()...")
    return Experiment(path.stem, config.algorithm_name, config.chosen(), _results(variables.get("stop")))


def experiment_of(name: str, entry: Any, where: str) -> Experiment:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where}: expected a dictionary with `run` and `env`, got {entry!r}")
    known = {"run", "env", "config", "stop", *_CRITERIA, *_SETTINGS}
    for key in entry:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            raise ValueError(f"{where} has no {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    for key in ("config", "stop", *_CRITERIA, "checkpoint_config"):
        if not isinstance(entry.get(key) or {}, Mapping):
            raise ValueError(f"{where}: {key!r} takes a dictionary, got {entry[key]!r}")
    if not isinstance(entry.get("run"), str):
        raise ValueError(f"{where} has no 'run': the algorithm's name, such as PPO")
    config = without_rllib_only(entry.get("config") or {}, where, SEQUENCE_MODEL if entry["run"] == "DT" else ())
    if "env" in entry:
        config["env"] = entry["env"]
    if config.get("env") is None:
        raise ValueError(f"{where} has no 'env': the environment, such as CartPole-v1")
    settings = {key: entry[key] for key in entry if key in _SETTINGS and key != "checkpoint_config"}
    settings |= _checkpointing(entry.get("checkpoint_config") or {}, where)
    criteria = [_results(entry.get(key)) for key in ("stop", *_CRITERIA)]
    return Experiment(name, entry["run"], config, criteria[0], settings, criteria[1], criteria[2])


def without_rllib_only(config: Mapping[str, Any], where: str, served: Container[str] = ()) -> dict[str, Any]:
    """The configuration without RLlib's settings that have no counterpart; a warning for each that was switched on.

    `served` are those that the algorithm has one of.
    """
    kept = {}
    for name, value in config.items():
        if name == "num_gpus" and config.get("_fake_gpus"):
            continue  # RLlib's tests of several accelerators, on none
        if name not in UNSERVED or name in served:
            kept[name] = value
        elif (sentence := said(name, value)) is not None:
            logger.warning("%s: %s=%r has no effect: %s", where, name, value, sentence)
    return kept


def _checkpointing(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`checkpoint_config` of Tune's later versions as arguments of `tune.run`."""
    order = given.get("checkpoint_score_order", "max")
    settings = {}
    for key, value in given.items():
        if key in _CHECKPOINT_CONFIG:
            settings[_CHECKPOINT_CONFIG[key]] = value
        elif key != "checkpoint_score_order":
            raise ValueError(f"{where}: checkpoint_config has no {key!r}; it has {', '.join(_CHECKPOINT_CONFIG)}")
    if order == "min" and "checkpoint_score_attr" in settings:
        settings["checkpoint_score_attr"] = f"min-{settings['checkpoint_score_attr']}"
    return settings


def _results(thresholds: Mapping[str, Any] | None) -> dict[str, Any]:
    """Thresholds under our results' names: `env_runners/episode_return_mean` is `episode_reward_mean`."""
    return {result_name(str(key)): value for key, value in (thresholds or {}).items()}
