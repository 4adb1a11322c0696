"""Every algorithm's defaults on every classic environment that it serves, beside Stable-Baselines3's at equal steps.

    python benchmarks/untuned.py                              # what is missing, the cheapest first
    python benchmarks/untuned.py DQN SAC --environment CartPole-v1
    python benchmarks/untuned.py --rival PYTHON               # SB3's, by an interpreter that has it
    python benchmarks/untuned.py --page                       # write docs/untuned.md from what there is

Nothing is set but the environment (and, in the row of Rainbow, its parts). Seeds from 1000 on, on which nothing is
tuned; each policy is evaluated greedily over 20 episodes. Results go to `results/untuned.json` after every run: what
is there is not run again, unless its settings have changed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any, NamedTuple

from learning import FIRST_PUBLISHED_SEED, HERE, Training, train
from manifest import commit, versions, write_json

from athlete.algorithms import ALGORITHMS, get_config_class
from athlete.ops.statistics import summarize

RESULTS = HERE / "results" / "untuned.json"
PAGE = HERE.parent / "docs" / "untuned.md"
SEEDS = 5
RAINBOW = {"noisy": True, "num_atoms": 51, "v_min": 0.0, "v_max": 100.0, "n_step": 3}
ON_POLICY = ("PPO", "A2C", "PG", "TRPO", "PQN", "ES", "ARS", "CMAES", "PGPE")  # whose steps are cheap
RIVALS = ("PPO", "A2C", "DQN", "SAC", "TD3", "DDPG")


class Task(NamedTuple):
    """An environment with the timesteps that learners of either kind have."""

    environment: str
    actions: str
    off_policy: int
    on_policy: int


TASKS = (
    Task("CartPole-v1", "discrete", 100_000, 100_000),
    Task("Acrobot-v1", "discrete", 100_000, 100_000),
    Task("MountainCar-v0", "discrete", 120_000, 120_000),
    Task("FrozenLake-v1", "discrete", 200_000, 200_000),
    Task("Pendulum-v1", "continuous", 20_000, 400_000),
    Task("MountainCarContinuous-v0", "continuous", 50_000, 50_000),
)
# Learners that see fewer updates a step, and have more steps for it.
MORE_STEPS = {("A2C", "CartPole-v1"): 200_000, ("PQN", "CartPole-v1"): 500_000}
# Milliseconds of one core for a timestep, roughly: the order in which cells are run.
COST = {
    **dict.fromkeys(ON_POLICY, 0.05),
    **dict.fromkeys(("SimpleQ", "DQN"), 0.1),
    "Rainbow": 0.5,
    "QRDQN": 0.3,
    "IQN": 0.5,
    "R2D2": 2.0,
}
DEAREST = 10.0


class Cell(NamedTuple):
    """One algorithm with its defaults on one environment."""

    algorithm: str
    environment: str
    timesteps: int

    @property
    def cost(self) -> float:
        return COST.get(self.algorithm, DEAREST) * self.timesteps

    @property
    def training(self) -> Training:
        rainbow = self.algorithm == "Rainbow"
        name, config = ("DQN", RAINBOW) if rainbow else (self.algorithm, {})
        label = f"{self.algorithm} {self.environment}"
        return Training(label, label, name, self.environment, config, self.timesteps)


def cells() -> list[Cell]:
    """All, the cheapest first."""
    found = []
    for task in TASKS:
        for name in (*ALGORITHMS, "Rainbow"):
            config = get_config_class("DQN" if name == "Rainbow" else name)
            agent: Any = config.agent_class
            if config.offline:
                continue
            if task.actions in agent.serves and not agent.joint:
                steps = task.on_policy if name in ON_POLICY else task.off_policy
                found.append(Cell(name, task.environment, MORE_STEPS.get((name, task.environment), steps)))
    return sorted(found, key=lambda cell: cell.cost)


def settings_of(cell: Cell) -> dict[str, Any]:
    """All that the cell is trained with, as JSON keeps it: a changed default makes its runs anew (`are_of`)."""
    config = get_config_class(cell.training.algorithm).from_dict(cell.training.config).to_dict()
    return json.loads(json.dumps({**config, "timesteps": cell.timesteps}, default=str))


def are_of(known: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Whether runs with the settings `known` are of today's `settings`; those that are new since change nothing."""
    return all(name in settings and settings[name] == value for name, value in known.items())


