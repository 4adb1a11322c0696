"""What a policy from records is worth as a beginning: IQL goes on in HalfCheetah, beside SAC that begins from nothing.

    python benchmarks/offline_online.py                                # what is published: seeds from 1000 on
    python benchmarks/offline_online.py --first-seed 0 --seeds 1       # a look; writes to benchmarks/.tuning

IQL learns from the medium recording of seed mod 3 as `half-cheetah-iql` has it, and is restored into a training that
steps the environment, half of every batch recorded and half new (RLPD's shares). SAC has the settings of its tuned
example, but begins after 1,000 random steps instead of 10,000, which would be half of what is compared. Both are
evaluated greedily at equal online steps.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from learning import FIRST_PUBLISHED_SEED
from manifest import commit, is_dirty, machine, versions, write_json
from offline import RECORDINGS, ROWS
from offline_data import made

from athlete import tuned_examples
from athlete.algorithm import Algorithm
from athlete.algorithms import get_config_class
from athlete.ops.statistics import summarize

HERE = Path(__file__).parent
STEPS, EVERY, EPISODES = 20_000, 5_000, 10  # online, and of each evaluation
ROW = next(row for row in ROWS if row.label == "half-cheetah-medium-iql")
QUIET = {"logdir": False, "log_level": "ERROR", "min_sample_timesteps_per_iteration": EVERY}
SAC = {
    **tuned_examples.load("half-cheetah-sac").config,
    "num_steps_sampled_before_learning_starts": 1_000,
    "exploration_config": {"random_timesteps": 1_000},
    **QUIET,
}


def curve(algo: Algorithm) -> list[list[float]]:
    """Online steps so far and the mean return of greedy episodes then, about every `EVERY` steps."""
    steps, found = 0, []
    while steps < STEPS:
        steps += algo.train()["num_env_steps_sampled_this_iter"]
        found.append([steps, round(algo.evaluate(EPISODES)["evaluation"]["episode_reward_mean"], 1)])
    return found


def iql(seed: int) -> dict[str, Any]:
    """From records, then on: what it was worth before its first step, and its curve."""
    folder, scores = made(ROW.data, seed % RECORDINGS)
    data = str(folder / f"{ROW.kind}.safetensors")
    config = {**ROW.config, "env": ROW.environment, "seed": seed, "logdir": False, "log_level": "ERROR"}
    config_class = get_config_class("IQL")
    with tempfile.TemporaryDirectory() as place, config_class.from_dict({**config, "input_": data}).build() as algo:
        while algo.train()["timesteps_total"] < ROW.timesteps:
            pass
        before = algo.evaluate(EPISODES)["evaluation"]["episode_reward_mean"]
        shares = {"sampler": 0.5, data: 0.5}
        with config_class.from_dict({**config, **QUIET, "input_": shares}).build() as online:
            online.restore(algo.save(place))
            return {"behaviour": scores["behaviour"][ROW.kind], "before": round(before, 1), "iql": curve(online)}


def measure(seed: int) -> dict[str, Any]:
    made_by = {"commit": commit(), "dirty": is_dirty(), "versions": versions(sys.executable), "machine": machine()}
    found = iql(seed)
    with get_config_class("SAC").from_dict({**SAC, "env": ROW.environment, "seed": seed}).build() as algo:
        return {"seed": seed, **made_by, **found, "sac": curve(algo)}


def manifest_of(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What the manifest holds."""
    at_end = {name: summarize([run[name][-1][1] for run in runs]) for name in ("iql", "sac")}
    return {
        "command": f"python benchmarks/offline_online.py --seeds {len(runs)}",
        "seeds": [run["seed"] for run in runs],
        "steps": STEPS,
        "every": EVERY,
        "configs": {"iql": ROW.config, "sac": SAC},
        "figures": {
            name: {found.statistic.replace(" ", "_"): round(found.value, 1), "worst": round(found.worst, 1)}
            for name, found in at_end.items()
        },
        "runs": runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=FIRST_PUBLISHED_SEED, help="below 1000: for a look")
    parser.add_argument("--nice", type=int, default=10)
    arguments = parser.parse_args()
    os.nice(arguments.nice)
    folder = HERE / ("results" if arguments.first_seed >= FIRST_PUBLISHED_SEED else ".tuning")
    folder.mkdir(exist_ok=True)
    runs: list[dict[str, Any]] = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        runs.append(measure(seed))
        write_json(folder / "offline-online.json", manifest_of(runs))
        run = runs[-1]
        print(f"seed {seed}: IQL {run['before']} -> {run['iql']}, SAC {run['sac']}", flush=True)
    print(manifest_of(runs)["figures"], flush=True)


if __name__ == "__main__":
    main()
