"""What a training adds to an environment with many agents in Python: PettingZoo's spread, beside its bare loop.

    benchmarks/setup_rivals.sh rllib
    python benchmarks/multi_agent_speed.py [--rllib] [--json FILE]

The bare loop takes random actions and resets, with no library. The rows alone (`MultiAgentSource`) add arrays and
checks, and a training of PPO with one policy for all agents adds acting and learning; RLlib's PPO learns the same from
as many environments with equal batches, epochs and networks. They have their turns one after the other, RLlib in a
process of its own. Figures are medians over `--rounds` of environment steps a second, and of their ratios to the bare
loop of the same round. Seconds are those of the clock; with `--busy` those of the processor, and without RLlib, whose
processes are several. Needs mpe2 (`pip install mpe2`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from manifest import ROOT, add_speed_options, require_idle, rival_python, write_manifest
from processes import RIVAL_ENVIRONMENT

from athlete.algorithms.ppo import PPOConfig
from athlete.env.world import find_world

ENVIRONMENT = "pettingzoo:mpe2.simple_spread_v3"
ROWS = (1, 4, 16)
STEPS = 2048  # of environments, in a round
SETTINGS = {"train_batch_size": 2048, "minibatch_size": 512, "num_epochs": 4, "model": {"fcnet_hiddens": [64, 64]}}
KEY = np.array([0, 7], np.uint32)


def bare_loop(rows: int) -> Callable[[], None]:
    """A round of random actions, as one would write it by hand."""
    from mpe2 import simple_spread_v3

    envs = [simple_spread_v3.parallel_env() for _ in range(rows)]
    for row, env in enumerate(envs):
        env.reset(seed=row)
    generator = np.random.default_rng(0)

    def play() -> None:
        for _ in range(STEPS // rows):
            actions = generator.integers(0, 5, (rows, 3)).tolist()
            for env, taken in zip(envs, actions, strict=True):
                env.step(dict(zip(env.agents, taken, strict=True)))
                if not env.agents:
                    env.reset()

    return play


def rows_alone(rows: int) -> Callable[[], None]:
    """The same through the rows that trainings step."""
    source = find_world(ENVIRONMENT, {}, "auto").source(num_envs_per_worker=rows)
    source.reset(KEY)
    generator = np.random.default_rng(0)

    def play() -> None:
        for _ in range(STEPS // rows):
            step = source.step({"agent": generator.integers(0, 5, (rows, 3))}, KEY)
            source.reset_where(step.terminated | step.truncated, step.obs, KEY)

    return play


def training(rows: int) -> Callable[[], None]:
    """An iteration of PPO, after one that compiles."""
    config = PPOConfig.from_dict(
        {**SETTINGS, "env": ENVIRONMENT, "num_envs_per_worker": rows, "seed": 0, "logdir": False}
    )
    algorithm = config.multi_agent(policies={"shared"}).build()
    algorithm.train()

    def play() -> None:
        algorithm.train()

    return play


def rllib(rows: int) -> Callable[[], None]:
    """An iteration of RLlib's PPO, after one that warms it up."""
    command = [rival_python("rllib"), str(ROOT / "benchmarks" / "rivals" / "rllib_spread.py"), "--rows", str(rows)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **RIVAL_ENVIRONMENT}
    )
    assert process.stdin is not None and process.stdout is not None
    asked, answers = process.stdin, process.stdout
    answers.readline()  # it is there

    def play() -> None:
        print(file=asked, flush=True)
        steps = json.loads(answers.readline())["steps"]
        if steps != STEPS:
            sys.exit(f"RLlib took {steps} environment steps in an iteration where {STEPS} were asked for")

    play()
    return play


def measure(ways: dict[str, Callable[[int], Callable[[], None]]], rows: int, arguments: argparse.Namespace) -> dict:
    """Environment steps a second of each round, for each way."""
    clock = time.process_time if arguments.busy else time.perf_counter
    plays = {name: make(rows) for name, make in ways.items()}
    speeds: dict[str, list[float]] = {name: [] for name in plays}
    for _ in range(arguments.rounds):
        for name, play in plays.items():
            start = clock()
            play()
            speeds[name].append(STEPS / (clock() - start))
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rllib", action="store_true", help="RLlib beside them")
    add_speed_options(parser, rounds=9)
    arguments = parser.parse_args()
    require_idle(arguments)
    if arguments.rllib and arguments.busy:
        parser.error("--rllib: its processes are several, and --busy measures one; wait for an idle machine")
    ways = {"bare loop": bare_loop, "rows alone": rows_alone, "training": training}
    if arguments.rllib:
        ways["RLlib"] = rllib
    speeds = {rows: measure(ways, rows, arguments) for rows in ROWS}
    figures: dict[str, dict] = {"median_steps_a_second": {}, "ratios_to_the_bare_loop": {}}
    for rows, found in speeds.items():
        figures["median_steps_a_second"][rows] = {name: round(statistics.median(all_)) for name, all_ in found.items()}
        figures["ratios_to_the_bare_loop"][rows] = {
            name: round(statistics.median(one / bare for one, bare in zip(all_, found["bare loop"], strict=True)), 2)
            for name, all_ in found.items()
        }
    print(figures)
    if arguments.json:
        interpreters = {"athlete": sys.executable} | ({"rllib": rival_python("rllib")} if arguments.rllib else {})
        write_manifest(arguments.json, figures, interpreters, settings=SETTINGS, steps=STEPS, speeds=speeds)


if __name__ == "__main__":
    main()
