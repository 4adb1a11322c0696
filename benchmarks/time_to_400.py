"""Process start to a mean reward of 400 on CartPole-v1: Athlete and its rivals, seed by seed.

    benchmarks/setup_rivals.sh
    python benchmarks/time_to_400.py [--json FILE]

athlete    the tuned example cartpole-ppo
sb3        Stable-Baselines3 with RL-Zoo's settings
sb3-ours   Stable-Baselines3 with the settings of cartpole-ppo
sbx        sbx with RL-Zoo's settings
rllib      RLlib with its defaults

The criterion is the same for all: the mean reward of the last 100 training episodes is 400 or more. Each run is a whole
process with fresh cache folders; the clock ends when it prints that it is there. One run of each before the clock
starts warms the disk's cache, since a first import would measure the disk.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Any

from manifest import add_speed_options, require_idle, rival_python, write_manifest
from processes import RIVAL_ENVIRONMENT, run_cold

TO_REACH = {"sb3": 3.0, "sb3-ours": 3.0, "sbx": 3.0, "rllib": 20.0}


def commands(names: list[str]) -> dict[str, list[str]]:
    """What starts each contestant."""
    sb3 = "benchmarks/rivals/sb3_cartpole.py"
    known = {
        "athlete": lambda: [sys.executable, "benchmarks/ours_cartpole.py"],
        "sb3": lambda: [rival_python("sb3"), sb3],
        "sb3-ours": lambda: [rival_python("sb3"), sb3, "--settings", "ours"],
        "sbx": lambda: [rival_python("sbx"), sb3, "--library", "sbx"],
        "rllib": lambda: [rival_python("rllib"), "benchmarks/rivals/rllib_cartpole.py"],
    }
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"unknown contestant {unknown[0]!r}: choose from {', '.join(known)}")
    return {name: known[name]() for name in names}


def print_tables(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Print medians, ratios and our breakdown; return them."""
    medians = {name: statistics.median(run["wall_s"] for run in results) for name, results in runs.items()}
    print(f"\n{'contestant':12}{'median s':>10}{'all s':>45}{'median steps':>14}{'reached':>9}")
    for name, results in runs.items():
        all_seconds = " ".join(f"{run['wall_s']:.1f}" for run in results)
        steps = statistics.median(run["timesteps"] for run in results)
        reached = f"{sum(run['reached'] for run in results)}/{len(results)}"
        print(f"{name:12}{medians[name]:10.2f}{all_seconds:>45}{steps:14,.0f}{reached:>9}")
    summary: dict[str, Any] = {"median_seconds": medians, "ratios": {}}
    if "athlete" not in runs:
        return summary
    for name in [name for name in runs if name != "athlete"]:
        seed_ratios = [
            theirs["wall_s"] / ours["wall_s"] for theirs, ours in zip(runs[name], runs["athlete"], strict=True)
        ]
        summary["ratios"][name] = {"of_medians": medians[name] / medians["athlete"], "by_seed": seed_ratios}
        print(
            f"{name} / athlete: {medians[name] / medians['athlete']:.1f} of medians, "
            f"{min(seed_ratios):.1f} to {max(seed_ratios):.1f} seed by seed (to reach: {TO_REACH[name]:g})"
        )
    parts = [part for part in runs["athlete"][0] if part.endswith("_s") and part != "wall_s"]
    summary["breakdown_s"] = {part: statistics.median(run[part] for run in runs["athlete"]) for part in parts}
    print(
        "athlete's medians: "
        + ", ".join(f"{part[:-2]} {value:.2f} s" for part, value in summary["breakdown_s"].items())
    )
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contestants", nargs="+", default=["athlete", "sb3", "sb3-ours", "sbx", "rllib"])
    parser.add_argument("--first-seed", type=int, default=0)
    add_speed_options(parser)
    arguments = parser.parse_args()
    require_idle(arguments)

    contestants = commands(arguments.contestants)
    for command in contestants.values():
        run_cold([*command, "--target", "0"], RIVAL_ENVIRONMENT)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants}
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.rounds)
    for seed in seeds:
        for name, command in contestants.items():
            run = run_cold([*command, "--seed", str(seed)], None if name == "athlete" else RIVAL_ENVIRONMENT)
            runs[name].append(run)
            end = "" if run["reached"] else " (not reached)"
            print(f"seed {seed} {name:8} {run['wall_s']:7.2f} s {run['timesteps']:8,} steps{end}", flush=True)
    summary = print_tables(runs)
    if arguments.json:
        interpreters = {name: command[0] for name, command in contestants.items()}
        write_manifest(arguments.json, {**summary, "runs": runs}, interpreters, seeds)


if __name__ == "__main__":
    main()
