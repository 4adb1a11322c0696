"""Learning from replay: SAC swings up a pendulum, is stopped, and goes on.

    python examples/replay.py

Trains with a chosen exploration and memory, evaluates, saves a checkpoint with the memory in it, goes on from it in a
new object, and films an episode. `docs/replay.md` explains the settings.
"""

from __future__ import annotations

import argparse

import athlete
from athlete import Algorithm
from athlete.algorithms.sac import SACConfig


def make_config() -> SACConfig:
    return (
        SACConfig()
        .environment("Pendulum-v1")
        .training(
            actor_lr=1e-3,
            critic_lr=1e-3,
            alpha_lr=1e-3,
            num_steps_sampled_before_learning_starts=1000,
            replay_buffer_config={
                "type": "PrioritizedReplayBuffer",
                "capacity": 20_000,
                "prioritized_replay_beta": [[0, 0.4], [20_000, 1.0]],
            },
        )
        .exploration(exploration_config={"random_timesteps": 500})  # then SAC samples its own policy
        .evaluation(evaluation_duration=20)
        .debugging(seed=0)
    )


def train_until(algo: Algorithm, timesteps: int) -> None:
    """Train to that many timesteps, with a line for each result."""
    total = 0
    while total < timesteps:
        result = algo.train()
        total = result["timesteps_total"]
        learned = result["info"]["learner"]["default_policy"]["learner_stats"]
        reward, alpha = result["episode_reward_mean"], learned["alpha_value"]
        print(f"{total:6,} steps, reward {reward:8.1f}, temperature {alpha:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=10_000)
    parser.add_argument("--folder", default="athlete_results/replay")
    arguments = parser.parse_args()

    chance = athlete.baseline("Pendulum-v1", episodes=100)
    print("random actions earn", round(chance.episode_reward_mean, 1))

    with make_config().build() as algo:
        train_until(algo, arguments.timesteps // 2)
        path = algo.save(arguments.folder)  # parameters, optimisers and the memory

    with Algorithm.from_checkpoint(path) as algo:
        print("going on from", path)
        train_until(algo, arguments.timesteps)
        measured = algo.evaluate()["evaluation"]
        print("greedily it earns", round(measured["episode_reward_mean"], 1))
        print("film:", *algo.record_video(arguments.folder, episodes=1))


if __name__ == "__main__":
    main()
