"""`tune.run`: from a config with a search in it to trials that have run."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import inspect
import itertools
import logging
import math
import os
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from athlete.env.registry import foreign_code
from athlete.record.errors import LockedError
from athlete.record.files import locked, short_path
from athlete.record.names import TuneError, nearest
from athlete.record.progress import ProgressReporter, reporter
from athlete.record.results import to_json
from athlete.record.stopper import CombinedStopper, Stopper, TimeoutStopper, make_stopper
from athlete.settings.limits import excess
from athlete.tune.analysis import ExperimentAnalysis
from athlete.tune.callbacks import Callback
from athlete.tune.experiment import LARGEST_EXPERIMENT, STATE, Experiment, experiments, read_state, read_trials
from athlete.tune.plan import Planner, Suggestions, all_picks, recalled, with_seeds
from athlete.tune.ray_slots import cluster_for, folder_bytes, require_portable
from athlete.tune.runner import Runner, Settings
from athlete.tune.schedulers import PopulationBasedTraining, TrialScheduler, find_scheduler
from athlete.tune.search import BasicVariantGenerator, Searcher, find_searcher
from athlete.tune.space import merged, path_name, replace
from athlete.tune.trainable import (
    check_mutation,
    chosen,
    config_dict,
    evaluates,
    find_run,
    is_config,
    run_name,
    with_changes,
    with_chosen,
    with_picks,
)
from athlete.tune.trial import (
    ERROR,
    LONGEST_FOLDER,
    PAUSED,
    PENDING,
    TERMINATED,
    Trial,
    last_line,
    legal,
    results_folder,
)

logger = logging.getLogger("athlete.tune")

CHECKPOINT_SECONDS = 60.0  # between the checkpoints of a trial in a cluster that is not told when to save

_MEANINGLESS = {
    "sync_config": "results stay on this machine",
    "storage_filesystem": "results stay on this machine",
    "reuse_actors": "a trial's process always serves the next trial too",
    "chdir_to_trial_dir": "the working folder stays as it is",
    "log_to_file": "what parallel trials print is in worker_00.log, ... of the experiment's folder",
    "export_formats": "checkpoints are safetensors and JSON",
    "trial_executor": "max_concurrent_trials says how many processes run",
    "server_port": "there is no server",
    "loggers": "params.json, result.json, progress.csv and TensorBoard events are always written",
    "queue_trials": "trials wait for a free process by themselves",
    "resume_config": "resume=True, 'AUTO', 'LOCAL+ERRORED', ... says it all",
}


def run(
    run_or_experiment: Any,
    *,
    config: Any = None,
    stop: Any = None,
    name: str | None = None,
    local_dir: str | os.PathLike[str] | None = None,
    num_samples: int = 1,
    seed: int | None = None,
    metric: str | None = None,
    mode: str | None = None,
    checkpoint_freq: int = 0,
    checkpoint_at_end: bool = False,
    keep_checkpoints_num: int | None = None,
    checkpoint_score_attr: str | None = None,
    scheduler: Any = None,
    search_alg: Any = None,
    num_seeds: int = 1,
    mapped: bool = False,
    max_concurrent_trials: int | None = None,
    ray: bool | str = False,
    resources_per_trial: Mapping[str, Any] | None = None,
    time_budget_s: Any = None,
    resume: bool | str = False,
    restore: str | os.PathLike[str] | None = None,
    max_failures: int = 0,
    fail_fast: bool | str = False,
    raise_on_failed_trial: bool = True,
    verbose: int = 1,
    progress_reporter: ProgressReporter | None = None,
    callbacks: Sequence[Callback] | None = None,
    trial_name_creator: Callable[[Trial], str] | None = None,
    trial_dirname_creator: Callable[[Trial], str] | None = None,
    **others: Any,
) -> ExperimentAnalysis:
    """Train with one config or many, record everything, and return an `ExperimentAnalysis`.

    Args:
        run_or_experiment: an algorithm's name (`"PPO"`), a config class or config, a class with `train`, `save`,
            `restore` and `stop`, or a function that takes the config and calls `tune.report(...)`.
        config: a dictionary or an `AlgorithmConfig`; anywhere in it may be `tune.grid_search([...])`,
            `tune.uniform(a, b)`, ... There are `num_samples` times the product of the grids trials.
        stop: when a trial ends: `{"episode_reward_mean": 475, "timesteps_total": 100_000}` (whatever comes first;
            nested results with `/`), a function `(trial_id, result) -> bool`, a `Stopper`, or a list of these.
        name: the experiment's folder; by default the algorithm and the date.
        local_dir: where that folder goes; else `$ATHLETE_RESULTS_DIR`, else `~/athlete_results`.
        seed: of the search's draws; by default the config's `seed`, else a random one (it is in the state file).
        metric, mode: what "best" means to the analysis and the table: a result, and `"max"` or `"min"`.
        checkpoint_freq: a checkpoint every that many iterations; 0 for none.
        checkpoint_at_end: a checkpoint when a trial reaches its stop.
        keep_checkpoints_num: keep only that many of the best by `checkpoint_score_attr` (`"min-loss"`: lower is
            better; by default the newest), and always the newest.
        scheduler: which trials go on and which stop: a name (`"asha"`, `"hyperband"`, `"median_stopping_rule"`,
            `"pbt"`) or an object of `athlete.tune.schedulers`. Its trials train in turn in this process.
        search_alg: where the values of the search come from: `"optuna"` or an object of `athlete.tune.search`; by
            default grids and random draws.
        num_seeds: train every config with so many seeds, from its own (or 0) upwards; `results_by_config` of the
            analysis has their mean, interquartile mean and interval.
        mapped: train all trials as one program, mapped over seeds and over settings that are numbers in it. For
            accelerators: on a CPU the same trials one after another are faster. What XLA adds up side by side it adds
            up in another order, so a trial is that of its seed in distribution only.
        max_concurrent_trials: trials at the same time, each in a process of its own; 1: one after another in this
            process, where trials of the same shape share the compiled program, as without a scheduler by default.
        ray: trials run in a Ray cluster: `True`, an address or `"auto"`, as of `.resources(ray=...)`; as many at a time
            as there is room for, or `max_concurrent_trials`. Their checkpoints come home into the experiment's folder,
            and without `checkpoint_freq` each trial saves one a minute: where the head is lost, this process ends.
        resources_per_trial: what a trial in Ray holds: `{"cpu": 2, "gpu": 0.5, "some_custom_resource": 1}`; by default
            one CPU.
        time_budget_s: seconds (or a `timedelta`) for all trials together.
        resume: `True` goes on with the experiment `name`: finished trials stay, others continue from their last
            checkpoint. `"AUTO"` if it exists, else begins it. `"+ERRORED"` appended also takes up failed trials from
            their checkpoint, `"+RESTART_ERRORED"` from their beginning, and `"ERRORED_ONLY"` nothing else.
        restore: a checkpoint that every trial starts from.
        max_failures: how often a failed trial is tried again from its last checkpoint; -1 for always.
        fail_fast: end the experiment at the first failed trial; `"raise"`: by raising its error.
        raise_on_failed_trial: raise TuneError at the end if a trial has failed.
        verbose: 0 nothing, 1 the table, 2 also a line for each result, 3 also all of it.
        progress_reporter: a `CLIReporter` or `JupyterNotebookReporter` with columns of your own.
        callbacks: `Callback`s.
        trial_name_creator, trial_dirname_creator: functions of the `Trial` that name it and its folder.

    Ctrl-C (or SIGTERM) lets the running iteration end, saves a checkpoint of every running trial and returns; pressed
    twice it ends at once. Ray Tune's settings that mean nothing here are accepted with a line that says so.

    Raises:
        TypeError: a setting that does not exist, or of the wrong kind.
        ValueError: an unknown algorithm, an impossible config or setting; no trial has begun then.
        ConnectionError: no cluster answers at the address of `ray`; ImportError: Ray is not installed.
        TuneError: a trial has failed, a stop key is not among the results, or there is nothing to resume.
    """
    respelled = _other_settings(others)
    _check(
        mode=mode,
        num_samples=num_samples,
        num_seeds=num_seeds,
        max_concurrent_trials=max_concurrent_trials,
        resume=resume,
    )
    scheduler, searcher = find_scheduler(scheduler), find_searcher(search_alg)
    scheduler.set_search_properties(metric, mode)
    run_or_experiment, config = find_run(run_or_experiment, config)
    config, seeds = with_seeds(_with_searches(config, scheduler, searcher), num_seeds)
    if mapped:
        _check_mapped(scheduler, searcher, {"max_concurrent_trials": max_concurrent_trials, "ray": ray})
    cluster = cluster_for(ray, resources_per_trial, max_concurrent_trials, [config])
    if cluster is None and resources_per_trial is not None:
        told = (
            "trials share this machine; max_concurrent_trials says how many run at once, and ray=True runs them in Ray"
        )
        logger.warning("tune.run(resources_per_trial=...) does nothing here: %s", told)
    elif cluster is not None and restore is not None:
        require_portable(restore, folder_bytes(Path(restore)), "tune.run(restore=...)")
    experiments_folder = results_folder(respelled.pop("local_dir", local_dir))
    facts = {"num_samples": num_samples, "num_seeds": num_seeds, "metric": metric, "mode": mode}
    facts["seed"] = _seed(seed, config, searcher)
    creators = (trial_name_creator, trial_dirname_creator)
    with contextlib.ExitStack() as held:
        folder = _locked_folder(held, experiments_folder, run_name(run_or_experiment), name)
        going_on = _resumed(run_or_experiment, config, folder, name, resume, searcher)
        facts |= {"name": folder.name, "run": run_name(run_or_experiment)}
        experiment = going_on or Experiment(folder, run_or_experiment, [], {}, facts)
        if config_dict(config):
            _check_num_seeds(experiment, num_seeds)
        planner = Planner(experiment, config, creators)
        suggestions = _plan(planner, searcher, seeds, goes_on=going_on is not None)
        _begin_scheduler(scheduler, experiment, goes_on=going_on is not None)
        if cluster is not None:
            _require_portable_memories(experiment)
        if mapped:
            _require_mappable(experiment, max_failures)
        if going_on is None:
            _make_room(folder)
        settings = Settings(
            stopper=_stopper(stop, time_budget_s, experiment),
            scheduler=scheduler,
            suggestions=suggestions,
            at_once=searcher.max_concurrent if isinstance(searcher, BasicVariantGenerator) else 0,
            checkpoint_freq=checkpoint_freq,
            checkpoint_at_end=checkpoint_at_end,
            keep_checkpoints_num=keep_checkpoints_num,
            checkpoint_score_attr=checkpoint_score_attr,
            max_failures=max_failures,
            fail_fast=fail_fast,
            max_concurrent_trials=max_concurrent_trials,
            cluster=cluster,
            mapped=mapped,
            checkpoint_seconds=CHECKPOINT_SECONDS if cluster is not None and not checkpoint_freq else math.inf,
            restore=None if restore is None else os.fspath(restore),
            verbose=verbose,
        )
        settings = dataclasses.replace(settings, **respelled)
        shown = progress_reporter or reporter(verbose)
        shown.setup(experiment.folder.name, experiment.start_time, metric, mode)
        if cluster is not None:
            shown.print(f"Trials run in a Ray cluster, up to {cluster.size} at a time, each with {cluster.request}")
        elif max_concurrent_trials is None and not mapped:
            _say_order(experiment, suggestions, scheduler, shown)
        runner = Runner(experiment, settings, shown, list(callbacks or []))
        with runner.interrupt:
            try:
                runner.go()
            finally:
                _say_end(experiment, shown, runner.interrupt.requested)
    if raise_on_failed_trial and not runner.interrupt.requested:
        _raise_failures(experiment, runner.first_error)
    return ExperimentAnalysis(
        experiment.folder, metric, mode, trials=experiment.trials, interrupted=runner.interrupt.requested
    )


def run_experiments(experiments: Mapping[str, Mapping[str, Any]], **settings: Any) -> list[Trial]:
    """Run in turn experiments in RLlib's file form: `{name: {"run": "PPO", "env": ..., "stop": ..., "config": {...}}}`.

    `settings` go to every one of them. Returns all trials.
    """
    trials: list[Trial] = []
    for name, description in experiments.items():
        spec = dict(description)
        if "run" not in spec:
            raise ValueError(f"experiment {name!r} has no 'run': the algorithm's name; it has {', '.join(spec)}")
        config = dict(spec.pop("config", None) or {})
        if "env" in spec:
            config["env"] = spec.pop("env")
        trials += run(spec.pop("run"), name=name, config=config, **{**spec, **settings}).trials
    return trials


# What was asked for


def _check(mode: Any, num_samples: Any, num_seeds: Any, max_concurrent_trials: Any, resume: Any) -> None:
    if mode not in (None, "min", "max"):
        raise ValueError(f"tune.run(mode={mode!r}): 'min' or 'max'")
    if not isinstance(num_samples, int) or not 1 <= num_samples <= LARGEST_EXPERIMENT:
        raise ValueError(f"tune.run(num_samples={num_samples!r}): a whole number of 1 to {LARGEST_EXPERIMENT:,}")
    if not isinstance(num_seeds, int) or not 1 <= num_seeds <= LARGEST_EXPERIMENT:
        raise ValueError(f"tune.run(num_seeds={num_seeds!r}): a whole number of at least 1")
    if max_concurrent_trials is not None and (not isinstance(max_concurrent_trials, int) or max_concurrent_trials < 0):
        raise ValueError(f"tune.run(max_concurrent_trials={max_concurrent_trials!r}): a whole number of at least 1")
    _resume_mode(resume)


def _other_settings(others: Mapping[str, Any]) -> dict[str, Any]:
    """Ray Tune's other settings: ours where they mean the same, a line where they mean nothing, else an error."""
    respelled: dict[str, Any] = {}
    for name, value in others.items():
        if name == "storage_path":
            respelled["local_dir"] = value
        elif name == "checkpoint_config":
            respelled |= {} if value is None else value.settings()
        elif name in _MEANINGLESS:
            if value is not None:
                logger.warning("tune.run(%s=...) does nothing here: %s", name, _MEANINGLESS[name])
        else:
            known = [*inspect.signature(run).parameters, *_MEANINGLESS, "storage_path", "checkpoint_config"]
            close = nearest(name, [other for other in known if other != "others"], 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"tune.run() has no setting {name!r}{hint}")
    return respelled


