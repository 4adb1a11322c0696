"""What algorithms learn from recorded data, beside those who made them: D4RL's table, on our own data.

    python benchmarks/offline.py pendulum medium-replay IQL TD3BC BC --updates 20000 --seeds 1
    python benchmarks/offline.py pendulum medium-replay SAC          # the negative control

The data are those of `benchmarks/offline_data.py`, made first where they are missing. Each seed is evaluated greedily
over 50 episodes at the end; results are printed as JSON lines, with D4RL's normalised score.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from offline_data import FOLDER, RECIPES, make, normalized

from athlete.algorithms import get_config_class

EPISODES = 50
SMALL = {"fcnet_hiddens": [64, 64], "fcnet_activation": "relu"}
# What differs from the defaults, by environment: networks that fit the task, and rates for them.
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "pendulum": {
        "IQL": {"actor_lr": 1e-3, "critic_lr": 1e-3, "value_lr": 1e-3, "reward_scale": 0.1, "model": SMALL},
        "TD3BC": {"actor_lr": 1e-3, "critic_lr": 1e-3, "reward_scale": 0.1, "model": SMALL},
        "ReBRAC": {"train_batch_size": 256, "actor_bc_coeff": 0.1, "reward_scale": 0.1, "model": SMALL},
        "CQL": {
            "bc_iters": 1000,
            "min_q_weight": 1.0,
            "num_actions": 4,
            "reward_scale": 0.1,
            "model": SMALL,
            "actor_lr": 3e-4,
            "critic_lr": 1e-3,
            "alpha_lr": 1e-3,
        },
        "CRR": {"train_batch_size": 256, "weight_type": "exp", "reward_scale": 0.1, "actor_lr": 1e-3, "model": SMALL},
        "BC": {"train_batch_size": 256, "lr": 1e-3},
        "MARWIL": {"train_batch_size": 256, "lr": 1e-3, "reward_scale": 0.1},
        "SAC": {"actor_lr": 1e-3, "critic_lr": 1e-3, "alpha_lr": 1e-3, "reward_scale": 0.1, "model": SMALL},
    },
    "cartpole": {
        "IQL": {"model": SMALL},
        "CQL": {"bc_iters": 1000, "min_q_weight": 1.0, "model": SMALL},
        "BC": {"train_batch_size": 256, "lr": 1e-3},
        "MARWIL": {"train_batch_size": 256, "lr": 1e-3},
    },
}


def measure(name: str, kind: str, algorithm: str, seed: int, data_seed: int, updates: int) -> dict[str, Any]:
    """One training on one data set: its greedy return, beside the behaviour's."""
    folder = FOLDER / f"{name}-{data_seed}"
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    config = get_config_class(algorithm).from_dict({**SETTINGS.get(name, {}).get(algorithm, {}), "seed": seed})
    config.environment(RECIPES[name].config["env"]).offline_data(input_=str(folder / f"{kind}.safetensors"))
    batch = config.train_batch_size
    config.reporting(min_sample_timesteps_per_iteration=batch * updates // 10, logdir=False)
    start = time.perf_counter()
    with config.build() as algo:
        while algo.train()["timesteps_total"] < batch * updates:
            pass
        seconds = time.perf_counter() - start
        found = algo.evaluate(EPISODES)["evaluation"]["episode_reward_mean"]
    return {
        "data": f"{name}-{kind}",
        "data_seed": data_seed,
        "algorithm": algorithm,
        "seed": seed,
        "updates": updates,
        "behaviour": round(scores["behaviour"][kind], 1),
        "evaluation": round(found, 1),
        "score": round(normalized(found, scores), 1),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("kind")
    parser.add_argument("algorithms", nargs="+")
    parser.add_argument("--updates", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--data-seed", type=int, default=0)
    arguments = parser.parse_args()
    if not (FOLDER / f"{arguments.name}-{arguments.data_seed}" / "scores.json").exists():
        make(arguments.name, arguments.data_seed, FOLDER / f"{arguments.name}-{arguments.data_seed}")
    for algorithm in arguments.algorithms:
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            found = measure(arguments.name, arguments.kind, algorithm, seed, arguments.data_seed, arguments.updates)
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
