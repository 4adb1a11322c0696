"""What a training adds to an environment with many agents in Python: PettingZoo's spread, beside its bare loop.

    python benchmarks/multi_agent_speed.py [--json FILE]

The bare loop takes random actions and resets, with no library. The rows alone (`MultiAgentSource`) add arrays and
checks, and a training of PPO with one policy for all agents adds acting and learning. They run in turn in this process.
Seconds are those of the processor, which do not count what other programs take; figures are medians over `--rounds` of
environment steps a second, and of their ratios to the bare loop of the same round. Needs mpe2 (`pip install mpe2`).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from manifest import add_speed_options, require_idle, write_manifest

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
    config = PPOConfig.from_dict({**SETTINGS, "env": ENVIRONMENT, "num_envs_per_worker": rows, "seed": 0})
    algorithm = config.multi_agent(policies={"shared"}).build()
    algorithm.train()

    def play() -> None:
        algorithm.train()

    return play


WAYS = {"bare loop": bare_loop, "rows alone": rows_alone, "training": training}


def measure(rows: int, rounds: int) -> dict[str, list[float]]:
    """Environment steps a second of each round, for each way."""
    ways = {name: make(rows) for name, make in WAYS.items()}
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, play in ways.items():
            start = time.process_time()
            play()
            speeds[name].append(STEPS / (time.process_time() - start))
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_speed_options(parser, rounds=9)
    arguments = parser.parse_args()
    require_idle(arguments)
    speeds = {rows: measure(rows, arguments.rounds) for rows in ROWS}
    figures: dict[str, dict] = {"median_steps_a_second": {}, "ratios_to_the_bare_loop": {}}
    for rows, found in speeds.items():
        figures["median_steps_a_second"][rows] = {name: round(statistics.median(all_)) for name, all_ in found.items()}
        figures["ratios_to_the_bare_loop"][rows] = {
            name: round(statistics.median(one / bare for one, bare in zip(all_, found["bare loop"], strict=True)), 2)
            for name, all_ in found.items()
        }
    print(figures)
    if arguments.json:
        write_manifest(
            arguments.json, figures, {"athlete": sys.executable}, settings=SETTINGS, steps=STEPS, speeds=speeds
        )


if __name__ == "__main__":
    main()
