"""Athlete's DQN on CartPole-v1 and SAC on Pendulum-v1, one environment, an update a step: steady steps per second.

    python benchmarks/ours_off_policy.py --algorithm DQN [--backend jax]
    python benchmarks/ours_off_policy.py --algorithm SAC --updates 2

Prints one JSON line: the median of the repeats. Importing, compiling and a warm-up are left out. The settings are those
of `rivals/sb3_off_policy.py`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

TIMESTEPS = {"DQN": 4_000, "SAC": 500}  # of one repeat
LEARNING_STARTS = {"DQN": 1_000, "SAC": 256}


def dqn_config() -> Any:
    from athlete.algorithms.dqn import DQNConfig

    return (
        DQNConfig()
        .environment("CartPole-v1")
        .training(
            train_batch_size=64,
            lr=1e-3,
            gamma=0.99,
            n_step=1,
            double_q=False,
            dueling=False,
            target_network_update_freq=500,
            num_steps_sampled_before_learning_starts=LEARNING_STARTS["DQN"],
            replay_buffer_config={"type": "ReplayBuffer", "capacity": 50_000},
            model={"fcnet_hiddens": [64, 64], "fcnet_activation": "relu"},
            grad_clip=10.0,
        )
        .exploration(
            exploration_config={
                "type": "EpsilonGreedy",
                "initial_epsilon": 1.0,
                "final_epsilon": 0.05,
                "epsilon_timesteps": 1_000,
            }
        )
    )


def sac_config(updates: int) -> Any:
    from athlete.algorithms.sac import SACConfig

    network = {"fcnet_hiddens": [256, 256], "fcnet_activation": "relu"}
    return (
        SACConfig()
        .environment("Pendulum-v1")
        .training(
            train_batch_size=256,
            training_intensity=256 * updates,  # transitions learned from for each one sampled
            actor_lr=1e-3,
            critic_lr=1e-3,
            alpha_lr=1e-3,
            gamma=0.99,
            tau=0.005,
            n_step=1,
            num_steps_sampled_before_learning_starts=LEARNING_STARTS["SAC"],
            replay_buffer_config={"type": "ReplayBuffer", "capacity": 100_000},
            policy_model_config=network,
            q_model_config=network,
        )
    )


def steady(arguments: argparse.Namespace, timesteps: int) -> dict[str, Any]:
    """Steps per second of `arguments.repeats` calls of `train()` of `timesteps` steps each, once learning has begun."""
    config = dqn_config() if arguments.algorithm == "DQN" else sac_config(arguments.updates)
    algorithm = (
        config.environment(backend=arguments.backend)
        .rollouts(num_envs_per_worker=1, rollout_fragment_length=1)
        .reporting(min_sample_timesteps_per_iteration=timesteps, logdir=False)
        .debugging(seed=arguments.seed)
        .build()
    )
    while algorithm.train()["timesteps_total"] <= LEARNING_STARTS[arguments.algorithm]:
        pass
    algorithm.train()  # the first whole iteration that learns may still compile something
    speeds, speeds_of_cpu = [], []
    for _ in range(arguments.repeats):
        started, cpu_started = time.perf_counter(), time.process_time()
        result = algorithm.train()
        speeds.append(result["timesteps_this_iter"] / (time.perf_counter() - started))
        speeds_of_cpu.append(result["timesteps_this_iter"] / (time.process_time() - cpu_started))
    return {
        "steps_per_second": statistics.median(speeds),
        "steps_per_cpu_second": statistics.median(speeds_of_cpu),
        "repeats": speeds,
        "timesteps": timesteps,
        "last_return": result["episode_reward_mean"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--algorithm", choices=list(TIMESTEPS), required=True)
    parser.add_argument("--backend", default="gymnasium", choices=["jax", "gymnasium"])
    parser.add_argument("--updates", type=int, default=1, help="SAC's updates after each step")
    parser.add_argument("--timesteps", type=int, help="steps of one repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.updates != 1 and arguments.algorithm != "SAC":
        parser.error("--updates is for SAC")
    timesteps = arguments.timesteps or TIMESTEPS[arguments.algorithm]
    print(json.dumps(steady(arguments, timesteps)), flush=True)


if __name__ == "__main__":
    main()
