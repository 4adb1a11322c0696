"""What algorithms learn from recorded data: the table of docs/benchmarks.md, a manifest for each of its rows.

    python benchmarks/offline.py                                   # every row
    python benchmarks/offline.py pendulum-replay half-cheetah      # those with one of these words in their names
    python benchmarks/offline.py pendulum-replay-iql --first-seed 0 --seeds 3     # a look while tuning
    python benchmarks/offline.py --list

A row is a kind of data (`benchmarks/offline_data.py`, made where they are missing) and a tuned example whose
settings it has, also where the example is of other data or of another environment. Seed s learns from the recording of
seed s mod 3, and at the end its policy plays greedily. Seeds that a manifest has are not run again: this can be stopped
and started, and several of it may work beside each other. What is published comes from seeds from 1000 on; those below
are for tuning, and theirs go to `benchmarks/.tuning`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from learning import EPISODES, FIRST_PUBLISHED_SEED
from learning_all import lock
from manifest import commit, is_dirty, machine, versions, write_json
from offline_data import RECIPES, made, normalized

from athlete import tuned_examples
from athlete.algorithms import get_config_class
from athlete.ops.statistics import summarize

HERE = Path(__file__).parent
RECORDINGS = 3  # seeds of trainings that data are of


class Row(NamedTuple):
    """A row of the table."""

    data: str  # a recipe of `offline_data.py`
    kind: str  # of its data
    example: str  # whose settings it has
    control_timesteps: int = 0  # what a control reads: its example is one for an environment

    @property
    def algorithm(self) -> str:
        return tuned_examples.load(self.example).run

    @property
    def timesteps(self) -> int:
        """Read from the data."""
        return self.control_timesteps or int(tuned_examples.load(self.example).stop["timesteps_total"])

    @property
    def label(self) -> str:
        return f"{self.data}-{self.kind}-{self.algorithm}".lower()

    @property
    def environment(self) -> str:
        return RECIPES[self.data].config["env"]

    @property
    def config(self) -> dict[str, Any]:
        """The example's, without what a row says itself."""
        config = tuned_examples.load(self.example).config
        return {name: value for name, value in config.items() if name not in ("env", "input_")}


PENDULUM = ["pendulum-iql", "pendulum-td3bc", "pendulum-rebrac", "pendulum-cql", "pendulum-crr", "pendulum-bc"]
OWN_SETTINGS = ("iql", "rebrac", "crr")  # where two policies far apart made the data
OTHERS = {("pendulum", "medium-expert", f"pendulum-{name}"): f"pendulum-medium-expert-{name}" for name in OWN_SETTINGS}
MUJOCO = [f"half-cheetah-{name}" for name in ("iql", "td3bc", "rebrac", "cql", "bc")]
WANTED = [
    *[("pendulum", kind, example) for kind in ("replay", "medium-expert") for example in PENDULUM],
    # After the 12,000 steps of "pendulum" one of three experts still falls: these had more.
    *[("pendulum-long", "expert", f"pendulum-{name}") for name in ("bc", "marwil", "dt")],
    *[("cartpole", "mixed", f"cartpole-{name}") for name in ("marwil", "cql", "iql", "bc", "dt")],
    *[
        (data, kind, example)
        for data in ("half-cheetah", "hopper")
        for kind in ("medium", "medium-replay", "medium-expert")
        for example in MUJOCO
    ],
]
# Beside them plain SAC, which nothing keeps from believing in actions that the data do not hold.
CONTROLS = [Row("pendulum", kind, "pendulum-sac", 2_560_000) for kind in ("replay", "medium-expert", "expert")]
ROWS = [*[Row(data, kind, OTHERS.get((data, kind, example), example)) for data, kind, example in WANTED], *CONTROLS]
SEEDS = {"half-cheetah": 3, "hopper": 3}  # of rows that take long; of the others 5


