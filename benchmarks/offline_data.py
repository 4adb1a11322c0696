"""Makes D4RL's kinds of data (Fu et al. 2020, arXiv:2004.07219) with our own policies: one command, seeds fixed.

    python benchmarks/offline_data.py pendulum --seed 0        # into offline-data/pendulum-0/
    python benchmarks/offline_data.py cartpole half-cheetah hopper

    random          uniformly random actions
    medium          the first policy a third of the way from random to expert, measured at every so many steps
    medium-replay   all that the training collected until then
    medium-expert   medium and expert, one behind the other
    expert          the best policy of these measurements
    replay          all that the whole training collected
    mixed           the first half of that

`scores.json` beside them has the returns of random and expert policies: D4RL's normalised score of a return is
100 (return - random) / (expert - random).
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from learning_all import lock_of_one

from athlete import tuned_examples
from athlete.algorithm import Algorithm
from athlete.algorithms import get_config_class
from athlete.algorithms.fixed import RandomPolicy
from athlete.offline.dataset import DataSet, joined
from athlete.offline.files import read_data, write_data
from athlete.policy import Policy

FOLDER = Path("offline-data")


class Recipe(NamedTuple):
    """How the data of an environment are made."""

    algorithm: str
    config: dict[str, Any]
    timesteps: int
    every: int  # timesteps between two measurements
    measured: int  # episodes of each measurement
    episodes: int  # of random, medium and expert


SOFT = {"fcnet_hiddens": [64, 64], "fcnet_activation": "relu"}
PENDULUM = {
    "env": "Pendulum-v1",
    "train_batch_size": 128,
    "model": SOFT,
    "actor_lr": 1e-3,
    "critic_lr": 1e-3,
    "alpha_lr": 1e-3,
    "num_steps_sampled_before_learning_starts": 1000,
}
RUNNING = {
    name: value
    for name, value in tuned_examples.load("mujoco-ppo").config.items()
    if name not in ("evaluation_duration", "min_sample_timesteps_per_iteration")
}
RECIPES = {
    "pendulum": Recipe("SAC", PENDULUM, 12_000, 500, 20, 100),
    "pendulum-long": Recipe("SAC", PENDULUM, 30_000, 1_000, 20, 100),
    "cartpole": Recipe("PPO", {"env": "CartPole-v1", "train_batch_size": 1024}, 60_000, 2048, 20, 100),
    "half-cheetah": Recipe("PPO", {**RUNNING, "env": "HalfCheetah-v5"}, 1_000_000, 51_200, 8, 100),
    "hopper": Recipe("PPO", {**RUNNING, "env": "Hopper-v5"}, 1_000_000, 51_200, 16, 200),
}


def made(name: str, seed: int, out: Path = FOLDER) -> tuple[Path, dict[str, Any]]:
    """The folder of all kinds of data of one environment, and its scores: made where today's recipe did not make it."""
    folder, recipe = out / f"{name}-{seed}", json.loads(json.dumps(RECIPES[name]._asdict()))
    with lock_of_one(folder.name):
        written = folder / "scores.json"
        scores = json.loads(written.read_text(encoding="utf-8")) if written.exists() else {}
        if scores.get("recipe") != recipe:
            shutil.rmtree(folder, ignore_errors=True)  # what a process left that was stopped, or another recipe made
            scores = make(name, seed, folder)
    return folder, scores


def make(name: str, seed: int, folder: Path) -> dict[str, Any]:
    """Write all kinds of data of one environment into `folder`; what `scores.json` holds."""
    recipe, replay = RECIPES[name], folder / "replay"
    measured: list[tuple[int, float]] = []
    settings = {
        **recipe.config,
        "seed": seed,
        "logdir": False,
        "output": str(replay),
        "min_sample_timesteps_per_iteration": recipe.every,
    }
    with get_config_class(recipe.algorithm).from_dict(settings).build() as algo:
        random = played(algo, Policy(RandomPolicy().bind(algo.agent.spec), (), seed), recipe.episodes)
        paths = []
        while not measured or measured[-1][0] < recipe.timesteps:
            timesteps = algo.train()["timesteps_total"]
            value = algo.evaluate(recipe.measured)["evaluation"]["episode_reward_mean"]
            measured.append((timesteps, value))
            print(f"{name}: {timesteps:,} steps, {value:.1f}", flush=True)
            paths.append(algo.save(folder / "checkpoints" / f"checkpoint_{timesteps:09d}"))
        values = [value for _, value in measured]
        algo.restore(paths[max(range(len(values)), key=lambda i: (values[i], i))])  # the last of equals
        expert = played(algo, algo.get_policy(), recipe.episodes)
        best, floor = expert.returns.mean(), random.returns.mean()
        middle = [value >= floor + (best - floor) / 3 for value in values].index(True)
        algo.restore(paths[middle])
        medium = played(algo, algo.get_policy(), recipe.episodes)
    collected = read_data(replay)
    shutil.rmtree(replay)  # the same goes into a file
    upto = measured[middle][0]
    sets = {
        "random": random,
        "medium": medium,
        "expert": expert,
        "medium-expert": joined([medium, expert]),
        "medium-replay": first_steps(collected, upto),
        "replay": collected,
        "mixed": first_steps(collected, len(collected) // 2),
    }
    for kind, data in sets.items():
        write_data(data, folder / f"{kind}.safetensors")
    scores = {
        "environment": recipe.config["env"],
        "recipe": recipe._asdict(),
        "seed": seed,
        "random": float(floor),
        "expert": float(best),
        "medium_at": upto,
        "behaviour": {kind: float(data.returns.mean()) for kind, data in sets.items()},
        "steps": {kind: len(data) for kind, data in sets.items()},
    }
    (folder / "scores.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    return scores


def played(algo: Algorithm, policy: Policy, episodes: int) -> DataSet:
    """Episodes of a policy as it explores, in the environment of `algo`."""
    return algo._evaluator.record(policy, algo.seed, algo.iteration, episodes, explore=True)


def first_steps(data: DataSet, steps: int) -> DataSet:
    """The episodes that ended within the first `steps`."""
    return data.episodes(np.flatnonzero(data.ends < steps))


def normalized(return_: float, scores: dict[str, Any]) -> float:
    """D4RL's score: 0 is random, 100 is the expert."""
    return 100.0 * (return_ - scores["random"]) / (scores["expert"] - scores["random"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=RECIPES)
    parser.add_argument("--seed", type=int, default=0, help="of the training that makes them")
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    for name in arguments.names:
        print(json.dumps(made(name, arguments.seed, arguments.out)[1], indent=1))


if __name__ == "__main__":
    main()