def _stopper(stop: Any, time_budget_s: Any, experiment: Experiment) -> Stopper:
    def has_evaluations(trial_id: str) -> bool:
        return any(trial.trial_id == trial_id and evaluates(trial.config) for trial in experiment.trials)

    stopper = make_stopper(stop, has_evaluations)
    return stopper if time_budget_s is None else CombinedStopper(stopper, TimeoutStopper(time_budget_s))


def _check_mapped(scheduler: TrialScheduler, searcher: Any, others: Mapping[str, Any]) -> None:
    """Raise ValueError for what cannot be where all trials are one program."""
    why = next((f"{name} runs each by itself" for name, value in others.items() if value), None)
    if scheduler.compares:
        why = f"{type(scheduler).__name__} lets some wait for others"
    elif isinstance(searcher, Searcher):
        why = f"{type(searcher).__name__} suggests them one after another"
    if why is not None:
        raise ValueError(f"tune.run(mapped=True): all trials begin and train as one program, and {why}; leave it out")


def _require_mappable(experiment: Experiment, max_failures: int) -> None:
    """Raise ValueError unless the trials still to run are one program."""
    from athlete.population import require_mappable

    configs = {trial.name: experiment.configs[trial.trial_id] for trial in experiment.trials if trial.status == PENDING}
    if max_failures:
        raise ValueError(
            "tune.run(mapped=True): a failed trial cannot begin anew beside the others; leave max_failures out"
        )
    if not all(map(is_config, configs.values())):
        raise ValueError("tune.run(mapped=True): algorithms of Athlete can be mapped; leave it out")
    require_mappable(configs)


