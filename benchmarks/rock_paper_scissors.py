"""What `examples/rock_paper_scissors.py` reaches over seeds, with a memory and without.

    python benchmarks/rock_paper_scissors.py --seeds 5

Each training takes 200,000 steps, and is then evaluated greedily over 1000 episodes of ten rounds. Seeds that the
manifest already has are not run again; those below 1000 are for tuning and go to `benchmarks/.tuning`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any

from manifest import ROOT, commit, is_dirty, machine, versions, write_json

HERE = Path(__file__).parent
FIRST_PUBLISHED_SEED = 1000
TIMESTEPS = 200_000


def example() -> Any:
    """The example, as a module."""
    spec = importlib.util.spec_from_file_location("rps_example", ROOT / "examples" / "rock_paper_scissors.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rps_example"] = module
    spec.loader.exec_module(module)
    return module


def train(module: Any, memory: bool, seed: int) -> float:
    """The greedy policy's mean reward in an episode, of at most 10."""
    with module.config_of(TIMESTEPS, memory, seed).build() as algo:
        while algo.train()["timesteps_total"] < TIMESTEPS:
            pass
        return algo.evaluate()["evaluation"]["policy_reward_mean"]["learned"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first-seed", type=int, default=FIRST_PUBLISHED_SEED, help="below 1000: for tuning")
    arguments = parser.parse_args()
    folder = HERE / ("results" if arguments.first_seed >= FIRST_PUBLISHED_SEED else ".tuning")
    folder.mkdir(exist_ok=True)
    path, module = folder / "self-play-rock-paper-scissors.json", example()
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        if seed in {run["seed"] for run in runs}:
            continue
        start = time.perf_counter()
        reached = {name: train(module, memory, seed) for name, memory in (("memory", True), ("without", False))}
        run = {"seed": seed, **reached, "seconds": round(time.perf_counter() - start, 1)}
        run |= {"commit": commit(), "dirty": is_dirty(), "machine": machine(), "versions": versions(sys.executable)}
        runs = [*runs, run]
        manifest = {
            "command": f"python benchmarks/rock_paper_scissors.py --seeds {len(runs)}",
            "seeds": [run["seed"] for run in runs],
            "timesteps": TIMESTEPS,
            "worst": {name: min(run[name] for run in runs) for name in reached},
            "runs": runs,
        }
        write_json(path, manifest)
        print(f"seed {seed}: {reached}", flush=True)
    print(f"{len(runs)} seeds -> {path}")


if __name__ == "__main__":
    main()
