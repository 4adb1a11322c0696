"""What an algorithm learns: a tuned example, or an algorithm with its defaults, over seeds, into a manifest.

    python benchmarks/learning.py cartpole-ppo --seeds 5
    python benchmarks/learning.py mujoco-ppo Hopper-v5               # the example's settings, another environment
    python benchmarks/learning.py PPO Acrobot-v1 --timesteps 300000  # the algorithm's defaults
    python benchmarks/learning.py deep-sea-dqn-rnd --without exploration_config
    python benchmarks/learning.py cartpole-ppo --first-seed 0        # a look while tuning

What is published comes from seeds from 1000 on. Seeds below are for tuning: theirs go to `benchmarks/.tuning`.

Each seed trains to the timesteps of the example's `stop`, however good it is before. It is then evaluated greedily
over 20 episodes, or as many as its `evaluation_duration` says. Seeds that the manifest already has are not run again,
and one that was stopped goes on from its last checkpoint (`benchmarks/.runs`, one every few minutes): on compiled
environments to the same end, on Gymnasium with a new episode. `benchmarks/learning_all.py` runs many of these.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from manifest import commit, is_dirty, machine, versions, write_json

from athlete import tuned_examples
from athlete.algorithm import Algorithm
from athlete.algorithms import ALGORITHMS, get_config_class
from athlete.ops.statistics import summarize

HERE = Path(__file__).parent
FIRST_PUBLISHED_SEED = 1000
EPISODES = 20
SECONDS_BETWEEN_CHECKPOINTS = 300


class Training(NamedTuple):
    """What every seed of a manifest has in common."""

    label: str
    command: str  # the words that ask for it
    algorithm: str
    environment: str
    config: dict[str, Any]
    timesteps: int

    @property
    def episodes(self) -> int:
        """Episodes of the final evaluation."""
        duration = self.config.get("evaluation_duration", EPISODES)
        return EPISODES if duration == "auto" else duration  # as long as training lasts, which here has ended


def training_of(arguments: argparse.Namespace) -> Training:
    """The tuned example or the algorithm that was asked for. Its label says what differs from the example."""
    words, label = [arguments.name], arguments.name
    if arguments.environment:
        words.append(arguments.environment)
        label += f"-{arguments.environment}".replace("/", "-")
    if arguments.timesteps:
        words += ["--timesteps", str(arguments.timesteps)]
    if arguments.without:
        words += ["--without", arguments.without]
        label += f"-without-{arguments.without.replace('_', '-')}"
    if arguments.name in ALGORITHMS:
        if not (arguments.environment and arguments.timesteps):
            sys.exit(f"{arguments.name} with its defaults needs an environment and --timesteps")
        label = f"{label}-defaults".lower()
        return Training(label, " ".join(words), arguments.name, arguments.environment, {}, arguments.timesteps)
    example = tuned_examples.load(arguments.name)
    if arguments.timesteps:
        label += f"-{arguments.timesteps // 1000}k"
    config = {name: value for name, value in example.config.items() if name not in ("env", arguments.without)}
    environment = arguments.environment or example.config["env"]
    timesteps = arguments.timesteps or int(example.stop["timesteps_total"])
    return Training(label.lower(), " ".join(words), example.run, environment, config, timesteps)


def train(training: Training, seed: int, folder: Path) -> dict[str, Any]:
    """One seed: its curve and the mean of its greedy evaluation. `folder` keeps what a stopped run goes on from."""
    settings = {**training.config, "env": training.environment, "seed": seed, "logdir": False}
    with get_config_class(training.algorithm).from_dict(settings).build() as learner:
        curve = resume(learner, folder) or begin(seed)
        timesteps, last = (curve["timesteps"] or [0])[-1], time.time()
        while timesteps < training.timesteps:
            start = time.time()
            result = learner.train()
            timesteps, reward = result["timesteps_total"], result["episode_reward_mean"]
            curve["timesteps"].append(timesteps)
            curve["episode_reward_mean"].append(round(reward, 3) if reward == reward else None)  # NaN: no episode yet
            curve["seconds"] = round(curve["seconds"] + time.time() - start, 2)
            if time.time() - last > SECONDS_BETWEEN_CHECKPOINTS:
                keep(learner, curve, folder)
                last = time.time()
        evaluation = learner.evaluate(episodes=training.episodes)["evaluation"]
    curve["evaluation"] = round(evaluation["episode_reward_mean"], 3)
    if evaluation["custom_metrics"]:
        curve["custom_metrics"] = rounded(evaluation["custom_metrics"])
        curve["custom_metrics_of_training"] = rounded(result["custom_metrics"])
    shutil.rmtree(folder, ignore_errors=True)
    return curve


def rounded(metrics: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 5) for name, value in metrics.items()}


def begin(seed: int) -> dict[str, Any]:
    """A curve of no steps, with what it is made by."""
    made_by = {"commit": commit(), "dirty": is_dirty(), "versions": versions(sys.executable), "machine": machine()}
    return {"seed": seed, **made_by, "seconds": 0.0, "evaluation": None, "timesteps": [], "episode_reward_mean": []}


def resume(learner: Algorithm, folder: Path) -> dict[str, Any] | None:
    """Restore what a stopped run left, and its curve; None where there is nothing, or another commit made it."""
    if not (folder / "checkpoint").exists():
        return None
    curves = {path.stem: json.loads(path.read_text()) for path in folder.glob("curve-*.json")}
    if any(curve["commit"] != commit() for curve in curves.values()):
        return None
    learner.restore(folder / "checkpoint")
    curve = curves[f"curve-{learner.iteration}"]
    return {**curve, "resumed_at": [*curve.get("resumed_at", []), *curve["timesteps"][-1:]]}


def keep(learner: Algorithm, curve: dict, folder: Path) -> None:
    """A checkpoint and the curve up to it. The curve first: a checkpoint without one could not be used."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"curve-{learner.iteration}.json").write_text(json.dumps(curve))
    learner.save(folder / "checkpoint")
    for old in folder.glob("curve-*.json"):
        if old.name != f"curve-{learner.iteration}.json":
            old.unlink()


