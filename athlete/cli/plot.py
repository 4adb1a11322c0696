"""`athlete plot`: the pictures of an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_FORMATS = ("svg", "png", "html", "pdf")


def plot(
    folder: Annotated[Path, typer.Argument(help="An experiment's folder.")],
    metric: Annotated[str | None, typer.Option(help="The result to draw; else the experiment's metric.")] = None,
    mode: Annotated[str | None, typer.Option(help="max or min: which is better.")] = None,
    x: Annotated[str, typer.Option("--x", help="The result to draw it over.")] = "timesteps_total",
    out: Annotated[Path | None, typer.Option(help="Where the pictures go; else into the experiment's folder.")] = None,
    picture: Annotated[str, typer.Option("--format", help="svg, png, html or pdf.")] = "svg",
) -> None:
    """Draw learning curves, and the search of an experiment.

    Curves have bands over seeds; a search is drawn as parallel coordinates.

    athlete plot results/rates --format png
    """
    from athlete.tune import ExperimentAnalysis
    from athlete.tune.plot import plot_curves, plot_parallel_coordinates

    if picture not in _FORMATS:
        raise typer.BadParameter(f"--format {picture}: {', '.join(_FORMATS)}")
    analysis = ExperimentAnalysis(folder, metric, mode)
    place = analysis.folder if out is None else out
    typer.echo(plot_curves(analysis, place / f"curves.{picture}", x=x))
    if len(analysis.trials_by_config()) > 1:
        typer.echo(plot_parallel_coordinates(analysis, place / f"parallel_coordinates.{picture}"))
