"""Stable-Baselines3's PPO on CartPole-v1 with RL-Zoo's settings: time to a mean reward of 400, or steady speed.

    .rivals/sb3/bin/python benchmarks/rivals/sb3_cartpole.py --seed 0
    .rivals/sb3/bin/python benchmarks/rivals/sb3_cartpole.py --steady

Prints one JSON line at the moment of reaching; whoever starts the process takes the wall time up to that line.
"""

import time

STARTED = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402

import torch  # noqa: E402
from stable_baselines3 import PPO  # noqa: E402
from stable_baselines3.common.callbacks import BaseCallback  # noqa: E402
from stable_baselines3.common.env_util import make_vec_env  # noqa: E402

IMPORTED = time.perf_counter()

TIMESTEPS = 100_000
ZOO = {"n_steps": 32, "batch_size": 256, "n_epochs": 20, "gamma": 0.98, "gae_lambda": 0.8, "ent_coef": 0.0}


class Reach(BaseCallback):
    """Stops after any step at which the last 100 training episodes have a mean reward of `target`."""

    def __init__(self, target: float):
        super().__init__()
        self.target = target
        self.reached = False

    def _on_step(self) -> bool:
        episodes = self.model.ep_info_buffer  # the last 100
        if len(episodes) == 100 and any("episode" in info for info in self.locals["infos"]):
            self.reached = sum(episode["r"] for episode in episodes) / 100 >= self.target
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


def build(seed: int) -> PPO:
    return PPO(
        "MlpPolicy",
        make_vec_env("CartPole-v1", n_envs=8, seed=seed),  # DummyVecEnv, each env in a Monitor
        learning_rate=lambda remaining: 1e-3 * remaining,
        clip_range=lambda remaining: 0.2 * remaining,
        seed=seed,
        device="cpu",
        **ZOO,
    )


def time_to(target: float, seed: int) -> dict:
    model = build(seed)
    reach = Reach(target)
    model.learn(TIMESTEPS, callback=reach)
    return {
        "reached": reach.reached,
        "seconds": time.perf_counter() - STARTED,
        "timesteps": model.num_timesteps,
        "import_s": IMPORTED - STARTED,
    }


def steady(seed: int, warm_up: int, timesteps: int) -> dict:
    model = build(seed)
    clock = Clock()
    model.learn(warm_up + timesteps, callback=clock)
    marks = [mark for mark in clock.marks if mark[0] >= warm_up]
    steps, seconds, cpu_seconds = (last - first for first, last in zip(marks[0], marks[-1], strict=True))
    return {"steps_per_second": steps / seconds, "steps_per_cpu_second": steps / cpu_seconds, "timesteps": steps}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", type=float, default=400.0)
    parser.add_argument("--threads", type=int, default=None, help="PyTorch's threads; its own choice by default")
    parser.add_argument("--steady", action="store_true", help="measure steps per second instead")
    parser.add_argument("--warm-up", type=int, default=5_120)
    parser.add_argument("--timesteps", type=int, default=25_600, help="of the steady measurement")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.steady:
        figures = steady(arguments.seed, arguments.warm_up, arguments.timesteps)
    else:
        figures = time_to(arguments.target, arguments.seed)
    print(json.dumps(figures), flush=True)
