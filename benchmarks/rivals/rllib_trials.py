"""Ray Tune with RLlib's PPO on CartPole-v1: trials of some timesteps, as many at a time as this machine has cores.

    .rivals/rllib/bin/python benchmarks/rivals/rllib_trials.py 2 100000

The settings are those of our `cartpole-ppo`. Prints one JSON line: the seconds on a cluster that runs.
"""

import json
import sys
import time

import ray
from ray import tune
from ray.rllib.algorithms.ppo import PPOConfig

if __name__ == "__main__":
    trials, timesteps = int(sys.argv[1]), int(sys.argv[2])
    ray.init(log_to_driver=False)
    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=8)
        .training(
            train_batch_size_per_learner=512,
            minibatch_size=128,
            num_epochs=5,
            gamma=0.98,
            lambda_=0.9,
            lr=tune.grid_search([1e-4 * (trial + 1) for trial in range(trials)]),
        )
    )
    stop = {"num_env_steps_sampled_lifetime": timesteps}
    began = time.perf_counter()
    results = tune.Tuner("PPO", param_space=config, run_config=tune.RunConfig(stop=stop, verbose=0)).fit()
    assert not results.errors, results.errors
    reached = [result.metrics["num_env_steps_sampled_lifetime"] for result in results]
    print(json.dumps({"seconds": time.perf_counter() - began, "timesteps": reached}), flush=True)
    ray.shutdown()
