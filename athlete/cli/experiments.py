"""From the words of a command line to experiments, and what is said when they have run."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from athlete import tune
from athlete.cli.common import command, find_modules_here
from athlete.cli.curve import learning_curve
from athlete.record.files import short_path
from athlete.record.progress import short_names
from athlete.record.results import read_results
from athlete.tune.space import merged
from athlete.tune.trial import Trial, last_line
from athlete.tuned_examples.experiment_file import (
    Experiment,
    parse_yaml,
    read_experiments,
    result_name,
    without_rllib_only,
)

_FILES = (".yaml", ".yml", ".json", ".py")


# What was asked for


def chosen(
    words: Sequence[str], run: str | None, env: str | None, file: str | None, trust: bool
) -> tuple[list[Experiment], bool]:
    """The experiments that the command names, and whether they come from a file, which may name code with `trust`.

    Raises typer.BadParameter where it names too much or too little.
    """
    rest = list(words)
    if rest[:1] == ["file"]:
        rest = rest[1:]
        if file is None and not rest:
            raise typer.BadParameter("which file? athlete train file FILE.yaml")
    if file is None and rest and rest[0].endswith(_FILES):
        file = rest.pop(0)
    if file is not None:
        if rest or run or env:
            raise typer.BadParameter(f"{file} says what to train; leave the algorithm and the environment out")
        if trust or file.endswith(".py"):  # a program, or as good as one: it may import what lies here
            find_modules_here()
        return read_experiments(Path(file).expanduser(), trust), True
    if run is None and rest:
        run = rest.pop(0)
    if env is None and rest:
        env = rest.pop(0)
    if rest:
        raise typer.BadParameter(f"one algorithm and one environment; what is {' '.join(map(repr, rest))}?")
    if run is None:
        raise typer.BadParameter("which algorithm and environment? athlete train PPO CartPole-v1")
    return [Experiment(None, run, {} if env is None else {"env": env})], False


def dictionary(text: str | None, option: str) -> dict[str, Any]:
    """The value of an option that takes a dictionary in JSON or YAML."""
    value = parse_yaml(text, option) if text else {}
    if not isinstance(value, Mapping):
        raise typer.BadParameter(f"{option} takes a dictionary such as '{{\"lr\": 1e-3}}', got {text!r}")
    return dict(value)


def nested(assignments: Sequence[str]) -> dict[str, Any]:
    """`["lr=1e-3", "model.use_gru=true"]` as a configuration; values are YAML, dots lead into dictionaries."""
    config: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        *outer, last = path.strip().split(".")
        if not equals or not last or not all(outer):
            raise typer.BadParameter(
                f"--set takes NAME=VALUE, such as lr=1e-3 or model.use_gru=true; got {assignment!r}"
            )
        inner = config
        for key in outer:
            inner = inner.setdefault(key, {})
            if not isinstance(inner, dict):
                raise typer.BadParameter(f"--set {assignment}: {key!r} was set to {inner!r} before")
        inner[last] = parse_yaml(text, f"--set {assignment}")
    return config


def changed(
    experiment: Experiment, config: Mapping[str, Any], stop: Mapping[str, Any], settings: Mapping[str, Any]
) -> Experiment:
    """The experiment with what the command line says on top; a setting of None says nothing.

    Raises what `Experiment.check` does.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    stops = {result_name(name): value for name, value in stop.items()}
    final_config = merged(experiment.config, without_rllib_only(config, "--config"))
    settings = {**experiment.settings, **given}
    if "seed" in given:  # several samples with one seed would be the same training several times
        several = settings.get("num_samples", 1) > 1
        final_config["seed"] = tune.randint(0, 2**31 - 1) if several else given["seed"]
    final = dataclasses.replace(experiment, config=final_config, stop={**experiment.stop, **stops}, settings=settings)
    if final.config.get("env") is None:
        raise typer.BadParameter(f"which environment? athlete train {experiment.run} CartPole-v1")
    final.check()
    return final


def renamed(experiments: Sequence[Experiment], name: str) -> list[Experiment]:
    """The one experiment under another name."""
    if len(experiments) > 1:
        raise typer.BadParameter(
            f"--name {name}: the file holds {len(experiments)} experiments, with names of their own"
        )
    return [dataclasses.replace(experiments[0], name=name)]


# Running


def run_all(
    experiments: Sequence[Experiment], how: Mapping[str, Any], video: bool, words: Sequence[str], episodes: int = 0
) -> None:
    """Run experiments in turn, say where their checkpoints are, and how the best does in so many greedy episodes.

    `how` goes to `tune.run` beneath the experiments' own settings; `words` are what was typed, for the line that
    resumes. Exits with 1 if a trial has failed, with 130 after Ctrl-C.
    """
    has_failed = False
    for experiment in experiments:
        if not experiment.stop and "time_budget_s" not in experiment.settings:
            typer.echo("Nothing says when to stop (--stop-reward, --stop-timesteps, ...): Ctrl-C ends it.", err=True)
        config = {"log_level": "DEBUG", **experiment.config} if how["verbose"] > 2 else experiment.config
        settings = {**how, **experiment.settings}
        analysis = tune.run(
            experiment.run,
            config=config,
            stop=experiment.stop or None,
            name=experiment.name,
            raise_on_failed_trial=False,
            **settings,
        )
        show_results(analysis, video, 0 if analysis.interrupted else episodes)
        failed = [trial for trial in analysis.trials if trial.status == "ERROR"]
        for trial in failed:
            typer.secho(f"Error: {trial.name}: {_last_line(trial)}", fg="red", err=True)
        has_failed = has_failed or bool(failed)
        if analysis.interrupted:
            typer.echo(f"\nTo go on: {resume_line(words, analysis.folder, len(experiments) > 1)}")
            raise typer.Exit(130)
    if has_failed:
        raise typer.Exit(1)


