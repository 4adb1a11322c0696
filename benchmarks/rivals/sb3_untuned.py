"""Stable-Baselines3's algorithm with its defaults on one Gymnasium environment: one JSON line.

    PYTHON benchmarks/rivals/sb3_untuned.py DQN CartPole-v1 100000 1000      # algorithm, environment, timesteps, seed

Greedy mean return over 20 episodes, and the seconds of training.
"""

from __future__ import annotations

import json
import sys
import time

import gymnasium
import stable_baselines3
import torch
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor


def main() -> None:
    algorithm, environment, timesteps, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    model = getattr(stable_baselines3, algorithm)("MlpPolicy", environment, seed=seed, device="cpu")
    start = time.time()
    model.learn(timesteps)
    seconds = round(time.time() - start, 1)
    evaluation_env = Monitor(gymnasium.make(environment))
    evaluation_env.reset(seed=seed + 10_000)
    mean, _ = evaluate_policy(model, evaluation_env, n_eval_episodes=20, deterministic=True)
    print(json.dumps({"evaluation": round(float(mean), 3), "seconds": seconds}))


if __name__ == "__main__":
    main()
