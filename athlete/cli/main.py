"""`athlete`: the commands, and how their errors are told. Imports typer and nothing heavy: `--help` comes at once."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from athlete.cli import check, data, evaluate, example, export, plot, report, serve, train, tune
from athlete.version import __version__

# Their message alone says what to do.
_EXPECTED = (ValueError, TypeError, KeyError, ImportError, OSError, NotImplementedError)


class Commands(TyperGroup):
    """The commands; an error in one is a sentence, or with `-v` or ATHLETE_DEBUG=1 also its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except Exception as error:
            # Typer's own (usage errors, exits) and a closed pipe are dealt with further up.
            if isinstance(error, typer.Abort | BrokenPipeError) or hasattr(error, "exit_code"):
                raise
            _tell(error, verbose=bool(ctx.meta.get("athlete.verbose")))
            raise typer.Exit(1) from None


def _tell(error: Exception, verbose: bool) -> None:
    if verbose or os.environ.get("ATHLETE_DEBUG", "0") not in ("", "0"):
        import traceback

        traceback.print_exception(error)
    message = str(error) or type(error).__name__
    expected = isinstance(error, _EXPECTED) or type(error).__module__.startswith("athlete.")
    typer.secho(f"Error: {message if expected else f'{type(error).__name__}: {message}'}", fg="red", err=True)
    if not expected and not verbose:
        typer.echo("ATHLETE_DEBUG=1 shows the traceback.", err=True)


app = typer.Typer(
    cls=Commands,
    help="Reinforcement learning, compiled: train, evaluate and film policies.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # help through rich takes twice as long
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"athlete {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Reinforcement learning, compiled: train, evaluate and film policies."""


app.command("train", cls=train.TrainCommand)(train.train)
app.command("tune")(tune.tune)
app.command("plot")(plot.plot)
app.command("report")(report.report)
app.command("evaluate", cls=evaluate.EvaluateCommand)(evaluate.evaluate)
app.command("export")(export.export)
app.command("serve")(serve.serve)
app.command("record")(data.record)
app.command("data")(data.data)
app.command("convert")(data.convert)
app.command("check")(check.check)
app.command("list")(check.list_names)
app.add_typer(example.app, name="example")
app.command("doctor")(check.doctor)


def main() -> None:
    """The entry point of the `athlete` command."""
    app(prog_name="athlete")
