"""What a step in a task is worth after MAML: returns before and after it, over seeds, into a manifest.

    python benchmarks/adapting.py navigation-maml --iterations 60
    python benchmarks/adapting.py navigation-maml --first-seed 0     # a look while tuning

`learning.py` evaluates a policy as it is, which says nothing of how it adapts. Here the means over the last ten
iterations count, in tasks that are drawn anew in each. `benchmarks/results/adapting-NAME.json` has them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from manifest import commit, is_dirty, machine, versions, write_json

from athlete import tuned_examples
from athlete.algorithms import get_config_class

HERE = Path(__file__).parent
LAST = 10  # iterations whose mean counts


def one_seed(name: str, seed: int, iterations: int) -> dict[str, Any]:
    """Train the tuned example `name`, and the means of its last iterations."""
    example = tuned_examples.load(name)
    config = get_config_class(example.run).from_dict({**example.config, "env": example.config["env"], "seed": seed})
    told = []
    with config.build() as algo:
        for _ in range(iterations):
            result = algo.train()
            told.append(result["info"]["learner"]["default_policy"]["learner_stats"])
    means = {key: float(np.mean([each[key] for each in told[-LAST:]])) for key in told[-1] if key.startswith("return_")}
    curves = {key: [round(float(each[key]), 3) for each in told] for key in means}
    return {"seed": seed, "commit": commit(), "dirty": is_dirty(), "timesteps": result["timesteps_total"], **means, **{
        f"curve_{key}": curve for key, curve in curves.items()
    }}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=1000)
    given = parser.parse_args()
    folder = HERE / ("results" if given.first_seed >= 1000 else ".tuning")
    runs = []
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        runs.append(one_seed(given.name, seed, given.iterations))
        print({key: value for key, value in runs[-1].items() if not key.startswith("curve_")}, flush=True)
        manifest = {
            "name": given.name,
            "iterations": given.iterations,
            "machine": machine(),
            "versions": versions(sys.executable),
        }
        write_json(folder / f"adapting-{given.name}.json", {**manifest, "runs": runs})


if __name__ == "__main__":
    main()
