"""How many timesteps a search takes until one of its trials solves Pendulum, from a wide range of settings.

    python benchmarks/search.py [--repetitions 5] [--kinds random asha hyperband pbt optuna]

PPO on Pendulum-v1; learning rate, discount and lambda are searched, from ranges most of which learn nothing. A trial
has 400,000 timesteps, a population as many as it takes. Experiments of 32 trials follow each other until a trial's
`episode_reward_mean` reaches -200: what counts is the sum of the timesteps of all. Random search trains its trials to
their end, one after another, as Optuna does alone; "optuna-asha" lets ASHA stop Optuna's trials early. Writes
`benchmarks/results/search.json`, where the seeds are fresh ones.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from learning import FIRST_PUBLISHED_SEED
from manifest import write_manifest

from athlete import tune
from athlete.tune.schedulers import ASHAScheduler, HyperBandScheduler, PopulationBasedTraining
from athlete.tune.search import BasicVariantGenerator, ConcurrencyLimiter, OptunaSearch

RESULT = Path(__file__).parent / "results" / "search.json"
REACH, TRIALS, ITERATIONS = -200.0, 32, 196  # of 2,048 timesteps each
POPULATION, GENERATIONS = 32, 120
LONGEST = 10  # experiments, without success
SPACE = {
    "lr": tune.loguniform(1e-7, 1.0),
    "gamma": tune.uniform(0.0, 0.999),
    "lambda": tune.uniform(0.0, 1.0),
}
CONFIG = {
    "env": "Pendulum-v1",
    "num_envs_per_worker": 16,
    "train_batch_size": 2048,
    "minibatch_size": 256,
    "num_epochs": 10,
    "entropy_coeff": 0.0,
    "metrics_num_episodes_for_smoothing": 20,
    "model": {"fcnet_hiddens": [64, 64]},
}
METRIC = {"metric": "episode_reward_mean", "mode": "max"}


class Reached(tune.Stopper):
    """Ends the experiment where a trial reaches the threshold."""

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations
        self.timesteps: dict[str, int] = {}
        self.reached = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self.timesteps[trial_id] = result["timesteps_total"]
        self.reached = self.reached or result["episode_reward_mean"] >= REACH
        return self.reached or result["training_iteration"] >= self.iterations

    def stop_all(self) -> bool:
        return self.reached


def settings_of(kind: str) -> dict[str, Any]:
    """What distinguishes a search from random search."""
    asha = ASHAScheduler(max_t=ITERATIONS, grace_period=20, reduction_factor=4)
    if kind == "asha":
        return {"scheduler": asha, "search_alg": BasicVariantGenerator(max_concurrent=4)}
    if kind == "hyperband":
        return {"scheduler": HyperBandScheduler(max_t=ITERATIONS, reduction_factor=3)}
    if kind == "pbt":
        population = PopulationBasedTraining(
            "training_iteration",
            perturbation_interval=5,
            hyperparam_mutations=SPACE,
            quantile_fraction=0.4,
            perturbation_factors=(0.5, 2.0),
        )
        return {"scheduler": population, "num_samples": POPULATION}
    if kind == "optuna-asha":
        return {"scheduler": asha, "search_alg": ConcurrencyLimiter(OptunaSearch(), 4)}
    return {"search_alg": OptunaSearch()} if kind == "optuna" else {}


def search(kind: str, seed: int) -> dict[str, Any]:
    """One search: the timesteps of all its trials, and whether one reached the threshold."""
    timesteps, reached, experiments = 0, False, 0
    while not reached and experiments < LONGEST:
        stopper = Reached(GENERATIONS if kind == "pbt" else ITERATIONS)
        own = seed + 10_000 * experiments
        with tempfile.TemporaryDirectory() as folder:
            arguments: dict[str, Any] = {
                "num_samples": TRIALS,
                "seed": own,
                "local_dir": folder,
                "verbose": 0,
                **METRIC,
            }
            config = {**CONFIG, **SPACE, "seed": own}
            tune.run("PPO", config=config, stop=stopper, **{**arguments, **settings_of(kind)})
        timesteps, reached, experiments = timesteps + sum(stopper.timesteps.values()), stopper.reached, experiments + 1
    return {"kind": kind, "seed": seed, "timesteps": timesteps, "experiments": experiments, "reached": reached}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", default=["random", "asha", "hyperband", "pbt", "optuna", "optuna-asha"])
    parser.add_argument("--first-seed", type=int, default=FIRST_PUBLISHED_SEED)
    given = parser.parse_args()
    found = []
    for seed in range(given.first_seed, given.first_seed + given.repetitions):
        for kind in given.kinds:
            found.append(search(kind, seed))
            print(found[-1], flush=True)
    for kind in given.kinds:
        timesteps = [each["timesteps"] for each in found if each["kind"] == kind]
        reached = sum(each["reached"] for each in found if each["kind"] == kind)
        middle = statistics.median(timesteps)
        print(f"{kind:10} median {middle:12,.0f} timesteps, {reached} of {given.repetitions} reached")
    if given.first_seed >= FIRST_PUBLISHED_SEED:
        write_manifest(RESULT, found, {"athlete": sys.executable}, {each["seed"] for each in found}, reach=REACH)


if __name__ == "__main__":
    main()
