"""Whether estimators rank policies rightly: five policies of known worth, told from the episodes of one of them.

    python benchmarks/estimation.py cartpole pendulum                    # what is published: seeds from 1000 on
    python benchmarks/estimation.py cartpole --first-seed 0 --seeds 1    # a look; writes to benchmarks/.tuning

The policies are checkpoints of the training that `benchmarks/offline_data.py` made data with, evenly spaced over the
part of it in which it still gets better; the third of them recorded 300 episodes, exploring. What is true is the mean
discounted return of 2,000 fresh episodes. Seed s has the policies of recording s mod 3 and episodes of its own. Of each
estimator there are Spearman's rank correlation with the truth, the mean over seeds; how often the truth lies in the
interval of 95%; and the deviation of its numbers over episodes, as a multiple of that of the recorded returns.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from learning import FIRST_PUBLISHED_SEED
from manifest import commit, is_dirty, machine, versions, write_json
from offline import RECORDINGS
from offline_data import FOLDER, made

from athlete.algorithm import Algorithm
from athlete.estimation import estimate
from athlete.offline.dataset import DataSet
from athlete.offline.estimators import behaviour_values, side_by_side
from athlete.policy import Policy

HERE = Path(__file__).parent
METHODS = {
    "IS": {"type": "ImportanceSampling"},
    "WIS": {"type": "WeightedImportanceSampling"},
    "FQE": {"type": "DirectMethod"},
    "DR": {"type": "DoublyRobust"},
}
EPISODES, FRESH = 300, 2000
GAMMA = 0.98  # for which time limits are far away
BEHAVIOUR = 2  # which of the five made the data
POLICIES = 5


class Part(NamedTuple):
    """The shares of a training between which its checkpoints are the policies."""

    begin: float
    end: float


PARTS = {"cartpole": Part(0.0, 0.4), "pendulum": Part(0.0, 0.4)}


def policies_of(name: str, seed: int) -> tuple[list[Policy], list[float], DataSet]:
    """The policies, what they are worth, and what one of them recorded."""
    made(name, seed % RECORDINGS)
    found = sorted((FOLDER / f"{name}-{seed % RECORDINGS}" / "checkpoints").glob("checkpoint_*"))
    places = np.linspace(*(share * (len(found) - 1) for share in PARTS[name]), POLICIES).astype(int)
    policies, true, data = [], [], []
    for number, place in enumerate(places):
        with Algorithm.from_checkpoint(found[place], output=None, log_level="WARN") as algo:
            policies.append(algo.get_policy())
            fresh = algo._evaluator.record(policies[-1], seed, 0, FRESH, explore=True)
            true.append(float(behaviour_values(side_by_side(fresh.reward, fresh.lengths, GAMMA)).mean()))
            if number == BEHAVIOUR:
                data.append(algo._evaluator.record(policies[-1], seed, 1, EPISODES, explore=True))
    return policies, true, data[0]


def measure(name: str, seed: int) -> dict[str, Any]:
    """What is true of the policies of a seed, and what each estimator tells of them."""
    made_by = {"commit": commit(), "dirty": is_dirty(), "versions": versions(sys.executable), "machine": machine()}
    policies, true, data = policies_of(name, seed)
    told = [estimate(policy, data, METHODS, GAMMA, seed) for policy in policies]
    keys = {"estimate": "v_target", "low": "v_target_low", "high": "v_target_high", "std": "v_target_std"}
    by_method = {
        method: {short: [round(one[method][key], 4) for one in told] for short, key in keys.items()}
        for method in METHODS
    }
    behaviour_std = round(told[0]["IS"]["v_behavior_std"], 4)
    true = [round(value, 4) for value in true]
    return {"seed": seed, **made_by, "true": true, "behaviour_std": behaviour_std, "told": by_method}


def ranks(values: list[float]) -> np.ndarray:
    return np.argsort(np.argsort(values)).astype(float)


def figures_of(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each estimator: rank correlation, share of intervals that hold the truth, and relative deviation."""
    figures = {}
    for method in METHODS:
        correlations, inside, deviations = [], [], []
        for run in runs:
            told = run["told"][method]
            correlations.append(np.corrcoef(ranks(told["estimate"]), ranks(run["true"]))[0, 1])
            bounds = zip(told["low"], run["true"], told["high"], strict=True)
            inside += [low <= true <= high for low, true, high in bounds]
            deviations += [std / run["behaviour_std"] for std in told["std"]]
        figures[method] = {
            "rank_correlation": round(float(np.mean(correlations)), 3),
            "inside": round(float(np.mean(inside)), 3),
            "relative_std": round(float(np.median(deviations)), 2),
        }
    return figures


def manifest_of(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What the manifest of an environment holds."""
    settings = {"part": list(PARTS[name]), "episodes": EPISODES, "fresh": FRESH, "gamma": GAMMA, "behaviour": BEHAVIOUR}
    return {
        "command": f"python benchmarks/estimation.py {name} --seeds {len(runs)}",
        "seeds": [run["seed"] for run in runs],
        **settings,
        "methods": METHODS,
        "figures": figures_of(runs),
        "runs": runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=PARTS)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--first-seed", type=int, default=FIRST_PUBLISHED_SEED, help="below 1000: for a look")
    parser.add_argument("--nice", type=int, default=10)
    arguments = parser.parse_args()
    os.nice(arguments.nice)
    folder = HERE / ("results" if arguments.first_seed >= FIRST_PUBLISHED_SEED else ".tuning")
    folder.mkdir(exist_ok=True)
    for name in arguments.names:
        runs: list[dict[str, Any]] = []
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            runs.append(measure(name, seed))
            write_json(folder / f"estimation-{name}.json", manifest_of(name, runs))
            print(f"{name} seed {seed}: true {runs[-1]['true']}, told {runs[-1]['told']}", flush=True)
        print(f"{name}: {figures_of(runs)}", flush=True)


if __name__ == "__main__":
    main()
