"""`athlete report`: one page of what a training or an experiment came to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[Path, typer.Argument(help="An experiment's folder, a training's, or one of several.")],
    metric: Annotated[str | None, typer.Option(help="The result to report; else the experiment's metric.")] = None,
    mode: Annotated[str | None, typer.Option(help="max or min: which is better.")] = None,
    out: Annotated[Path | None, typer.Option(help="The page; else report.html in the folder.")] = None,
) -> None:
    """Write an HTML page about a training or an experiment.

    It has curves, results, film, settings, machine and how to repeat it, and needs no other file.

    athlete report ~/athlete_results/PPO_2026-01-31_12-00-00
    """
    from athlete.record.files import short_path
    from athlete.tune.report_page import write_report

    if mode not in (None, "min", "max"):
        raise typer.BadParameter(f"--mode {mode}: max or min")
    typer.echo(short_path(write_report(folder, out, metric, mode)))