def learn(row: Row, seed: int) -> dict[str, Any]:
    """One seed: the mean of its greedy evaluation, its normalised score, and what its data are worth."""
    recording = seed % RECORDINGS
    folder, scores = made(row.data, recording)
    settings = {**row.config, "env": row.environment, "seed": seed, "logdir": False, "log_level": "ERROR"}
    settings["input_"] = str(folder / f"{row.kind}.safetensors")
    made_by = {"commit": commit(), "dirty": is_dirty(), "versions": versions(sys.executable), "machine": machine()}
    start = time.perf_counter()
    with get_config_class(row.algorithm).from_dict(settings).build() as algo:
        while algo.train()["timesteps_total"] < row.timesteps:
            pass
        seconds = time.perf_counter() - start
        reached = algo.evaluate(row.config.get("evaluation_duration", EPISODES))["evaluation"]["episode_reward_mean"]
    return {
        "seed": seed,
        **made_by,
        "seconds": round(seconds, 1),
        "recording": recording,
        "behaviour": round(scores["behaviour"][row.kind], 3),
        "evaluation": round(reached, 3),
        "score": round(normalized(reached, scores), 2),
    }


def manifest_of(row: Row, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What the manifest of a row holds."""
    reached = summarize([run["evaluation"] for run in runs])
    return {
        "command": f"python benchmarks/offline.py {row.label} --seeds {len(runs)}",
        "seeds": [run["seed"] for run in runs],
        **described(row),
        "figures": {
            reached.statistic.replace(" ", "_"): round(reached.value, 3),
            "interval_95": reached.interval and [round(end, 3) for end in reached.interval],
            "worst": round(reached.worst, 3),
            "score": round(summarize([run["score"] for run in runs]).value, 2),
            "behaviour": round(float(np.mean([run["behaviour"] for run in runs])), 3),
        },
        "runs": runs,
    }


def described(row: Row) -> dict[str, Any]:
    """What all seeds of a row have in common."""
    common = {
        "environment": row.environment,
        "data": row.kind,
        "recipe": RECIPES[row.data]._asdict(),
        "algorithm": row.algorithm,
        "example": row.example,
        "config": row.config,
        "timesteps": row.timesteps,
    }
    return json.loads(json.dumps(common))


def known_runs(path: Path, row: Row) -> list[dict[str, Any]]:
    """The runs of a manifest. Exits where they learned otherwise than the row says now."""
    if not path.exists():
        return []
    manifest = json.loads(path.read_text(encoding="utf-8"))
    for name, asked in described(row).items():
        if manifest[name] != asked:
            sys.exit(
                f"{path}: its {name} is {manifest[name]}, that of the row is {asked}; remove the file to begin anew"
            )
    return manifest["runs"]


def learn_seeds(row: Row, seeds: range, folder: Path) -> None:
    """Bring the manifest of a row up to date, seed by seed."""
    path = folder / f"offline-{row.label}.json"
    runs = known_runs(path, row)
    for seed in seeds:
        if seed in {run["seed"] for run in runs}:
            continue
        run = learn(row, seed)
        runs = sorted([*runs, run], key=lambda each: each["seed"])
        write_json(path, manifest_of(row, runs))
        found = f"greedy {run['evaluation']}, score {run['score']}, of data worth {run['behaviour']}"
        print(f"{row.label} seed {seed}: {found}, {run['seconds']} s", flush=True)
    if runs:
        print(f"{row.label}: {len(runs)} seeds, {manifest_of(row, runs)['figures']} -> {path}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only rows with one of these in their names")
    parser.add_argument("--seeds", type=int, default=None, help="how many: 5, and 3 of MuJoCo, where this is not said")
    parser.add_argument("--first-seed", type=int, default=FIRST_PUBLISHED_SEED, help="below 1000: for tuning")
    parser.add_argument("--nice", type=int, default=10)
    parser.add_argument("--list", action="store_true", help="print the rows and what each learns with, no more")
    arguments = parser.parse_args()
    os.nice(arguments.nice)
    rows = [row for row in ROWS if not arguments.words or any(word in row.label for word in arguments.words)]
    if not rows:
        parser.error(f"no row is called so; there are {', '.join(row.label for row in ROWS)}")
    folder = HERE / ("results" if arguments.first_seed >= FIRST_PUBLISHED_SEED else ".tuning")
    folder.mkdir(exist_ok=True)
    for row in rows:
        if arguments.list:
            print(f"{row.label}: {row.timesteps:,} steps read, {row.example}")
            continue
        file = lock(f"offline-{row.label}")
        if file is None:
            continue  # another process is at it
        number = arguments.seeds or SEEDS.get(row.data, 5)
        learn_seeds(row, range(arguments.first_seed, arguments.first_seed + number), folder)
        os.close(file)


if __name__ == "__main__":
    main()