def resume_line(words: Sequence[str], folder: Path, has_own_names: bool) -> str:
    """The command that goes on with the experiment in `folder`, from the words that began it."""
    kept: list[str] = []
    rest = [word for word in words if word != "--resume"]
    while rest:
        word = rest.pop(0)
        option, has_value, _ = word.partition("=")
        if option in ("--name", "--experiment-name", "-n", "--local-dir") and not has_own_names:
            rest = rest if has_value else rest[1:]
        else:
            kept.append(word)
    named = [] if has_own_names else ["--name", folder.name, "--local-dir", str(folder.parent)]
    return shlex.join(["athlete", "train", *kept, *named, "--resume"])


def _last_line(trial: Trial) -> str:
    path = trial.error_file
    return f"{last_line(Path(path).read_text(encoding='utf-8'))} (all of it in {path})" if path else "unknown"


# What is said at the end


def show_results(analysis: tune.ExperimentAnalysis, video: bool, episodes: int = 0) -> None:
    """The learning curve of a single trial, each trial's best checkpoint, how the best does, and what to do with it."""
    if len(analysis.trials) == 1:
        draw_curve(analysis.trials[0].folder)
    checkpoints = {trial.name: best_checkpoint(analysis, trial) for trial in analysis.trials if trial.checkpoints}
    if not checkpoints:
        return
    if len(checkpoints) > 1:
        names = short_names(list(checkpoints))
        typer.echo("\nBest checkpoint of each trial:")
        for name, path in checkpoints.items():
            typer.echo(f"  {names[name]}: {short_path(str(path))}")
    trial = best_trial(analysis)
    best = str(checkpoints[trial.name])
    typer.echo(f"\nBest checkpoint: {short_path(best)}")
    if episodes and trial.last_result.get("episodes_total"):
        evaluate_greedily(best, trial.config.get("env"), episodes)
    if video:
        film(best, trial.config.get("env"))
    typer.echo(f"\nTo evaluate it:\n  {evaluate_line(best, trial.config.get('env'))}")


def evaluate_line(checkpoint: str, env: Any) -> str:
    """The command that evaluates a checkpoint.

    It names an environment of the user's own: `evaluate` imports no code because a checkpoint says so.
    """
    is_own = isinstance(env, str) and ("." in env or ":" in env)
    return command(
        "athlete", "evaluate", short_path(checkpoint), "--episodes", "20", *(["--env", env] if is_own else [])
    )


def evaluate_greedily(checkpoint: str, env: Any, episodes: int) -> None:
    """Say how a checkpoint does with its best action each time: training's mean is of sampled ones, and lags behind."""
    from athlete.algorithm import Algorithm

    if not isinstance(env, str):  # an instance, or a server that waits for others to play
        return
    try:
        with Algorithm.from_checkpoint(checkpoint, env=env, logdir=False) as algorithm:
            found = algorithm.evaluate(episodes)["evaluation"]
    except Exception as error:  # the training is done all the same
        typer.echo(f"It could not be evaluated: {error}", err=True)
        return
    mean, low, high = (f"{found[f'episode_reward_{kind}']:.6g}" for kind in ("mean", "min", "max"))
    typer.echo(f"Evaluated greedily over {episodes} episodes: mean {mean}, lowest {low}, highest {high}")


def draw_curve(trial_folder: Path) -> None:
    """A trial's mean episode reward over its timesteps."""
    rows = read_results(trial_folder)
    steps = [float(row.get("timesteps_total", math.nan)) for row in rows]
    rewards = [float(row.get("episode_reward_mean", math.nan)) for row in rows]
    chart = learning_curve(steps, rewards, "episode_reward_mean")
    if chart:
        typer.echo(f"\n{chart}")


def best_trial(analysis: tune.ExperimentAnalysis) -> Trial:
    """The best of the trials that have a checkpoint; the first where none has a finite reward."""
    try:
        trial = analysis.get_best_trial()
    except tune.TuneError:
        trial = analysis.trials[0]
    return trial if trial.checkpoints else next(trial for trial in analysis.trials if trial.checkpoints)


def best_checkpoint(analysis: tune.ExperimentAnalysis, trial: Trial) -> str | None:
    """The trial's best checkpoint by its reward; the newest where there was no episode to judge by."""
    try:
        return analysis.get_best_checkpoint(trial)
    except tune.TuneError:
        return trial.checkpoint


def film(checkpoint: str, env: Any = None) -> None:
    """Film an episode of a checkpoint into `videos` beside it; `env` where the checkpoint is not to be asked."""
    from athlete.algorithm import Algorithm
    from athlete.record.tensorboard import EventWriter, step_of

    folder = Path(checkpoint).parent
    with Algorithm.from_checkpoint(checkpoint, env=env) as algorithm:
        films, iteration = algorithm.record_video(folder / "videos"), algorithm.iteration
    steps = [step_of(result) for result in read_results(folder) if result.get("training_iteration") == iteration]
    with contextlib.closing(EventWriter(folder)) as events:
        for path in films:
            events.film(path, steps[-1] if steps else 0)
            typer.echo(f"\nFilm: {short_path(path)}")