def run_ours(cell: Cell, seed: int) -> dict[str, Any]:
    """One seed of a cell."""
    curve = train(cell.training, seed, HERE / ".runs" / f"untuned-{cell.algorithm}-{cell.environment}-{seed}")
    kept = ("seed", "evaluation", "seconds", "commit", "dirty")
    return {**{name: curve[name] for name in kept}, "training": curve["episode_reward_mean"][-1]}


def run_rival(cell: Cell, seed: int, python: str) -> dict[str, Any]:
    """One seed of Stable-Baselines3's algorithm of the same name."""
    script = HERE / "rivals" / "sb3_untuned.py"
    words = [python, str(script), cell.algorithm, cell.environment, str(cell.timesteps), str(seed)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return {"seed": seed, "commit": commit(), **json.loads(done.stdout.splitlines()[-1])}


def summary(runs: list[dict[str, Any]]) -> str:
    """The middle of the seeds and the worst, as a cell of the table."""
    if not runs:
        return "-"
    reached = summarize([run["evaluation"] for run in runs])
    seeds = "" if len(runs) == SEEDS else f", {len(runs)} seed{'s' if len(runs) > 1 else ''}"
    return f"{reached.value:.1f} ({reached.worst:.1f}{seeds})"


def page(found: dict[str, Any]) -> str:
    """The documentation's page."""
    lines = [HEAD]
    for task in TASKS:
        lines += [f"\n## {task.environment}\n", "| Algorithm | timesteps | Athlete | Stable-Baselines3 |"]
        lines.append("|---|---|---|---|")
        for cell in sorted(cells(), key=lambda cell: (cell.timesteps, cell.algorithm)):
            if cell.environment == task.environment:
                ours, rival = (found.get(f"{who} {cell.training.label}", {}) for who in ("athlete", "sb3"))
                theirs = summary(rival.get("runs", [])) if cell.algorithm in RIVALS else ""
                lines.append(f"| {cell.algorithm} | {cell.timesteps:,} | {summary(ours.get('runs', []))} | {theirs} |")
    return "\n".join(lines) + "\n"


HEAD = """# Untuned

What algorithms reach without a setting but the environment: the mean return of a greedy evaluation over 20 episodes
after these timesteps, in the middle of five seeds that nothing was tuned on (1000 to 1004; an interquartile mean where
there are four or more, else a mean), and the worst of them in brackets. Beside it Stable-Baselines3 2.9 with its
defaults, in the same environment for as many timesteps. "Rainbow" is DQN with
`noisy=True, num_atoms=51, v_min=0, v_max=100, n_step=3`. A dash: not run yet.

The tables are written by `python benchmarks/untuned.py --page` from `benchmarks/results/untuned.json`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algorithms", nargs="*", help="only these")
    parser.add_argument("--environment", help="only this one")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--rival", metavar="PYTHON", help="run Stable-Baselines3 with this interpreter")
    parser.add_argument("--page", action="store_true", help="write the page, and run nothing")
    parser.add_argument("--nice", type=int, default=19)
    arguments = parser.parse_args()
    os.nice(arguments.nice)
    found: dict[str, Any] = json.loads(RESULTS.read_text())["cells"] if RESULTS.exists() else {}
    if arguments.page:
        PAGE.write_text(page(found), encoding="utf-8")
        return
    who = "sb3" if arguments.rival else "athlete"
    names = set(arguments.algorithms or [cell.algorithm for cell in cells()])
    chosen = [cell for cell in cells() if cell.algorithm in names and arguments.environment in (None, cell.environment)]
    for seed in range(FIRST_PUBLISHED_SEED, FIRST_PUBLISHED_SEED + arguments.seeds):
        for cell in chosen if who == "athlete" else [cell for cell in chosen if cell.algorithm in RIVALS]:
            measure(cell, seed, who, arguments.rival, found)


def measure(cell: Cell, seed: int, who: str, python: str | None, found: dict[str, Any]) -> None:
    """Run a seed of a cell unless it is there, and write all results."""
    label = f"{who} {cell.training.label}"
    settings = settings_of(cell) if python is None else {"timesteps": cell.timesteps}
    entry = found.get(label)
    if entry is None or not are_of(entry["settings"], settings):
        entry = found[label] = {"settings": settings, "runs": []}
    if seed in {run["seed"] for run in entry["runs"]}:
        return
    run = run_ours(cell, seed) if python is None else run_rival(cell, seed, python)
    entry["runs"] = sorted([*entry["runs"], run], key=lambda each: each["seed"])
    entry["versions"] = versions(python or sys.executable)
    write_json(RESULTS, {"command": "python benchmarks/untuned.py", "cells": dict(sorted(found.items()))})
    print(f"{label} seed {seed}: {run['evaluation']}, {run['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
