"""Stable-Baselines3's or sbx's DQN and SAC on one Gymnasium environment, an update a step: steady steps per second.

    .rivals/sb3/bin/python benchmarks/rivals/sb3_off_policy.py --library sb3 --algorithm DQN
    .rivals/sbx/bin/python benchmarks/rivals/sb3_off_policy.py --library sbx --algorithm SAC --gradient-steps 2

Prints one JSON line: the median of the repeats. Importing, compiling and a warm-up are left out. As fast as their users
can have them without touching their code: no Monitor, no logs, no progress bar; steps are counted in a callback.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import gymnasium
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

ENVIRONMENTS = {"DQN": "CartPole-v1", "SAC": "Pendulum-v1"}
WARM_UP = {"DQN": 2_000, "SAC": 400}  # learning has started, everything is compiled, epsilon has reached its end
TIMESTEPS = {"DQN": 1_000, "SAC": 200}  # of one repeat, some seconds
LEARNING_STARTS = {"DQN": 1_000, "SAC": 256}


class Clock(BaseCallback):
    """Notes (steps, time, CPU time of the process) after `first` steps, and after every `every` more."""

    def __init__(self, first: int, every: int):
        super().__init__()
        self.next, self.every = first, every
        self.marks: list[tuple[int, float, float]] = []

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.next:
            self.marks.append((self.num_timesteps, time.perf_counter(), time.process_time()))
            self.next += self.every
        return True


def dqn_settings(library: str, timesteps: int) -> dict[str, Any]:
    """Settings of both libraries' DQN; epsilon falls to 0.05 in the first 1000 of `timesteps`."""
    settings: dict[str, Any] = {
        "learning_rate": 1e-3,
        "batch_size": 64,
        "buffer_size": 50_000,
        "gamma": 0.99,
        "target_update_interval": 500,
        "exploration_fraction": min(1.0, 1_000 / timesteps),
        "exploration_final_eps": 0.05,
    }
    if library == "sbx":  # two layers of this width; its DQN clips no gradients, which saves it work
        return {**settings, "policy_kwargs": {"net_arch": [64]}}
    return {**settings, "max_grad_norm": 10.0, "policy_kwargs": {"net_arch": [64, 64]}}


def sac_settings() -> dict[str, Any]:
    """Settings of both libraries' SAC: RL-Zoo's for Pendulum, with a smaller buffer."""
    return {
        "learning_rate": 1e-3,
        "batch_size": 256,
        "buffer_size": 100_000,
        "gamma": 0.99,
        "tau": 0.005,
        "ent_coef": "auto",
        "policy_kwargs": {"net_arch": [256, 256]},
    }


def build(arguments: argparse.Namespace, timesteps: int) -> Any:
    """The model, not yet trained. `timesteps` is the length of the whole run."""
    if arguments.library == "sbx":
        import sbx as library
    else:
        import stable_baselines3 as library
    dqn = arguments.algorithm == "DQN"
    name = ENVIRONMENTS[arguments.algorithm]
    return getattr(library, arguments.algorithm)(
        "MlpPolicy",
        DummyVecEnv([lambda: gymnasium.make(name, disable_env_checker=True)]),  # given so, it gets no Monitor
        train_freq=1,
        gradient_steps=arguments.gradient_steps,
        learning_starts=LEARNING_STARTS[arguments.algorithm],
        seed=arguments.seed,
        device="cpu",
        verbose=0,
        **(dqn_settings(arguments.library, timesteps) if dqn else sac_settings()),
    )


def steady(arguments: argparse.Namespace, warm_up: int, timesteps: int) -> dict[str, Any]:
    """Steps per second of `arguments.repeats` stretches of `timesteps` steps, after `warm_up` steps."""
    total = warm_up + arguments.repeats * timesteps
    clock = Clock(warm_up, timesteps)
    build(arguments, total).learn(total, callback=clock, log_interval=None)
    speeds, speeds_of_cpu = [], []
    for (start, wall, cpu), (end, wall_end, cpu_end) in zip(clock.marks, clock.marks[1:], strict=False):
        speeds.append((end - start) / (wall_end - wall))
        speeds_of_cpu.append((end - start) / (cpu_end - cpu))
    return {
        "steps_per_second": statistics.median(speeds),
        "steps_per_cpu_second": statistics.median(speeds_of_cpu),
        "repeats": speeds,
        "timesteps": timesteps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", choices=["sb3", "sbx"], required=True)
    parser.add_argument("--algorithm", choices=list(ENVIRONMENTS), required=True)
    parser.add_argument("--gradient-steps", type=int, default=1, help="updates after each step")
    parser.add_argument("--threads", type=int, help="PyTorch's threads; OMP_NUM_THREADS or its own choice by default")
    parser.add_argument("--warm-up", type=int, help="steps before the clock starts")
    parser.add_argument("--timesteps", type=int, help="steps of one repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    warm_up = arguments.warm_up or WARM_UP[arguments.algorithm]
    timesteps = arguments.timesteps or TIMESTEPS[arguments.algorithm]
    print(json.dumps(steady(arguments, warm_up, timesteps)), flush=True)


if __name__ == "__main__":
    main()