def _require_portable_memories(experiment: Experiment) -> None:
    """Raise ValueError for a trial whose replay memory would make a checkpoint too large to travel."""
    from athlete.building import memory_bytes

    asked = set()
    for trial in experiment.trials:
        config = experiment.configs[trial.trial_id]
        buffer = config_dict(config).get("replay_buffer_config")
        if not is_config(config) or buffer is None or (key := repr((buffer, trial.config.get("env")))) in asked:
            continue
        asked.add(key)
        size = 0
        with contextlib.suppress(Exception):  # an environment that cannot be made here, which the trial tells of
            size = memory_bytes(config)
        require_portable("its full replay memory", size, trial.name)


# A new experiment


def _seed(seed: int | None, config: Any, searcher: Any) -> int:
    """Of the search's draws: what was given, the searcher's, the config's own, else a random one."""
    own = config_dict(config).get("seed")
    for known in (seed, getattr(searcher, "random_state", None), own):
        if isinstance(known, int) and not isinstance(known, bool):
            return known
    return random.SystemRandom().getrandbits(32)


def _plan(planner: Planner, searcher: Any, seeds: Sequence[int], goes_on: bool) -> Suggestions | None:
    """The trials of an experiment: all of a new one, or those that a searcher will suggest."""
    facts = planner.experiment.facts
    if not isinstance(searcher, Searcher):
        if not goes_on:
            planner.add_all(all_picks(searcher, planner.config, facts["num_samples"], facts["seed"], seeds))
        return None
    suggestions = Suggestions(planner, searcher, facts["num_samples"], seeds)
    suggestions.begin(facts["metric"], facts["mode"], facts["seed"])
    if goes_on:
        suggestions.resume()
    return suggestions


