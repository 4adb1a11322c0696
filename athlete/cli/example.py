"""`athlete example`: the tuned examples."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from athlete.cli.common import Verbose, aligned

app = typer.Typer(
    help="List tuned examples, show one, or train one to its threshold.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="An example's name, from `athlete example list`.")]


def overview(containing: str) -> str:
    """The examples whose names contain a word, each with algorithm, environment and what it must reach."""
    from athlete.tuned_examples import load, names

    rows: list[tuple[Any, ...]] = []
    for name in names():
        if containing.lower() in name:
            example = load(name)
            criteria = ", ".join(f"{result} {value:g}" for result, value in example.pass_criteria.items())
            rows.append((name, example.run, example.config["env"], criteria))
    return aligned(rows) if rows else f"no example has {containing!r} in its name"


@app.command("list")
def list_examples(
    containing: Annotated[str, typer.Option("--filter", "-f", help="Only names that contain this.")] = "",
) -> None:
    """List the examples."""
    typer.echo(overview(containing))


@app.command("get")
def get(name: Name) -> None:
    """Print an example's file."""
    from athlete.tuned_examples import path_of

    typer.echo(path_of(name).read_text(encoding="utf-8"), nl=False)


@app.command("run")
def run(
    name: Name,
    seeds: Annotated[int, typer.Option(min=1, help="Train with this many seeds: 0, 1, 2, ...")] = 1,
    local_dir: Annotated[
        str | None, typer.Option(help="Folder of results; else $ATHLETE_RESULTS_DIR, else ~/athlete_results.")
    ] = None,
    max_concurrent_trials: Annotated[int | None, typer.Option(min=1, help="Trials at once, in processes.")] = None,
    video: Annotated[bool, typer.Option("--video", help="Film an episode of the first seed's policy.")] = False,
    verbose: Verbose = 0,
) -> None:
    """Train an example as its file says; exit with 1 if it does not reach its threshold."""
    from athlete import tuned_examples
    from athlete.cli.experiments import draw_curve, film
    from athlete.log import show_log

    show_log(verbose)
    example = tuned_examples.load(name)
    settings = {"local_dir": local_dir, "max_concurrent_trials": max_concurrent_trials, "verbose": 1 + verbose}
    outcomes = tuned_examples.train(example, range(seeds), **settings)
    if len(outcomes) < seeds:
        raise typer.Exit(130)
    if seeds == 1:
        draw_curve(outcomes[0].folder)
    evaluation = tuned_examples.FINAL_EVALUATION
    rows = [("seed", "timesteps", "seconds", evaluation, "checkpoint")]
    for outcome in outcomes:
        told = outcome.results
        numbers = f"{told['timesteps_total']:,}", f"{told['time_total_s']:.1f}", f"{told[evaluation]:.6g}"
        rows.append((str(outcome.seed), *numbers, outcome.checkpoint))
    typer.echo(f"\n{aligned(rows)}\n")
    if video:
        film(outcomes[0].checkpoint)
    verdicts = tuned_examples.judge(example, outcomes)
    for verdict in verdicts:
        typer.secho(str(verdict), fg="green" if verdict.met else "red")
    if not all(verdict.met for verdict in verdicts):
        raise typer.Exit(1)
