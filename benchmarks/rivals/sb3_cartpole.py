"""Stable-Baselines3's or sbx's PPO on CartPole-v1: time to a mean reward of 400, or steady speed.

    .rivals/sb3/bin/python benchmarks/rivals/sb3_cartpole.py --seed 0
    .rivals/sb3/bin/python benchmarks/rivals/sb3_cartpole.py --settings ours
    .rivals/sbx/bin/python benchmarks/rivals/sb3_cartpole.py --library sbx --steady

As fast as their users can have them without touching their code: no Monitor and no environment checker, which ours does
without too; returns are counted in a callback. Prints one JSON line at the moment of reaching; whoever starts the
process takes the wall time up to that line.
"""

import time

STARTED = time.perf_counter()

import argparse  # noqa: E402
import collections  # noqa: E402
import importlib  # noqa: E402
import json  # noqa: E402

import gymnasium  # noqa: E402
import numpy  # noqa: E402
import torch  # noqa: E402
from stable_baselines3.common.callbacks import BaseCallback  # noqa: E402
from stable_baselines3.common.vec_env import DummyVecEnv  # noqa: E402

TIMESTEPS = 100_000
MODULES = {"sb3": "stable_baselines3", "sbx": "sbx"}
ENVS = 8
# RL-Zoo's, and those of the tuned example cartpole-ppo.
SETTINGS = {
    "zoo": {"n_steps": 32, "batch_size": 256, "n_epochs": 20, "gamma": 0.98, "gae_lambda": 0.8, "ent_coef": 0.0},
    "ours": {"n_steps": 64, "batch_size": 128, "n_epochs": 5, "gamma": 0.98, "gae_lambda": 0.9, "ent_coef": 0.0},
}
LEARNING_RATE = {"zoo": 1e-3, "ours": 2e-3}  # falls linearly to 0


class Reach(BaseCallback):
    """Stops after any step at which the last 100 training episodes have a mean reward of `target`."""

    def __init__(self, target: float):
        super().__init__()
        self.target = target
        self.reached = False
        self.running = numpy.zeros(ENVS)
        self.returns = collections.deque(maxlen=100)

    def _on_step(self) -> bool:
        self.running += self.locals["rewards"]
        for row in numpy.flatnonzero(self.locals["dones"]):
            self.returns.append(self.running[row])
            self.running[row] = 0.0
            if len(self.returns) == 100:
                self.reached = sum(self.returns) / 100 >= self.target
        return not self.reached


class Clock(BaseCallback):
    """Notes the timesteps so far, the time and the process's CPU time at the start of each rollout."""

    def __init__(self):
        super().__init__()
        self.marks = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self.marks.append((self.num_timesteps, time.perf_counter(), time.process_time()))


def build(arguments: argparse.Namespace):
    """The model, not yet trained."""
    rate = LEARNING_RATE[arguments.settings]
    clip = {"clip_range": lambda remaining: 0.2 * remaining} if arguments.settings == "zoo" else {}
    if arguments.library == "sbx":
        clip = {}  # it takes a number only: its default is 0.2
    return importlib.import_module(MODULES[arguments.library]).PPO(
        "MlpPolicy",
        DummyVecEnv([lambda: gymnasium.make("CartPole-v1", disable_env_checker=True)] * ENVS),
        learning_rate=lambda remaining: rate * remaining,
        seed=arguments.seed,
        device="cpu",
        **clip,
        **SETTINGS[arguments.settings],
    )


def time_to(arguments: argparse.Namespace) -> dict:
    importlib.import_module(MODULES[arguments.library])
    imported = time.perf_counter()
    model = build(arguments)
    reach = Reach(arguments.target)
    model.learn(TIMESTEPS, callback=reach)
    return {
        "reached": reach.reached,
        "seconds": time.perf_counter() - STARTED,
        "timesteps": model.num_timesteps,
        "import_s": imported - STARTED,
    }


def steady(arguments: argparse.Namespace) -> dict:
    model = build(arguments)
    clock = Clock()
    model.learn(arguments.warm_up + arguments.timesteps, callback=clock)
    marks = [mark for mark in clock.marks if mark[0] >= arguments.warm_up]
    steps, seconds, cpu_seconds = (last - first for first, last in zip(marks[0], marks[-1], strict=True))
    return {"steps_per_second": steps / seconds, "steps_per_cpu_second": steps / cpu_seconds, "timesteps": steps}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", choices=list(MODULES), default="sb3")
    parser.add_argument("--settings", choices=list(SETTINGS), default="zoo")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", type=float, default=400.0)
    parser.add_argument("--threads", type=int, default=None, help="PyTorch's threads; its own choice by default")
    parser.add_argument("--steady", action="store_true", help="measure steps per second instead")
    parser.add_argument("--warm-up", type=int, default=5_120)
    parser.add_argument("--timesteps", type=int, default=25_600, help="of the steady measurement")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    print(json.dumps(steady(arguments) if arguments.steady else time_to(arguments)), flush=True)
