"""What trials cost in a running Ray cluster, here and under Ray Tune: trials that do nothing but report.

    pip install 'ray[tune]'
    python benchmarks/ray_trials.py --trials 16 --at-once 4 --json benchmarks/results/ray-trials.json

Prints the seconds of each, in rounds that alternate, the medians and their ratio.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from typing import Any

import ray
import ray.tune
from manifest import add_speed_options, require_idle, write_manifest

from athlete import tune

REPORTS = 10


def ours(config: dict[str, Any]) -> None:
    for report in range(REPORTS):
        tune.report(score=config["x"] + report)


def theirs(config: dict[str, Any]) -> None:
    for report in range(REPORTS):
        ray.tune.report({"score": config["x"] + report})


def run_ours(trials: int, at_once: int, folder: str) -> None:
    grid = {"x": tune.grid_search(list(range(trials)))}
    analysis = tune.run(ours, config=grid, ray=True, max_concurrent_trials=at_once, local_dir=folder, verbose=0)
    assert [trial.last_result["training_iteration"] for trial in analysis.trials] == [REPORTS] * trials


def run_theirs(trials: int, at_once: int, folder: str) -> None:
    grid = {"x": ray.tune.grid_search(list(range(trials)))}
    tuner = ray.tune.Tuner(
        theirs,
        param_space=grid,
        tune_config=ray.tune.TuneConfig(max_concurrent_trials=at_once),
        run_config=ray.tune.RunConfig(storage_path=folder, verbose=0),
    )
    assert [result.metrics["training_iteration"] for result in tuner.fit()] == [REPORTS] * trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--at-once", type=int, default=4)
    add_speed_options(parser, rounds=3)
    arguments = parser.parse_args()
    require_idle(arguments)
    os.environ.pop("RAY_ADDRESS", None)
    settings = {"object_store_memory": 200_000_000, "include_dashboard": False, "logging_level": "ERROR"}
    ray.init("local", num_cpus=arguments.at_once, log_to_driver=False, **settings)
    seconds: dict[str, list[float]] = {"athlete": [], "Ray Tune": []}
    for _ in range(arguments.rounds):
        for name, run in (("athlete", run_ours), ("Ray Tune", run_theirs)):
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                run(arguments.trials, arguments.at_once, folder)
                seconds[name].append(time.perf_counter() - start)
            print(f"{name}: {arguments.trials} trials in {seconds[name][-1]:.1f} s", flush=True)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    ratio = medians["athlete"] / medians["Ray Tune"]
    print(f"medians: athlete {medians['athlete']:.1f} s, Ray Tune {medians['Ray Tune']:.1f} s, ratio {ratio:.2f}")
    if arguments.json:
        figures = {"trials": arguments.trials, "seconds": medians, "ratio": ratio}
        write_manifest(arguments.json, figures, {"athlete": sys.executable}, seconds=seconds)


if __name__ == "__main__":
    main()
