"""`athlete tune`: a search from the command line."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from athlete.cli.common import Verbose, find_module_here

_SEARCH = typer.Option(
    "--search", metavar="NAME=RANGE", help="What to search: 'lr=loguniform(1e-5, 1e-2)', 'gamma=[0.9, 0.99]'."
)


def tune(
    algorithm: Annotated[str, typer.Argument(help="PPO, DQN, ...")],
    env: Annotated[str, typer.Argument(help="CartPole-v1, or my_module.MyEnv.")],
    search: Annotated[list[str] | None, _SEARCH] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting: lr=1e-3, model.use_gru=true.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="'asha', 'hyperband', 'pbt', ...; with settings 'asha(max_t=50)'.")
    ] = None,
    search_alg: Annotated[
        str | None, typer.Option(help="'optuna', or 'optuna(seed=1)'; else random and grids.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="The result that is compared.")] = None,
    mode: Annotated[str | None, typer.Option(help="max or min: which is better.")] = None,
    num_samples: Annotated[int, typer.Option(min=1, help="Draws, each with every value of the grids.")] = 1,
    num_seeds: Annotated[int, typer.Option(min=1, help="Seeds of each configuration.")] = 1,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the search's draws.")] = None,
    stop_reward: Annotated[float | None, typer.Option(help="Stop a trial at this mean episode reward.")] = None,
    stop_timesteps: Annotated[int | None, typer.Option(min=1, help="Stop a trial at this many timesteps.")] = None,
    stop_iters: Annotated[int | None, typer.Option(min=1, help="Stop a trial at this many iterations.")] = None,
    max_concurrent_trials: Annotated[int | None, typer.Option(min=1, help="Trials at once, in processes.")] = None,
    checkpoint_freq: Annotated[int, typer.Option(min=0, help="Iterations between checkpoints.")] = 0,
    local_dir: Annotated[
        str | None, typer.Option(help="Folder of results; else $ATHLETE_RESULTS_DIR, else ~/athlete_results.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", "-n", help="The experiment's folder in it.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the experiment of that name.")] = False,
    verbose: Verbose = 0,
) -> None:
    """Search the settings of an algorithm in an environment.

    athlete tune PPO CartPole-v1 --search 'lr=loguniform(1e-5, 1e-2)' --num-samples 16 --scheduler asha
    """
    from athlete import tune as tuning
    from athlete.cli import experiments
    from athlete.log import show_log

    show_log(verbose)
    find_module_here(env)
    given = {"episode_reward_mean": stop_reward, "timesteps_total": stop_timesteps, "training_iteration": stop_iters}
    stop = {key: at for key, at in given.items() if at is not None}
    if not stop and scheduler is None:
        raise typer.BadParameter("say when a trial ends: --stop-timesteps 100000, or --scheduler 'asha(max_t=50)'")
    analysis = tuning.run(
        algorithm,
        config=searched({"env": env, **experiments.nested(changes or [])}, search or []),
        stop=stop or None,
        scheduler=_scheduler(scheduler),
        search_alg=_searcher(search_alg),
        metric=metric,
        mode=mode,
        num_samples=num_samples,
        num_seeds=num_seeds,
        seed=seed,
        max_concurrent_trials=max_concurrent_trials,
        checkpoint_freq=checkpoint_freq,
        checkpoint_at_end=True,
        local_dir=None if local_dir is None else str(Path(local_dir).expanduser()),
        name=name,
        resume=resume,
        raise_on_failed_trial=False,
        verbose=1 + verbose,
    )
    show(analysis)
    if analysis.interrupted:
        raise typer.Exit(130)
    if any(trial.status == "ERROR" for trial in analysis.trials):
        raise typer.Exit(1)


def searched(config: dict[str, Any], searches: list[str]) -> dict[str, Any]:
    """The config with `NAME=RANGE` in it: a range of `athlete.tune` by its name, or a list, which is a grid."""
    from athlete import tune as tuning
    from athlete.tune.space import set_value

    for text in searches:
        name, equals, place = text.partition("=")
        if not equals or not name.strip():
            raise typer.BadParameter(f"--search takes NAME=RANGE, such as 'lr=loguniform(1e-5, 1e-2)'; got {text!r}")
        if place.strip().startswith("["):
            value: Any = tuning.grid_search(_literal(ast.parse(place.strip(), mode="eval").body, text))
        else:
            kind, arguments, settings = called(place, f"--search {text}")
            value = _range(kind, text)(*arguments, **settings)
        config = set_value(config, tuple(name.strip().split(".")), value)
    return config


def _range(kind: str, text: str) -> Any:
    from athlete import tune as tuning
    from athlete.tune import space

    known = [each for each in tuning.__all__ if hasattr(space, each) and each != "sample_from"]
    if kind not in known:
        raise typer.BadParameter(f"--search {text}: there is no {kind!r}; there are {', '.join(known)}")
    return getattr(space, kind)


def called(text: str, where: str) -> tuple[str, list[Any], dict[str, Any]]:
    """`asha(max_t=50)` as name, arguments and settings, which are plain values: nothing is executed."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise typer.BadParameter(f"{where}: not NAME or NAME(VALUE, ...)") from error
    if isinstance(node, ast.Name):
        return node.id, [], {}
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise typer.BadParameter(f"{where}: not NAME or NAME(VALUE, ...)")
    settings = {word.arg: _literal(word.value, where) for word in node.keywords if word.arg is not None}
    return node.func.id, [_literal(each, where) for each in node.args], settings


def _literal(node: ast.expr, where: str) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise typer.BadParameter(f"{where}: {ast.unparse(node)} is no number, text, list or dictionary") from error


def _scheduler(text: str | None) -> Any:
    from athlete.tune.schedulers import create_scheduler

    return None if text is None else _made(create_scheduler, text, "--scheduler")


def _searcher(text: str | None) -> Any:
    from athlete.tune.search import create_searcher

    return None if text is None else _made(create_searcher, text, "--search-alg")


def _made(create: Any, text: str, option: str) -> Any:
    name, arguments, settings = called(text, f"{option} {text}")
    if arguments:
        raise typer.BadParameter(f"{option} {text}: settings have names, such as {name}(max_t=50)")
    try:
        return create(name, **settings)
    except TypeError as error:
        taken = inspect.signature(type(create(name)).__init__).parameters
        raise typer.BadParameter(f"{option} {text}: {error}; it takes {', '.join(list(taken)[1:])}") from error


def show(analysis: Any) -> None:
    """The best configurations, and what to do with them."""
    from athlete.cli.common import aligned, command
    from athlete.cli.experiments import best_checkpoint, evaluate_line
    from athlete.record.files import short_path
    from athlete.tune import TuneError

    try:
        frame = analysis.results_by_config().head(10)
    except TuneError as error:
        typer.echo(error)
        return
    names = [name for name in frame.columns if name != "trial_ids" and not frame[name].isna().all()]
    rows = [[f"{value:.4g}" if isinstance(value, float) else value for value in row] for row in frame[names].values]
    typer.echo(f"\nThe best configurations, by {analysis.metric_of(None)}:\n")
    typer.echo(aligned([[name.removeprefix("config/") for name in names], *rows]))
    best = analysis.get_best_trial(filter_nan_and_inf=False)
    if checkpoint := best_checkpoint(analysis, best):
        typer.echo(f"\nTo evaluate the best trial:\n  {evaluate_line(checkpoint, best.config.get('env'))}")
    typer.echo(f"\nTo draw it:\n  {command('athlete', 'plot', short_path(analysis.folder))}")
