"""How many timesteps a search takes until one of its trials solves Pendulum, from a wide range of settings.

    python benchmarks/search.py [--repetitions 5] [--kinds random asha hyperband pbt optuna]

PPO on Pendulum-v1; learning rate, discount and lambda are searched, most of whose values learn nothing. A search ends
when a trial's `episode_reward_mean` reaches -200, or all its trials have had their timesteps. What counts is the sum of
the timesteps of all trials. Writes `benchmarks/results/search.json`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from athlete import tune
from athlete.tune.schedulers import ASHAScheduler, HyperBandScheduler, PopulationBasedTraining
from athlete.tune.search import OptunaSearch

RESULT = Path(__file__).parent / "results" / "search.json"
REACH, TRIALS, ITERATIONS = -200.0, 16, 100  # of 2,048 timesteps each
SPACE = {
    "lr": tune.loguniform(1e-6, 1e-1),
    "gamma": tune.uniform(0.5, 0.999),
    "lambda": tune.uniform(0.5, 1.0),
}
CONFIG = {
    "env": "Pendulum-v1",
    "num_envs_per_worker": 16,
    "train_batch_size": 2048,
    "minibatch_size": 256,
    "num_epochs": 10,
    "entropy_coeff": 0.0,
    "model": {"fcnet_hiddens": [64, 64]},
}
METRIC = {"metric": "episode_reward_mean", "mode": "max"}


class Reached(tune.Stopper):
    """Ends the experiment where a trial reaches the threshold."""

    def __init__(self) -> None:
        self.timesteps: dict[str, int] = {}
        self.reached = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self.timesteps[trial_id] = result["timesteps_total"]
        self.reached = self.reached or result["episode_reward_mean"] >= REACH
        return self.reached or result["training_iteration"] >= ITERATIONS

    def stop_all(self) -> bool:
        return self.reached


def settings_of(kind: str) -> dict[str, Any]:
    """What distinguishes a search from random search."""
    if kind == "asha":
        return {"scheduler": ASHAScheduler(max_t=ITERATIONS, grace_period=6, reduction_factor=4)}
    if kind == "hyperband":
        return {"scheduler": HyperBandScheduler(max_t=ITERATIONS, reduction_factor=4)}
    if kind == "pbt":
        population = PopulationBasedTraining(
            "training_iteration", perturbation_interval=5, hyperparam_mutations=SPACE, quantile_fraction=0.4
        )
        return {"scheduler": population}
    return {"search_alg": OptunaSearch()} if kind == "optuna" else {}


def search(kind: str, seed: int) -> dict[str, Any]:
    """One search: the timesteps of all its trials, and whether one reached the threshold."""
    stopper = Reached()
    trials = 8 if kind == "pbt" else TRIALS
    with tempfile.TemporaryDirectory() as folder:
        arguments: dict[str, Any] = {"num_samples": trials, "seed": seed, "local_dir": folder, "verbose": 0, **METRIC}
        config = {**CONFIG, **SPACE, "seed": seed}
        tune.run("PPO", config=config, stop=stopper, **arguments, **settings_of(kind))
    return {"kind": kind, "seed": seed, "timesteps": sum(stopper.timesteps.values()), "reached": stopper.reached}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", default=["random", "asha", "hyperband", "pbt", "optuna"])
    given = parser.parse_args()
    found = []
    for seed in range(1000, 1000 + given.repetitions):
        for kind in given.kinds:
            found.append(search(kind, seed))
            print(found[-1], flush=True)
    for kind in given.kinds:
        timesteps = [each["timesteps"] for each in found if each["kind"] == kind]
        reached = sum(each["reached"] for each in found if each["kind"] == kind)
        middle = statistics.median(timesteps)
        print(f"{kind:10} median {middle:12,.0f} timesteps, {reached} of {given.repetitions} reached")
    RESULT.write_text(json.dumps({"reach": REACH, "iterations": ITERATIONS, "searches": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
