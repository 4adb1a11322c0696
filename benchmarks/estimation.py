"""Whether estimators rank policies rightly: five policies of known worth, told from the episodes of one of them.

    python benchmarks/estimation.py cartpole --behaviour 2 --episodes 300

The policies are checkpoints of the training that `benchmarks/offline_data.py` made data with, evenly spaced; the
behaviour is one of them, exploring. What is true is the mean discounted return of 500 fresh episodes. Printed are, for
each estimator, Spearman's rank correlation with the truth and in which cases the truth lies in the interval.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from offline_data import FOLDER

from athlete.algorithm import Algorithm
from athlete.estimation import estimate
from athlete.offline.estimators import behaviour_values, side_by_side

METHODS = {
    "is": {"type": "ImportanceSampling"},
    "wis": {"type": "WeightedImportanceSampling"},
    "dm": {"type": "DirectMethod", "q_model_config": {"updates": 10_000}},
    "dr": {"type": "DoublyRobust", "q_model_config": {"updates": 10_000}},
}


def ranks(values: list[float]) -> np.ndarray:
    return np.argsort(np.argsort(values)).astype(float)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--behaviour", type=int, default=2, help="which of the five recorded the data")
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--gamma", type=float, default=0.98, help="for which time limits are far away")
    parser.add_argument("--until", type=float, default=0.4, help="share of the training that the policies are of")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    found = sorted((arguments.data / f"{arguments.name}-0" / "checkpoints").glob("checkpoint_*"))
    paths = [found[i] for i in np.linspace(0, arguments.until * (len(found) - 1), 5).astype(int)]
    true, policies, data = [], [], None
    for number, path in enumerate(paths):
        with Algorithm.from_checkpoint(path, output=None, log_level="WARN") as algo:
            fresh = algo._evaluator.record(algo.get_policy(), arguments.seed + 1000, 0, 500, explore=True)
            true.append(float(behaviour_values(side_by_side(fresh.reward, fresh.lengths, arguments.gamma)).mean()))
            policies.append(algo.get_policy())
            if number == arguments.behaviour:
                data = algo._evaluator.record(algo.get_policy(), arguments.seed, 1, arguments.episodes, explore=True)
    assert data is not None
    told = [estimate(policy, data, METHODS, arguments.gamma, arguments.seed) for policy in policies]
    print("true", [round(value, 2) for value in true])
    for name in METHODS:
        values = [one[name]["v_target"] for one in told]
        bounds = [(one[name]["v_target_low"], one[name]["v_target_high"]) for one in told]
        inside = [low <= value <= high for (low, high), value in zip(bounds, true, strict=True)]
        print(
            json.dumps(
                {
                    "estimator": name,
                    "estimates": [round(value, 2) for value in values],
                    "rank_correlation": round(float(np.corrcoef(ranks(values), ranks(true))[0, 1]), 3),
                    "inside": inside,
                    "std": [round(one[name]["v_target_std"], 2) for one in told],
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
