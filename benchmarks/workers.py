"""How many steps a second workers take that act by themselves, in an environment whose step takes a while.

    python benchmarks/workers.py --delay 5 --workers 1 2 4 8 --seconds 10
    python benchmarks/workers.py --workers 1 8 16 --where processes ray --json benchmarks/results/workers.json

IMPALA learns as trajectories come, one environment a worker: of `--delay` milliseconds a step, a worker can take
1000 / delay steps a second at most. Prints a line for each number of workers, beside the ratio to the first; of several
rounds, which alternate between processes and Ray, the medians, and what Ray reaches of processes.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import gymnasium
import numpy as np
from manifest import add_speed_options, require_idle, write_manifest

from athlete.algorithms.impala import IMPALAConfig


class Slow(gymnasium.Env):
    """Four random numbers at every step, which takes `delay` seconds; episodes of a hundred steps."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, config: dict[str, Any]):
        self.delay, self.steps = config["delay"], 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.steps = 0
        return self._seen(), {}

    def _seen(self) -> np.ndarray:
        return self.np_random.uniform(-1.0, 1.0, 4).astype(np.float32)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        time.sleep(self.delay)
        self.steps += 1
        return self._seen(), 1.0, False, self.steps == 100, {}


def measure(workers: int, where: str, arguments: argparse.Namespace) -> tuple[float, float]:
    """Steps a second of so many workers, once they are warm, and the mean lag."""
    config = IMPALAConfig().environment(Slow, env_config={"delay": arguments.delay / 1000.0})
    config.environment(disable_env_checking=True).debugging(seed=0, log_level="ERROR")
    config.rollouts(num_rollout_workers=workers, num_envs_per_worker=1, rollout_fragment_length=arguments.length)
    config.rollouts(sample_async={"async": True, "lagged": "lagged", "sync": False}[arguments.how])
    config.training(train_batch_size=arguments.length * max(1, workers // 2))
    config.resources(ray=where == "ray").reporting(logdir=False)
    with config.build() as algorithm:
        for _ in range(2 * workers + 4):
            algorithm.train()
        steps, start, lags = 0, time.perf_counter(), []
        while time.perf_counter() - start < arguments.seconds:
            result = algorithm.train()
            steps += result["timesteps_this_iter"]
            lags.append(result.get("policy_lag", 0.0))
        return steps / (time.perf_counter() - start), float(np.mean(lags))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delay", type=float, default=5.0, help="milliseconds of a step")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--length", type=int, default=32, help="steps of a trajectory")
    parser.add_argument("--how", choices=("async", "lagged", "sync"), default="async")
    parser.add_argument("--where", choices=("processes", "ray"), nargs="+", default=["processes"])
    add_speed_options(parser, rounds=3)
    arguments = parser.parse_args()
    require_idle(arguments)
    if "ray" in arguments.where:
        import ray

        # CPUs as Ray counts them: one for each worker, as workers that wait for their environments hardly use theirs.
        settings = {"object_store_memory": 200_000_000, "include_dashboard": False, "logging_level": "ERROR"}
        ray.init("local", num_cpus=max(arguments.workers), log_to_driver=False, **settings)
    figures: list[dict[str, Any]] = []
    first: dict[str, float] = {}
    for workers in arguments.workers:
        found: dict[str, list[tuple[float, float]]] = {where: [] for where in arguments.where}
        for _ in range(arguments.rounds):
            for where in arguments.where:
                found[where].append(measure(workers, where, arguments))
        speeds = {where: float(np.median([speed for speed, _ in runs])) for where, runs in found.items()}
        for where, speed in speeds.items():
            lag, times = float(np.median([lag for _, lag in found[where]])), speed / first.setdefault(where, speed)
            figures.append({"workers": workers, "where": where, "steps_per_s": speed, "times": times, "lag": lag})
            print(f"{workers} workers, {where}: {speed:.0f} steps a second, {times:.1f}x; lag {lag:.1f}", flush=True)
        if len(speeds) == 2:
            print(f"{workers} workers: Ray reaches {speeds['ray'] / speeds['processes']:.2f} of processes", flush=True)
    if arguments.json:
        write_manifest(arguments.json, figures, {"athlete": sys.executable}, delay_ms=arguments.delay)


if __name__ == "__main__":
    main()