def _with_searches(config: Any, scheduler: TrialScheduler, searcher: Any) -> Any:
    """The config with what its searcher or its population was told to search."""
    if isinstance(scheduler, PopulationBasedTraining):
        if isinstance(searcher, Searcher):
            raise ValueError(f"{type(searcher).__name__} and a population both choose settings: give one of them")
        return with_chosen(config, scheduler.searched(chosen(config)))
    space = getattr(searcher, "space", None)
    return with_chosen(config, merged(chosen(config), space)) if space else config


def _begin_scheduler(scheduler: TrialScheduler, experiment: Experiment, goes_on: bool) -> None:
    """Give the scheduler what a resume knows; check a population's mutations before anything starts."""
    scheduler.seed = int(experiment.facts["seed"])
    experiment.memories["scheduler"] = scheduler
    if goes_on:
        _recall(scheduler, experiment)
    elif isinstance(scheduler, PopulationBasedTraining):
        _check_mutations(experiment, scheduler)


def _recall(scheduler: TrialScheduler, experiment: Experiment) -> None:
    """What the scheduler left in the state file, and what it had changed of the trials' configs."""
    remember("scheduler", scheduler, read_state(experiment.folder))
    if isinstance(scheduler, PopulationBasedTraining):
        _check_changes(scheduler, experiment.trials)
    for trial in experiment.trials:
        if trial.changes:
            changed = with_changes(experiment.run, experiment.configs[trial.trial_id], trial.changes)
            experiment.configs[trial.trial_id], trial.config = changed, config_dict(changed)


