"""A training whose workers are in a Ray cluster, where there is one: python examples/cluster.py

On a machine of a cluster, or with RAY_ADDRESS set to one, workers are actors on its nodes; elsewhere they are processes
of this machine. The page "On a cluster" of the documentation says how clusters begin.
"""

from __future__ import annotations

import argparse

from athlete.algorithms.appo import APPOConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--timesteps", type=int, default=200_000)
    parser.add_argument("--ray", default="auto", help="the address of a cluster, such as ray://host:10001")
    arguments = parser.parse_args()
    config = APPOConfig().environment("CartPole-v1", backend="gymnasium").debugging(seed=0)
    config.rollouts(num_rollout_workers=arguments.workers, num_envs_per_worker=4)
    config.resources(ray=arguments.ray, placement_strategy="SPREAD")
    with config.build() as algo:
        result = algo.learn(total_timesteps=arguments.timesteps, progress_bar=True)
    print(
        f"{result['timesteps_total']} timesteps, mean reward {result['episode_reward_mean']:.1f}; "
        f"{result['num_healthy_workers']} workers, {result['num_remote_worker_restarts']} begun anew, "
        f"policies {result['policy_lag']:.1f} updates old"
    )


if __name__ == "__main__":
    main()
