"""What trials of PPO cost: 16 of 100,000 CartPole steps here, beside Ray Tune with RLlib's PPO on fewer of them.

    python benchmarks/trials_speed.py --json benchmarks/results/trials-speed.json
    python benchmarks/trials_speed.py --rllib PYTHON --rival-trials 2

Both have the settings of `cartpole-ppo`, with learning rates that differ by trial, and two cores, which `--at-once`
trials share (1: one after another in this process). A trial of Ray Tune is one of `--rival-trials`, all its slots
taken, so that its seconds are those of the whole by the number of trials.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from manifest import add_speed_options, require_idle, write_manifest

from athlete import tune, tuned_examples

TRIALS, TIMESTEPS = 16, 100_000
RIVAL = Path(__file__).parent / "rivals" / "rllib_trials.py"


def ours(at_once: int) -> float:
    """Seconds of an experiment, with the processes that it starts and what it compiles."""
    config = dict(tuned_examples.load("cartpole-ppo").config)
    config |= {"env": "CartPole-v1", "lr": tune.grid_search([1e-4 * (trial + 1) for trial in range(TRIALS)])}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        settings = {"max_concurrent_trials": at_once, "local_dir": folder, "verbose": 0}
        tune.run("PPO", config=config, stop={"timesteps_total": TIMESTEPS}, **settings)
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_speed_options(parser, rounds=3)
    parser.add_argument("--rllib", metavar="PYTHON", help="an interpreter that has ray[rllib,tune] and torch")
    parser.add_argument("--rival-trials", type=int, default=2)
    parser.add_argument("--at-once", type=int, default=2)
    arguments = parser.parse_args()
    require_idle(arguments)
    seconds: dict[str, list[float]] = {"ours": [], "ray tune": []}
    for turn in range(arguments.rounds):
        seconds["ours"].append(ours(arguments.at_once) / TRIALS)
        print(f"{TRIALS} trials here: {seconds['ours'][-1] * TRIALS:.1f} s", flush=True)
        if arguments.rllib and not turn:  # minutes each: once
            words = [arguments.rllib, str(RIVAL), str(arguments.rival_trials), str(TIMESTEPS)]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            figures = json.loads(done.stdout.splitlines()[-1])
            seconds["ray tune"].append(figures["seconds"] / arguments.rival_trials)
            print(f"{arguments.rival_trials} trials of Ray Tune: {figures}", flush=True)
    middle = statistics.median(seconds["ours"])
    figures = {"trials_s": middle * TRIALS, "trial_s": middle, "first_s": seconds["ours"][0] * TRIALS}
    figures["at_once"] = arguments.at_once
    if seconds["ray tune"]:
        rival = statistics.median(seconds["ray tune"])
        figures |= {"ray_tune_trial_s": rival, "rival_trials": arguments.rival_trials, "ratio": rival / middle}
    print(json.dumps(figures))
    if arguments.json:
        pythons = {"athlete": sys.executable} | ({"rllib": arguments.rllib} if arguments.rllib else {})
        write_manifest(arguments.json, figures, pythons, seconds=seconds)


if __name__ == "__main__":
    main()
