"""`athlete export`."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from athlete.cli.common import Verbose
from athlete.cli.evaluate import found_checkpoint


class Format(enum.StrEnum):
    """What a policy can be written as."""

    onnx = "onnx"
    stablehlo = "stablehlo"
    torch = "torch"
    numpy = "numpy"
    web = "web"


def export(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint; or the folder of a trial or an experiment.")],
    to: Annotated[Format, typer.Option("--to", help="The format.")],
    out: Annotated[str | None, typer.Option("--out", "-o", metavar="FILE", help="By default policy.* here.")] = None,
    policy_id: Annotated[str, typer.Option("--policy", help="Which of several.")] = "default_policy",
    verbose: Verbose = 0,
) -> None:
    """Write a trained policy for use without Athlete.

    As ONNX, StableHLO, PyTorch, NumPy, or a page in which it plays.
    """
    from athlete.export.formats import FORMATS
    from athlete.log import show_log
    from athlete.policy import Policy

    show_log(verbose)
    path = Path(out).expanduser() if out is not None else Path(FORMATS[to.value][0])
    policy = Policy.from_checkpoint(found_checkpoint(Path(checkpoint).expanduser()), policy_id)
    for file in policy.export(path, to.value):
        typer.echo(f"{file}  {Path(file).stat().st_size:,} bytes")