def _check_mutations(experiment: Experiment, scheduler: PopulationBasedTraining) -> None:
    """Raise what a config raises for the mutated settings' ends, ValueError where no state could be copied."""
    first = experiment.configs[experiment.trials[0].trial_id]
    for path in scheduler.mutations:
        values = scheduler.extremes(path)
        for value in values:
            with_changes(experiment.run, first, {path: value})
        check_mutation(experiment.run, first, path, values)


def _locked_folder(held: contextlib.ExitStack, parent: Path, algorithm: str, name: str | None) -> Path:
    """The folder of an experiment, which no other process has as long as `held` is open; without a name a new one.

    Raises TuneError where another process is running the experiment of that name.
    """
    if not parent.exists():
        held.callback(_remove_if_empty, parent)  # once nothing is locked: a mistake leaves nothing behind
    parent.mkdir(parents=True, exist_ok=True)
    if name is not None:
        folder = parent / legal(str(name), LONGEST_FOLDER)
        try:
            held.enter_context(locked(folder))
        except LockedError as holder:
            raise TuneError(
                f"tune.run: {holder} is running the experiment {folder}: wait for it, or give this one another name"
            ) from holder
        return folder
    date = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for count in itertools.count(1):
        folder = parent / legal(f"{algorithm}_{date}" if count == 1 else f"{algorithm}_{date}_{count}", LONGEST_FOLDER)
        with contextlib.suppress(LockedError):
            if not folder.exists():
                held.enter_context(locked(folder))
                return folder
    raise AssertionError("there are more names than folders")


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _make_room(folder: Path) -> None:
    """Create the folder; the state of an earlier experiment of that name steps aside, its trials stay."""
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / STATE
    if state.exists():
        date = datetime.datetime.fromtimestamp(state.stat().st_mtime).strftime("%Y-%m-%d_%H-%M-%S")
        state.replace(folder / f"experiment_state_{date}.json")
        logger.warning(
            "%s holds an earlier experiment; its trials stay. resume=True would have gone on with it.", folder
        )


# An experiment that goes on


