"""Makes D4RL's kinds of data (Fu et al. 2020, arXiv:2004.07219) with our own policies: one command, seeds fixed.

    python benchmarks/offline_data.py pendulum --seed 0        # into offline-data/pendulum-0/
    python benchmarks/offline_data.py cartpole halfcheetah hopper

    random          uniformly random actions
    medium          the first policy a third of the way from random to expert, measured at every so many steps
    medium-replay   all that the training collected until then
    medium-expert   medium and expert, one behind the other
    expert          the policy at the end
    replay          all that the whole training collected
    mixed           the first half of that

`scores.json` beside them has the returns of random and expert policies: D4RL's normalised score of a return is
100 (return - random) / (expert - random).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from athlete.algorithm import Algorithm
from athlete.algorithms import get_config_class
from athlete.algorithms.fixed import RandomPolicy
from athlete.offline.dataset import DataSet, joined
from athlete.offline.files import read_data, write_data
from athlete.policy import Policy

FOLDER = Path("offline-data")
MEASURED = 20  # episodes of each measurement


class Recipe(NamedTuple):
    """How the data of an environment are made."""

    algorithm: str
    config: dict[str, Any]
    timesteps: int
    every: int  # timesteps between two measurements
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
RUNNING = {"num_steps_sampled_before_learning_starts": 10_000, "exploration_config": {"random_timesteps": 10_000}}
RECIPES = {
    "pendulum": Recipe("SAC", PENDULUM, 12_000, 500, 100),
    "cartpole": Recipe("PPO", {"env": "CartPole-v1", "train_batch_size": 1024}, 60_000, 2048, 100),
    "halfcheetah": Recipe("SAC", {"env": "HalfCheetah-v5", **RUNNING}, 300_000, 10_000, 100),
    "hopper": Recipe("SAC", {"env": "Hopper-v5", **RUNNING}, 300_000, 10_000, 200),
}


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
            value = algo.evaluate(MEASURED)["evaluation"]["episode_reward_mean"]
            measured.append((timesteps, value))
            print(f"{name}: {timesteps:,} steps, {value:.1f}", flush=True)
            paths.append(algo.save(folder / "checkpoints" / f"checkpoint_{timesteps:09d}"))
        expert = played(algo, algo.get_policy(), recipe.episodes)
        best, floor = expert.returns.mean(), random.returns.mean()
        reached = [value >= floor + (best - floor) / 3 for _, value in measured]
        middle = reached.index(True)
        algo.restore(paths[middle])
        medium = played(algo, algo.get_policy(), recipe.episodes)
    collected = read_data(replay)
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
        print(json.dumps(make(name, arguments.seed, arguments.out / f"{name}-{arguments.seed}"), indent=1))


if __name__ == "__main__":
    main()
