"""`athlete train`: its options, and how they become experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from athlete.cli.common import Verbose, find_module_here, without_options

_JAX = "networks run on JAX whatever the framework"
_LOCAL = "trials run in this process, or with --ray-address in a cluster that was started before"
# RLlib's options that mean nothing here: whether a value follows, and what is said.
_PASSED_OVER = {
    "--framework": (True, _JAX),
    "--torch": (False, _JAX),
    "--eager": (False, _JAX),
    "--trace": (False, _JAX),
    "--local-mode": (False, _LOCAL),
    "--ray-ui": (False, _LOCAL),
    "--no-ray-ui": (False, _LOCAL),
    "--ray-num-cpus": (True, _LOCAL),
    "--ray-num-gpus": (True, _LOCAL),
    "--ray-num-nodes": (True, _LOCAL),
    "--ray-object-store-memory": (True, _LOCAL),
    "--upload-dir": (True, "results stay on this machine"),
}


class TrainCommand(TyperCommand):
    """Keeps the words that were typed, for the line that resumes, and passes over RLlib's options without a meaning."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta["athlete.words"] = list(args)
        return super().parse_args(ctx, without_options(args, _PASSED_OVER))


_WORDS = typer.Argument(
    metavar="[ALGORITHM ENVIRONMENT | FILE]",
    help="PPO CartPole-v1; or a file with experiments, as RLlib's users have them (.yaml, .json, .py).",
    show_default=False,
)


def train(
    ctx: typer.Context,
    words: Annotated[list[str] | None, _WORDS] = None,
    run: Annotated[str | None, typer.Option("--run", "--algo", "-a", "-r", help="The algorithm, RLlib's way.")] = None,
    env: Annotated[str | None, typer.Option("--env", "-e", help="The environment, RLlib's way.")] = None,
    file: Annotated[str | None, typer.Option("--file", "-f", help="A file with experiments.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting: lr=1e-3, model.use_gru=true.")
    ] = None,
    config: Annotated[str | None, typer.Option("--config", "-c", help="Settings as JSON or YAML.")] = None,
    stop: Annotated[str | None, typer.Option("--stop", "-s", help="When to stop, as JSON: {result: number}.")] = None,
    stop_reward: Annotated[float | None, typer.Option(help="Stop at this mean episode reward.")] = None,
    stop_timesteps: Annotated[int | None, typer.Option(min=1, help="Stop at this many timesteps.")] = None,
    stop_iters: Annotated[int | None, typer.Option(min=1, help="Stop at this many iterations.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the training; of several samples, where their seeds come from.")
    ] = None,
    num_samples: Annotated[int | None, typer.Option(min=1, help="Trials of each configuration.")] = None,
    max_concurrent_trials: Annotated[int | None, typer.Option(min=1, help="Trials at once, in processes.")] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="Trials in the Ray cluster there, such as ray://host:10001; or 'auto'.")
    ] = None,
    resources_per_trial: Annotated[
        str | None, typer.Option(help='What a trial in Ray holds, as JSON: {"cpu": 2, "gpu": 0.5}.')
    ] = None,
    checkpoint_freq: Annotated[int | None, typer.Option(min=0, help="Iterations between checkpoints.")] = None,
    checkpoint_at_end: Annotated[bool, typer.Option(help="Save a checkpoint at the end of each trial.")] = True,
    keep_checkpoints_num: Annotated[int | None, typer.Option(min=1, help="Keep only this many, the best.")] = None,
    checkpoint_score_attr: Annotated[str | None, typer.Option(help="The result that makes a checkpoint best.")] = None,
    local_dir: Annotated[
        str | None, typer.Option(help="Folder of results; else $ATHLETE_RESULTS_DIR, else ~/athlete_results.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", "--experiment-name", "-n", help="The experiment's folder in it.")
    ] = None,
    restore: Annotated[str | None, typer.Option(help="A checkpoint to start from.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the experiment of that name.")] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Let FILE name environments by module, and run that code.")
    ] = False,
    video: Annotated[bool, typer.Option("--video", help="Film an episode of the best checkpoint.")] = False,
    final_evaluation: Annotated[
        int,
        typer.Option(min=0, help="Greedy episodes at the end, of the best checkpoint; 0: none."),
    ] = 10,
    verbose: Verbose = 0,
) -> None:
    """Train an algorithm in an environment, or a file of experiments.

    athlete train PPO CartPole-v1 --stop-reward 475
    """
    from athlete.cli import experiments
    from athlete.log import show_log

    show_log(verbose)
    chosen, is_file = experiments.chosen(words or [], run, env, file, trust)
    given = {"episode_reward_mean": stop_reward, "timesteps_total": stop_timesteps, "training_iteration": stop_iters}
    settings = {
        "num_samples": num_samples,
        "seed": seed,
        "max_concurrent_trials": max_concurrent_trials,
        "ray": ray_address,
        "resources_per_trial": experiments.dictionary(resources_per_trial, "--resources-per-trial") or None,
        "checkpoint_freq": checkpoint_freq,
        "keep_checkpoints_num": keep_checkpoints_num,
        "checkpoint_score_attr": checkpoint_score_attr,
        "local_dir": None if local_dir is None else str(Path(local_dir).expanduser()),
        "restore": restore,
    }
    config_changes = experiments.merged(experiments.dictionary(config, "--config"), experiments.nested(changes or []))
    stops = experiments.dictionary(stop, "--stop") | {key: at for key, at in given.items() if at is not None}
    final = [experiments.changed(one, config_changes, stops, settings) for one in chosen]
    if not is_file:
        find_module_here(str(final[0].config["env"]))
    if name is not None:
        final = experiments.renamed(final, name)
    how: dict[str, Any] = {"verbose": 1 + verbose, "checkpoint_at_end": checkpoint_at_end}
    if resume:
        how["resume"] = "AUTO" if is_file else True  # of a file's experiments, the later ones may not have begun
    experiments.run_all(final, how, video=video, words=ctx.meta["athlete.words"], episodes=final_evaluation)