def _resume_mode(resume: bool | str) -> tuple[str, bool, bool, bool]:
    """`(LOCAL, AUTO or "", errored, restart errored, only those)` out of what `resume` may be."""
    words = "LOCAL" if resume is True else str(resume or "").upper()
    base, *extras = words.split("+")
    if base.startswith(("ERRORED", "RESTART_ERRORED")):
        base, extras = "LOCAL", [base, *extras]
    base = {"REMOTE": "LOCAL", "PROMPT": "AUTO"}.get(base, base)
    known = {"ERRORED", "ERRORED_ONLY", "RESTART_ERRORED", "RESTART_ERRORED_ONLY"}
    if base not in ("", "LOCAL", "AUTO") or not known.issuperset(extras) or (extras and not base):
        raise ValueError(
            f"tune.run(resume={resume!r}): True, False, 'LOCAL' or 'AUTO', the latter two also with "
            f"{', '.join('+' + word for word in sorted(known))}"
        )
    restart = any(word.startswith("RESTART") for word in extras)
    return base, bool(extras) and not restart, restart, any(word.endswith("_ONLY") for word in extras)


def _resumed(
    run: Any, config: Any, folder: Path, name: str | None, resume: bool | str, searcher: Any
) -> Experiment | None:
    """The experiment that `resume` asks for, its trials to be continued made PENDING; None for a new one."""
    base, errored, restart, only = _resume_mode(resume)
    if not base:
        return None
    if name is None:
        parent = folder.parent
        newest = next(iter(experiments(parent)), None)
        hint = f"; the newest in {parent} is name={newest.name!r}" if newest else f"; there are none in {parent}"
        raise ValueError(f"tune.run(resume={resume!r}): say which experiment, by its name{hint}")
    if base == "AUTO" and not (folder / STATE).exists():
        return None
    state = read_state(folder)
    if state["run"] != run_name(run):
        raise TuneError(f"resume: {folder} is an experiment of {state['run']}, not of {run_name(run)}")
    trials = read_trials(folder, state)
    configs = _rebuilt(run, config, trials, state, searcher)
    for trial in trials:
        if trial.status == ERROR and (errored or restart):
            trial.status, trial.failures = PENDING, 0
            if restart:
                _forget(trial)
        elif trial.status not in (TERMINATED, ERROR):
            trial.status = PAUSED if only else PENDING
    facts = {key: state[key] for key in ("name", "run", "num_samples", "seed", "metric", "mode")}
    facts["num_seeds"] = int(state.get("num_seeds", 1))
    return Experiment(folder, run, trials, configs, facts)


