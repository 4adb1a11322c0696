"""What the commands share. Imports typer and nothing else: it is on the way to `--help`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer


def _remember(ctx: typer.Context, value: int) -> int:
    ctx.meta["athlete.verbose"] = value
    return value


Verbose = Annotated[
    int, typer.Option("-v", "--verbose", count=True, callback=_remember, help="Say more; show tracebacks. Also -vv.")
]


def find_module_here(env: str | None) -> None:
    """Let a typed `my_module.MyEnv` be found in the folder where it was typed, after everything installed.

    For nothing else: what a checkpoint or a file of experiments needs is never taken from the current folder.
    """
    if env is not None and ("." in env or ":" in env):
        find_modules_here()


def find_modules_here() -> None:
    """Let all modules be found in the current folder too: the user has said that what is here may run."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


def aligned(rows: Sequence[Sequence[Any]]) -> str:
    """Rows as lines with aligned columns; the last column may be long and is not padded."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in texts]
    return "\n".join(lines)


def command(*words: str) -> str:
    """A command line as a shell takes it; `~/` at a word's beginning stays what the shell makes a folder of."""
    kept = ["~/" + shlex.quote(word[2:]) if word.startswith("~/") else shlex.quote(word) for word in words]
    return " ".join(kept)


def without_options(args: Sequence[str], passed_over: dict[str, tuple[bool, str]]) -> list[str]:
    """The command line without RLlib's options that mean nothing here; a line for each that was given.

    `passed_over` maps an option to whether a value follows it, and the line.
    """
    kept: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        name, has_value, _ = word.partition("=")
        if word == "--":
            return [*kept, word, *rest]
        if name not in passed_over:
            kept.append(word)
            continue
        takes_value, line = passed_over[name]
        if takes_value and not has_value and rest:
            rest.pop(0)
        typer.echo(f"{name}: {line}", err=True)
    return kept
