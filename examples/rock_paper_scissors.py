"""RLlib's example: rock, paper, scissors against a player who repeats himself, or who copies what would have won.

    python examples/rock_paper_scissors.py

In each episode of ten rounds the opponent either plays one move all the time or beats one's own last move; which of
the two has to be found out in the first rounds. RLlib reaches about 5 of 10 without a memory and 7 with one.
"""

from __future__ import annotations

import argparse
from typing import Any

import jax
import jax.numpy as jnp

from athlete import PolicySpec
from athlete.algorithms import PPOConfig
from athlete.algorithms.fixed import Fixed
from athlete.core import Array, Key, Tree, hyper


@hyper
class SameOrBeatLast(Fixed):
    """In each episode one of RLlib's heuristics: `AlwaysSameHeuristic` or `BeatLastHeuristic`."""

    def start(self, view: Tree, rows: int, key: Key) -> Tree:
        return jnp.zeros(rows, bool), jnp.zeros(rows, jnp.int32)

    def act(self, view: Tree, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        kind_key, move_key = jax.random.split(key)
        same = jnp.where(first, jax.random.bernoulli(kind_key, 0.5, first.shape), carry[0])
        move = jnp.where(first, jax.random.randint(move_key, first.shape, 0, 3), carry[1])
        return jnp.where(same, move, (obs + 1) % 3), (same, move), {}


def config_of(timesteps: int, memory: bool, seed: int) -> PPOConfig:
    """PPO on the first seat, with a network that remembers or without."""
    model: dict[str, Any] = {"fcnet_hiddens": [64], "use_gru": memory, "gru_cell_size": 64, "max_seq_len": 10}
    return (
        PPOConfig()
        .environment("RockPaperScissors-v0", normalize_rewards=False)
        .rollouts(num_envs_per_worker=32, rollout_fragment_length=20)
        .training(train_batch_size=640, minibatch_size=160, num_epochs=5, gamma=0.9, lambda_=0.9, model=model)
        .training(lr=[[0, 3e-3], [timesteps, 0.0]], entropy_coeff=[[0, 0.02], [timesteps, 0.0]])
        .multi_agent(
            policies={"learned": None, "opponent": PolicySpec(policy_class=SameOrBeatLast)},
            policy_mapping_fn={"player_0": "learned", "player_1": "opponent"},
        )
        .reporting(min_sample_timesteps_per_iteration=10_240)
        .evaluation(evaluation_duration=1000)
        .debugging(seed=seed)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=200_000)
    parser.add_argument("--without-memory", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with config_of(arguments.timesteps, not arguments.without_memory, arguments.seed).build() as algo:
        result = algo.train()
        while result["timesteps_total"] < arguments.timesteps:
            result = algo.train()
            print(f"{result['timesteps_total']:7d}: {result['policy_reward_mean']['learned']:.2f} of 10")
        reached = algo.evaluate()["evaluation"]["policy_reward_mean"]["learned"]
        print(f"greedy over 1000 episodes: {reached:.2f} of 10")


if __name__ == "__main__":
    main()
