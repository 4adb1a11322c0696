"""What an algorithm learns: a tuned example, or an algorithm with its defaults, over seeds, into a manifest.

    python benchmarks/learning.py cartpole-ppo --seeds 10
    python benchmarks/learning.py PPO Acrobot-v1 --timesteps 300000 --seeds 10
    python benchmarks/learning.py deep-sea-dqn-rnd --without exploration_config

Each seed trains to the timesteps of the example's `stop`, however good it is before. It is then evaluated greedily
over 20 episodes, or as many as its `evaluation_duration` says. Seeds that the manifest already has are not run again,
and one that was stopped goes on from its last checkpoint (`benchmarks/.runs`, one every few minutes): on compiled
environments to the same end, on Gymnasium with a new episode.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from manifest import write_manifest

from athlete.algorithm import Algorithm
from athlete.algorithms import get_config_class
from athlete.ops.statistics import interquartile_mean

EPISODES = 20
SECONDS_BETWEEN_CHECKPOINTS = 300


def settings(arguments: argparse.Namespace) -> tuple[str, str, dict, int]:
    """Algorithm, environment, configuration and timesteps."""
    if arguments.environment is not None:
        return arguments.name, arguments.environment, {}, arguments.timesteps
    from athlete import tuned_examples

    example = tuned_examples.load(arguments.name)
    timesteps = arguments.timesteps or int(example.stop["timesteps_total"])
    config = {name: value for name, value in example.config.items() if name != arguments.without}
    return example.run, config.pop("env"), config, timesteps


def episodes_of(config: dict) -> int:
    """Episodes of the final evaluation."""
    return config.get("evaluation_duration", EPISODES)


def train(
    algorithm: str, environment: str, config: dict, timesteps: int, seed: int, folder: Path
) -> tuple[dict, float]:
    """One seed: its curve and the mean of its greedy evaluation. `folder` keeps what a stopped run goes on from."""
    build = get_config_class(algorithm).from_dict({**config, "env": environment, "seed": seed}).build
    with build() as learner:
        curve: dict = {"seed": seed, "timesteps": [], "episode_reward_mean": [], "seconds": 0.0}
        if (folder / "checkpoint").exists():
            learner.restore(folder / "checkpoint")
            curve = json.loads((folder / f"curve-{learner.iteration}.json").read_text())
        result = {"timesteps_total": curve["timesteps"][-1] if curve["timesteps"] else 0}
        last = time.time()
        while result["timesteps_total"] < timesteps:
            start = time.time()
            result = learner.train()
            curve["timesteps"].append(result["timesteps_total"])
            curve["episode_reward_mean"].append(round(result["episode_reward_mean"], 3))
            curve["seconds"] = round(curve["seconds"] + time.time() - start, 2)
            if time.time() - last > SECONDS_BETWEEN_CHECKPOINTS:
                keep(learner, curve, folder)
                last = time.time()
        measured = learner.evaluate(episodes=episodes_of(config))["evaluation"]["episode_reward_mean"]
    shutil.rmtree(folder, ignore_errors=True)
    return curve, measured


def keep(learner: Algorithm, curve: dict, folder: Path) -> None:
    """A checkpoint and the curve up to it. The curve first: a checkpoint without one could not be used."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"curve-{learner.iteration}.json").write_text(json.dumps(curve))
    learner.save(folder / "checkpoint")
    for old in folder.glob("curve-*.json"):
        if old.name != f"curve-{learner.iteration}.json":
            old.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a tuned example, or an algorithm where an environment follows")
    parser.add_argument("environment", nargs="?")
    parser.add_argument("--timesteps", type=int, default=None)
    parser.add_argument("--without", default=None, help="a setting of the example to leave at its default: a control")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    algorithm, environment, config, timesteps = settings(arguments)
    label = arguments.name if arguments.environment is None else f"{algorithm}-{environment}-defaults".lower()
    if arguments.without is not None:
        label += f"-without-{arguments.without.replace('_', '-')}"
    path = arguments.output or Path(__file__).parent / "results" / f"learning-{label}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    done: dict = {"curves": [], "evaluation": []}
    if path.exists():
        done = {name: json.loads(path.read_text())[name] for name in done}
    known = {curve["seed"] for curve in done["curves"]}
    for seed in range(arguments.seeds):
        if seed in known:
            continue
        folder = Path(__file__).parent / ".runs" / f"{path.stem}-{seed}"
        curve, measured = train(algorithm, environment, config, timesteps, seed, folder)
        done["curves"].append(curve)
        done["evaluation"].append(measured)
        print(f"{label} seed {seed}: greedy {measured:.2f}, {curve['seconds']} s", flush=True)
        figures = {"iqm": round(interquartile_mean(done["evaluation"]), 3), "worst": round(min(done["evaluation"]), 3)}
        write_manifest(
            path,
            figures,
            {"athlete": sys.executable},
            seeds=[curve["seed"] for curve in done["curves"]],
            algorithm=algorithm,
            environment=environment,
            config=config,
            timesteps=timesteps,
            evaluation_episodes=episodes_of(config),
            **figures,
            **done,
        )
    final = json.loads(path.read_text())
    print(f"{label}: {len(final['seeds'])} seeds, IQM {final['iqm']}, worst {final['worst']} -> {path}")


if __name__ == "__main__":
    main()
