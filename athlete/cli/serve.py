"""`athlete serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from athlete.cli.common import Verbose
from athlete.cli.evaluate import found_checkpoint


def serve(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint; or the folder of a trial, whose newest is served.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen.")] = 8000,
    host: Annotated[str, typer.Option(help="Another address than this machine's own needs a token.")] = "127.0.0.1",
    token: Annotated[str | None, typer.Option(envvar="ATHLETE_TOKEN", help="What requests must bring.")] = None,
    max_batch_size: Annotated[int, typer.Option(min=1, max=4096, help="Requests answered by one call.")] = 64,
    reload_s: Annotated[float, typer.Option(min=0, help="How often a newer checkpoint is looked for; 0: never.")] = 5.0,
    sessions: Annotated[str | None, typer.Option(metavar="FILE", help="Keeps sessions over a restart.")] = None,
    policy_id: Annotated[str, typer.Option("--policy", help="Which of several.")] = "default_policy",
    verbose: Verbose = 0,
) -> None:
    """Answer {"observation": ...} with {"action": ...} over HTTP."""
    from athlete.log import show_log
    from athlete.serve.answers import require_token
    from athlete.serve.http import make_app, require_package, run
    from athlete.serve.server import PolicyServer

    show_log(verbose)
    require_package()
    require_token(host, token)
    path = Path(checkpoint).expanduser()
    server = PolicyServer(
        lambda: found_checkpoint(path),
        policy_id,
        max_batch_size=max_batch_size,
        sessions_file=Path(sessions).expanduser() if sessions is not None else None,
    )
    typer.echo(f"serving {server.checkpoint}")
    example = "curl -d '{\"observation\": ...}'"
    typer.echo(f"{example} http://{host}:{port}/   also /health and /metrics; Ctrl-C ends it")
    run(make_app(server, token, reload_s or None), host, port)
