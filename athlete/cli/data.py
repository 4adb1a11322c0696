"""`athlete data`, `athlete convert` and `athlete record`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from athlete.cli.common import Verbose, find_module_here
from athlete.cli.evaluate import found_checkpoint

Limit = Annotated[
    int | None, typer.Option("--max-episode-steps", min=1, help="The time limit, where the file tells dones alone.")
]


def data(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Files, folders or patterns of recorded data.")],
    max_episode_steps: Limit = None,
    verbose: Verbose = 0,
) -> None:
    """Check recorded data and tell what is in them.

    Spaces, episodes, statistics, and a histogram of returns.
    """
    from athlete.log import show_log
    from athlete.offline.files import read_data
    from athlete.offline.report import report

    show_log(verbose)
    typer.echo(report(read_data(files, _options(max_episode_steps))))


def convert(
    source: Annotated[str, typer.Argument(metavar="FROM", help="A file, folder or pattern of recorded data.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="The file to write; its ending says the format.")],
    max_episode_steps: Limit = None,
    verbose: Verbose = 0,
) -> None:
    """Write recorded data in another format.

    .safetensors (the fastest), .json (RLlib's), .npz.
    """
    from athlete.log import show_log
    from athlete.offline.files import read_data, write_data

    show_log(verbose)
    found = read_data(source, _options(max_episode_steps))
    path = write_data(found, Path(target).expanduser())
    typer.echo(f"{path}  {path.stat().st_size:,} bytes  {len(found):,} steps of {len(found.ends):,} episodes")


def record(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint; or the folder of a trial or an experiment.")],
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE", help="The file to write.")],
    episodes: Annotated[int, typer.Option("--episodes", "-n", min=1, help="How many.")] = 100,
    seed: Annotated[int | None, typer.Option(min=0, help="By default the training's, so that data repeat.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Take the best actions instead of drawing them.")] = False,
    env: Annotated[str | None, typer.Option(help="The environment, where the checkpoint cannot say it.")] = None,
    verbose: Verbose = 0,
) -> None:
    """Play episodes with a trained policy, and write them as data."""
    from athlete.algorithm import Algorithm
    from athlete.log import show_log

    find_module_here(env)
    show_log(verbose)
    path = found_checkpoint(Path(checkpoint).expanduser())
    with Algorithm.from_checkpoint(path, env=env) as algorithm:
        typer.echo(algorithm.record(out, episodes, explore=not greedy, seed=seed))


def _options(max_episode_steps: int | None) -> dict[str, int]:
    return {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
