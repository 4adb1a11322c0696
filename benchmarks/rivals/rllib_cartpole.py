"""RLlib's PPO with its defaults on CartPole-v1: time to a mean reward of 400 over the last 100 training episodes.

    .rivals/rllib/bin/python benchmarks/rivals/rllib_cartpole.py --seed 0

Prints one JSON line at the moment of reaching; whoever starts the process takes the wall time up to that line.
"""

import time

STARTED = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402

import ray  # noqa: E402
from ray.rllib.algorithms.ppo import PPOConfig  # noqa: E402

IMPORTED = time.perf_counter()

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", type=float, default=400.0)
    parser.add_argument("--timesteps", type=int, default=200_000, help="give up after these")
    arguments = parser.parse_args()

    algorithm = PPOConfig().environment("CartPole-v1").debugging(seed=arguments.seed).build_algo()
    built = time.perf_counter()
    timesteps, reached = 0, False
    while timesteps < arguments.timesteps and not reached:
        runners = algorithm.train()["env_runners"]
        timesteps = int(runners["num_env_steps_sampled_lifetime"])
        # The mean is over the last 100 episodes by default; there are far more than 100 before it comes near 400.
        reached = runners.get("episode_return_mean", 0.0) >= arguments.target
    figures = {
        "reached": bool(reached),
        "seconds": time.perf_counter() - STARTED,
        "timesteps": timesteps,
        "import_s": IMPORTED - STARTED,
        "build_s": built - IMPORTED,
    }
    print(json.dumps(figures), flush=True)
    algorithm.stop()
    ray.shutdown()
