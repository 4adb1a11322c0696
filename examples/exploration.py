"""Where rewards are rare: DQN with and without a bonus for what is new, on Deep Sea.

    python examples/exploration.py

The treasure lies at the end of one way out of 2 ** 20, and every step on that way costs a little. `--bonus` chooses
what the agent rewards itself for: RND, Curiosity or Counts. `docs/exploration-bonuses.md` explains them.
"""

from __future__ import annotations

import argparse

from athlete.algorithms.dqn import DQNConfig

ETA = {"RND": 0.5, "Curiosity": 0.1, "Counts": 0.1}  # the weight of a bonus, which each has on a scale of its own


def make_config(bonus: str | None, size: int) -> DQNConfig:
    config = DQNConfig().environment("DeepSea-v0", env_config={"size": size}).debugging(seed=0)
    config.training(
        double_q=False,
        dueling=False,
        training_intensity=8,
        target_network_update_freq=100,
        replay_buffer_config={"type": "ReplayBuffer", "capacity": 50_000},
        model={"fcnet_hiddens": [64, 64], "fcnet_activation": "relu"},
    )
    config.rollouts(rollout_fragment_length=16)
    return config if bonus is None else config.exploration(exploration_config={"type": bonus, "eta": ETA[bonus]})


def explore(bonus: str | None, size: int, timesteps: int) -> float:
    """The greedy return after training: 0.99 with the treasure, 0 at best without."""
    with make_config(bonus, size).build(min_sample_timesteps_per_iteration=timesteps // 10) as algo:
        result = algo.train()
        while result["timesteps_total"] < timesteps:
            result = algo.train()
            print(f"{bonus}: {result['timesteps_total']:7,} steps, reward {result['episode_reward_mean']:6.3f}")
        return algo.evaluate(episodes=1)["evaluation"]["episode_reward_mean"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bonus", default="RND", choices=["RND", "Curiosity", "Counts"])
    parser.add_argument("--size", type=int, default=20)
    parser.add_argument("--timesteps", type=int, default=150_000)
    arguments = parser.parse_args()
    for bonus in (arguments.bonus, None):
        found = explore(bonus, arguments.size, arguments.timesteps)
        print(f"{bonus or 'no bonus'}: {found:.2f} greedily; 0.99 is the best")


if __name__ == "__main__":
    main()