def manifest_of(training: Training, curves: list[dict[str, Any]]) -> dict[str, Any]:
    """What the manifest holds. Commit, versions and machine stand in each curve: seeds may come from different ones."""
    reached = summarize([curve["evaluation"] for curve in curves])
    figures = {
        reached.statistic.replace(" ", "_"): round(reached.value, 3),
        "interval_95": reached.interval and [round(end, 3) for end in reached.interval],
        "worst": round(reached.worst, 3),
    }
    return {
        "command": f"python benchmarks/learning.py {training.command} --seeds {len(curves)}",
        "seeds": [curve["seed"] for curve in curves],
        "algorithm": training.algorithm,
        "environment": training.environment,
        "config": training.config,
        "timesteps": training.timesteps,
        "evaluation_episodes": training.episodes,
        "figures": figures,
        "curves": curves,
    }


def known_curves(path: Path, training: Training) -> list[dict[str, Any]]:
    """The curves of a manifest. Exits where they were trained otherwise than is asked for now."""
    if not path.exists():
        return []
    manifest = json.loads(path.read_text())
    asked = manifest_of(training, manifest["curves"])
    for name in ("algorithm", "environment", "config", "timesteps", "evaluation_episodes"):
        if manifest[name] != json.loads(json.dumps(asked[name])):
            sys.exit(
                f"{path}: its {name} is {manifest[name]}, asked for is {asked[name]}; remove the file to begin anew"
            )
    return manifest["curves"]


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a tuned example, or an algorithm where an environment follows")
    parser.add_argument("environment", nargs="?", help="of the algorithm, or in place of the example's")
    parser.add_argument("--timesteps", type=int, default=None)
    parser.add_argument("--without", default=None, help="a setting of the example to leave at its default: a control")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first-seed", type=int, default=FIRST_PUBLISHED_SEED, help="below 1000: for tuning")
    parser.add_argument("--output", type=Path, default=None)
    return parser


def path_of(arguments: argparse.Namespace, label: str) -> Path:
    """Where the manifest is. Seeds for tuning are kept apart from what is published."""
    folder = HERE / ("results" if arguments.first_seed >= FIRST_PUBLISHED_SEED else ".tuning")
    return arguments.output or folder / f"learning-{label}.json"


def main() -> None:
    arguments = parser().parse_args()
    training = training_of(arguments)
    path = path_of(arguments, training.label)
    path.parent.mkdir(parents=True, exist_ok=True)
    curves = known_curves(path, training)
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        if seed in {curve["seed"] for curve in curves}:
            continue
        curve = train(training, seed, HERE / ".runs" / f"{path.stem}-{seed}")
        curves = sorted([*curves, curve], key=lambda each: each["seed"])
        write_json(path, manifest_of(training, curves))
        told = "".join(f", {name} {value}" for name, value in curve.get("custom_metrics", {}).items())
        print(f"{training.label} seed {seed}: greedy {curve['evaluation']}{told}, {curve['seconds']} s", flush=True)
    print(f"{training.label}: {len(curves)} seeds, {json.loads(path.read_text())['figures']} -> {path}")


if __name__ == "__main__":
    main()