def remember(kind: str, keeper: Any, state: Mapping[str, Any]) -> None:
    """Give a scheduler or a searcher what its like left in the state file. Raises TuneError where it was another."""
    saved = state.get(kind)
    if saved is None:
        return
    if saved["name"] != type(keeper).__name__:
        raise TuneError(
            f"resume: the experiment began with {kind}={saved['name']}, and goes on with the same, not with "
            f"{type(keeper).__name__}: pass {kind}= again"
        )
    try:
        keeper.restore(saved["state"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise TuneError(f"{STATE} is damaged: what {saved['name']} left is not whole ({error!r})") from error


def _check_num_seeds(experiment: Experiment, num_seeds: int) -> None:
    began = experiment.facts["num_seeds"]
    if began != num_seeds:
        raise TuneError(f"resume: the experiment began with num_seeds={began}; pass it again")


def _check_changes(scheduler: PopulationBasedTraining, trials: list[Trial]) -> None:
    """A trial without a checkpoint begins again, as it was; no file changes what the scheduler does not mutate."""
    live = [trial for trial in trials if trial.status not in (TERMINATED, ERROR)]
    if live and not any(trial.checkpoints for trial in live):
        scheduler.begin_again()
    for trial in trials:
        if trial in live and not trial.checkpoints:
            trial.changes = {}
        if not scheduler.mutations.keys() >= trial.changes.keys():
            names = ", ".join(path_name(path) for path in trial.changes.keys() - scheduler.mutations.keys())
            raise TuneError(f"resume: {STATE} has changed {names} of {trial.name}, which hyperparam_mutations lacks")


def _rebuilt(run: Any, config: Any, trials: list[Trial], state: Mapping[str, Any], searcher: Any) -> dict[str, Any]:
    """The configs of an experiment's trials: this call's config with the trials' picks, or the recorded ones."""
    values = config_dict(config)
    if not values:
        for trial in trials:
            _refuse_recorded(run, trial.config, trial)
        return {trial.trial_id: with_picks(run, trial.config, {}) for trial in trials}
    configs = {}
    again = _again(config, trials, state, searcher)
    for trial in trials:
        fresh = again[trial.index] if trial.index < len(again) else {}
        if fresh.keys() != trial.picks.keys():
            before, now = (", ".join(map(path_name, paths)) or "nothing" for paths in (trial.picks, fresh))
            raise TuneError(f"resume: the search has changed: {trial.name} chose {before}, this config chooses {now}")
        # a class among the choices is but its name in the state file; the same seed has drawn it again
        same = {path: to_json(fresh[path]) == to_json(value) for path, value in trial.picks.items()}
        if any("env" in path for path in trial.picks if not same[path]):
            _refuse_recorded(run, replace(values, trial.picks), trial)
        trial.picks = {path: fresh[path] if same[path] else value for path, value in trial.picks.items()}
        configs[trial.trial_id] = with_picks(run, config, trial.picks)
        trial.config = config_dict(configs[trial.trial_id])
    return configs


def _again(config: Any, trials: list[Trial], state: Mapping[str, Any], searcher: Any) -> list[dict[Any, Any]]:
    """What this call's search picks for the trials of the state file."""
    if isinstance(searcher, Searcher):
        return [recalled(config, trial.picks) for trial in trials]
    num_seeds, first = int(state.get("num_seeds", 1)), config_dict(config).get("seed") or 0
    seeds = list(range(first, first + num_seeds)) if num_seeds > 1 else []
    picks = all_picks(searcher, config, int(state["num_samples"]), int(state["seed"]), seeds)
    return list(itertools.islice(picks, LARGEST_EXPERIMENT))


def _refuse_recorded(run: Any, recorded: Mapping[str, Any], trial: Trial) -> None:
    """Raise TuneError where the state file, and not this program, says what code is to run, or asks for too much."""
    name = foreign_code(recorded) if is_config(run) else None
    if name is not None:
        raise TuneError(
            f"resume: {STATE} names the environment {name!r} for {trial.name}, which this program has neither "
            "imported nor registered; do so if you trust it, or pass the config again"
        )
    if is_config(run) and (found := excess(recorded)) is not None:
        raise TuneError(
            f"resume: {STATE} has a {found[0]} for {trial.name} that asks for {found[1]}; if you want it, pass the "
            "config again"
        )


def _forget(trial: Trial) -> None:
    for checkpoint in trial.checkpoints:
        shutil.rmtree(checkpoint.path, ignore_errors=True)
    trial.checkpoints = []


# What is said


def _say_order(
    experiment: Experiment, suggestions: Suggestions | None, scheduler: TrialScheduler, shown: ProgressReporter
) -> None:
    """How several trials share this process."""
    total = len(experiment.trials) if suggestions is None else suggestions.total
    if total > 1:
        how = "in turn" if scheduler.compares else "one after another"
        shown.print(f"{total} trials, {how}; max_concurrent_trials=... runs them side by side")


def _say_end(experiment: Experiment, shown: ProgressReporter, interrupted: bool) -> None:
    folder = experiment.folder
    shown.print(f"Results: {short_path(folder)}")
    if experiment.status == PAUSED:
        again = "To go on, run the same" if interrupted else "Once the error is mended, go on"
        shown.print(
            f"Not all trials have ended. {again} with "
            f"name={folder.name!r}, local_dir={str(folder.parent)!r}, resume=True"
        )


def _raise_failures(experiment: Experiment, first_error: BaseException | None) -> None:
    failed = [trial for trial in experiment.trials if trial.status == ERROR]
    if not failed:
        return
    lines = []
    for trial in failed[:10]:
        trace = Path(trial.error_file).read_text(encoding="utf-8").strip() if trial.error_file else ""
        lines.append(f"  {trial.name}: {last_line(trace)}\n    {trial.error_file}")
    if len(failed) > 10:
        lines.append(f"  and {len(failed) - 10} more")
    count = f"{len(failed)} of {len(experiment.trials)} trials" if len(experiment.trials) > 1 else "The trial"
    raise TuneError(f"{count} failed:\n" + "\n".join(lines)) from first_error
