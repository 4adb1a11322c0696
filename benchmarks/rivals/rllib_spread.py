"""RLlib's PPO with one policy for all agents of PettingZoo's spread: an iteration for each line that comes in.

    .rivals/rllib/bin/python benchmarks/rivals/rllib_spread.py --rows 16 < lines

Prints a JSON line with the environment steps of the iteration and its seconds. The environment runs in this process,
which is RLlib's fastest way where environments are so cheap. Needs mpe2 and PettingZoo beside RLlib.
"""

import argparse
import json
import sys
import time

import ray
from mpe2 import simple_spread_v3
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
from ray.tune.registry import register_env

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--minibatch", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()

    register_env("spread", lambda config: ParallelPettingZooEnv(simple_spread_v3.parallel_env()))
    config = (
        PPOConfig()
        .environment("spread")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=arguments.rows)
        .training(
            train_batch_size_per_learner=arguments.batch,
            minibatch_size=arguments.minibatch,
            num_epochs=arguments.epochs,
        )
        .multi_agent(policies={"shared"}, policy_mapping_fn=lambda agent, *_, **__: "shared")
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[64, 64]))
        .debugging(seed=0, log_level="ERROR")
    )
    algorithm = config.build_algo()
    before = 0
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        runners = algorithm.train()["env_runners"]
        total = int(runners["num_env_steps_sampled_lifetime"])
        seconds = {"wall_s": time.perf_counter() - wall, "processor_s": time.process_time() - processor}
        print(json.dumps({"steps": total - before, **seconds}), flush=True)
        before = total
    algorithm.stop()
    ray.shutdown()
