"""Frames a second on Atari: EnvPool by itself with random actions, and Athlete's training on it.

    pip install envpool
    python benchmarks/atari_speed.py [--game ALE/Pong-v5] [--rows 8] [--rounds 3] [--json FILE]

A step is 4 frames. "raw" is EnvPool's own `step` with actions drawn beforehand; "source" is the same through
`EnvPoolSource`, with its copies and resets; "collect" is the acting part of the training of the tuned example
`pong-ppo` (environment and policy), "train" all of it, learning included; all see the pictures of that example. They
take turns; medians over the rounds. By the clock, and by the processor in brackets: what other work on the machine
takes is in the first and not in the second.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from manifest import add_speed_options, require_idle, write_manifest

FRAME_SKIP = 4
STEPS = 100  # of all rows, in a round of "raw" and "source"


def timed(work: Callable[[], int]) -> tuple[float, float]:
    """Frames a second of `work`, which returns its steps: of the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    frames = FRAME_SKIP * work()
    return frames / (time.perf_counter() - clock), frames / (time.process_time() - processor)


def raw_steps(game: str, rows: int, env_config: dict[str, Any]) -> Callable[[], int]:
    import envpool

    pool = envpool.make(game.rpartition("/")[2], env_type="gymnasium", num_envs=rows, seed=0, **env_config)
    pool.reset()
    actions = np.random.default_rng(0).integers(0, pool.action_space.n, (STEPS, rows)).astype(np.int32)

    def run() -> int:
        for action in actions:
            pool.step(action)
        return STEPS * rows

    return run


def source_steps(game: str, rows: int, env_config: dict[str, Any]) -> Callable[[], int]:
    from athlete.env.adapters.envpool import EnvPoolSource

    source, key = EnvPoolSource(game, env_config, rows=rows), np.zeros(2, np.uint32)
    source.reset(key)
    actions = np.random.default_rng(0).integers(0, source.spec.action.n, (STEPS, rows)).astype(np.int32)

    def run() -> int:
        for action in actions:
            step = source.step(action, key)
            source.reset_where(step.terminated | step.truncated, step.obs, key)
        return STEPS * rows

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--game", default="ALE/Pong-v5")
    parser.add_argument("--rows", type=int, default=8)
    add_speed_options(parser, rounds=3)
    arguments = parser.parse_args()
    from athlete import tuned_examples
    from athlete.algorithms import get_config_class

    require_idle(arguments)
    example = tuned_examples.load("pong-ppo")
    settings = {
        **example.config,
        "env": arguments.game,
        "num_envs_per_worker": arguments.rows,
        "seed": 0,
        "logdir": False,
    }
    pictures = settings["env_config"]
    raw, source = (make(arguments.game, arguments.rows, pictures) for make in (raw_steps, source_steps))
    speeds: dict[str, list[tuple[float, float]]] = {"raw": [], "source": [], "train": []}
    collecting: list[float] = []
    with get_config_class(example.run).from_dict(settings).build() as algo:
        results: dict[str, Any] = algo.train()  # compiles

        def train() -> int:
            before = results["timesteps_total"]
            results.update(algo.train())
            steps = results["timesteps_total"] - before
            timers = results["timers"]
            seconds = (timers["env_step_time_ms"] + timers["inference_time_ms"]) / 1e3
            collecting.append(FRAME_SKIP * steps / seconds)
            return steps

        for _ in range(arguments.rounds):
            for name, work in (("raw", raw), ("source", source), ("train", train)):
                speeds[name].append(timed(work))
    figures: dict[str, Any] = {"collect": round(statistics.median(collecting))}
    for name, rounds in speeds.items():
        clock, processor = (round(statistics.median(part)) for part in zip(*rounds, strict=True))
        figures[name] = {"frames_per_second": clock, "frames_per_cpu_second": processor}
        print(f"{name}: {clock:,} frames/s ({processor:,} per CPU second)", flush=True)
    print(f"collect: {figures['collect']:,} frames/s")
    if arguments.json:
        write_manifest(
            arguments.json,
            figures,
            {"athlete": sys.executable},
            game=arguments.game,
            rows=arguments.rows,
            env_config=pictures,
        )


if __name__ == "__main__":
    main()
