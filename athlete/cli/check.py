"""`athlete check`, `athlete list` and `athlete doctor`."""

from __future__ import annotations

import enum
import shutil
from typing import Annotated

import typer

from athlete.cli.common import Verbose, aligned, find_module_here


def check(
    environment: Annotated[str, typer.Argument(help="A Gymnasium id, or a class such as my_module.MyEnv.")],
    env_config: Annotated[str, typer.Option("--env-config", help="What it is made with, as JSON or YAML.")] = "{}",
    verbose: Verbose = 0,
) -> None:
    """Say precisely what is wrong with an environment, if anything is.

    It is played with random actions.
    """
    from athlete.env.checks.check import check_env
    from athlete.log import show_log
    from athlete.tuned_examples.experiment_file import parse_yaml

    find_module_here(environment)
    show_log(verbose)
    arguments = parse_yaml(env_config, "--env-config")
    if not isinstance(arguments, dict):
        raise typer.BadParameter(f"expected a dictionary such as '{{\"is_slippery\": false}}', got {env_config!r}")
    check_env(environment, arguments)
    typer.secho(f"{environment}: ok", fg="green")


class Listed(enum.StrEnum):
    """What there are lists of."""

    algorithms = "algorithms"
    environments = "environments"
    examples = "examples"


def list_names(
    what: Annotated[
        Listed, typer.Argument(metavar="algorithms|environments|examples", help="What to list.")
    ] = Listed.algorithms,
) -> None:
    """List algorithms, environments or tuned examples."""
    if what is Listed.algorithms:
        typer.echo(_algorithms())
    elif what is Listed.environments:
        typer.echo(_environments())
    else:
        from athlete.cli.example import overview

        typer.echo(overview(""))


def _algorithms() -> str:
    """Each with the actions that it serves, whether its network has memory, its agents, its data and its paper."""
    from athlete.algorithms.catalog import agents_of, entries
    from athlete.spaces import ACTION_KINDS

    rows: list[tuple[str, ...]] = [("algorithm", "actions", "memory", "agents", "learns from", "paper")]
    for entry in entries():
        actions = "any" if set(entry.actions) == set(ACTION_KINDS) else ", ".join(entry.actions)
        learns_from = entry.learns_from.removesuffix(", of all agents together")
        rows.append((entry.name, actions, entry.memory, agents_of(entry.name), learns_from, entry.paper))
    if max(map(len, aligned(rows).splitlines())) > shutil.get_terminal_size((1000, 24)).columns:
        rows = [(*row[:4], row[5].partition(", ")[0]) for row in rows]  # where to find a paper is on the page of each
    return aligned(rows)


def _environments() -> str:
    """Every id that works here, with where it runs, the compiled ones first; then why the others do not."""
    from athlete.env.adapters.gymnasium import registry, why_missing
    from athlete.env.registry import BUILT_IN
    from athlete.env.twins import twin_ids

    compiled = sorted([*BUILT_IN, *(env_id for env_id in twin_ids() if env_id in registry)])
    there, missing = [(env_id, "compiled") for env_id in compiled], dict[str, list[str]]()
    for env_id in sorted(set(registry) - set(compiled)):
        reason = why_missing(env_id)
        if reason is None:
            there.append((env_id, "on Gymnasium"))
        else:
            missing.setdefault(reason, []).append(env_id)
    reasons = [f"\nNot here: {', '.join(ids)}\n  {reason}" for reason, ids in missing.items()]
    return "\n".join([aligned(there), *reasons])


def doctor() -> None:
    """Check this installation: versions, devices, folders, films.

    Exit with 1 if a core part does not work.
    """
    from athlete.cli.doctor import examine

    text, is_well = examine()
    typer.echo(text)
    typer.secho("\nAll core parts work." if is_well else "\nNot all core parts work.", fg="green" if is_well else "red")
    if not is_well:
        raise typer.Exit(1)
