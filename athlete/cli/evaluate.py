"""`athlete evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from athlete.cli.common import Verbose, aligned, find_module_here, without_options

_KNOWN = "the checkpoint knows its algorithm"
# RLlib's options that mean nothing here: whether a value follows, and what is said.
_PASSED_OVER = {
    "--run": (True, _KNOWN),
    "--algo": (True, _KNOWN),
    "--local-mode": (False, "evaluation runs on this machine and needs no Ray"),
    "--no-render": (False, "films are made with --video DIR"),
    "--render": (False, "films are made with --video DIR"),
}
_ROWS = ("episode_reward_mean", "episode_reward_min", "episode_reward_max", "episode_len_mean")


class EvaluateCommand(TyperCommand):
    """Passes over RLlib's options that mean nothing here."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, without_options(args, _PASSED_OVER))


def evaluate(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint; or the folder of a trial or an experiment.")],
    episodes: Annotated[
        int | None, typer.Option("--episodes", "-n", min=1, help="How many; by default as the training evaluated.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="By default the training's, so that numbers repeat.")] = None,
    explore: Annotated[bool, typer.Option("--explore", help="Sample the actions instead of the best ones.")] = False,
    env: Annotated[str | None, typer.Option(help="The environment, where the checkpoint cannot say it.")] = None,
    video: Annotated[str | None, typer.Option(metavar="DIR", help="Film an episode into this folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    verbose: Verbose = 0,
) -> None:
    """Play whole episodes with a trained policy: their rewards.

    Greedily, with the same numbers every time.
    """
    from athlete.algorithm import Algorithm
    from athlete.log import show_log
    from athlete.record.results import to_json

    find_module_here(env)
    show_log(verbose)
    path = found_checkpoint(Path(checkpoint).expanduser())
    settings = {"evaluation_config": {"explore": True}} if explore else {}
    with Algorithm.from_checkpoint(path, env=env, **settings) as algorithm:
        measured = algorithm.evaluate(episodes=episodes, seed=seed)["evaluation"]
        films = algorithm.record_video(video, explore=explore, seed=seed) if video else []
    played = measured.pop("hist_stats")
    if as_json:
        each = {"episode_rewards": played["episode_reward"], "episode_lengths": played["episode_lengths"]}
        told = {"checkpoint": str(path), **measured, **each, "films": films}
        typer.echo(to_json(told, indent=2))
        return
    rows: list[tuple[str, Any]] = [(name, f"{measured[name]:.6g}") for name in _ROWS]
    rows += [("episodes", measured["episodes_this_iter"]), ("seed", measured["seed"])]
    rows += [("actions", "sampled" if explore else "greedy"), ("checkpoint", path)]
    typer.echo(aligned([*rows, *(("film", film) for film in films)]))


def found_checkpoint(path: Path) -> Path:
    """The checkpoint that is meant: `path` itself, or the best within an experiment, or the newest of a folder."""
    from athlete.record.checkpoint import is_checkpoint

    if (path / "experiment_state.json").is_file():
        from athlete.cli.experiments import best_checkpoint, best_trial
        from athlete.tune import ExperimentAnalysis

        analysis = ExperimentAnalysis(path)
        if any(trial.checkpoints for trial in analysis.trials):
            return Path(str(best_checkpoint(analysis, best_trial(analysis))))
    inside = [] if is_checkpoint(path) else sorted(path.glob("checkpoint_*"))
    return inside[-1] if inside else path
