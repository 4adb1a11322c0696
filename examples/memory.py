"""Memory: a cart that does not see velocities is balanced by a network that remembers.

    python examples/memory.py
    python examples/memory.py --memory gtrxl

Trains PPO with an LSTM that also sees its last action, with a GRU or with the transformer GTrXL, evaluates, and then
plays an episode by hand, step by step, with the state that the policy needs. `docs/configuration.md` explains the
settings.
"""

from __future__ import annotations

import argparse

import gymnasium

from athlete import Algorithm
from athlete.algorithms.ppo import PPOConfig

MEMORIES = {
    "lstm": {"use_lstm": True, "lstm_cell_size": 64, "lstm_use_prev_action": True},
    "gru": {"use_gru": True},
    "gtrxl": {"use_attention": True, "attention_dim": 32, "attention_memory_inference": 8, "fcnet_hiddens": []},
}


def make_config(memory: str) -> PPOConfig:
    return (
        PPOConfig()
        .environment("StatelessCartPole-v1")
        .training(lr=1e-3, num_epochs=5, train_batch_size=1024, model=MEMORIES[memory])
        .rollouts(observation_filter="MeanStdFilter")
        .debugging(seed=0)
    )


def play(algo: Algorithm) -> float:
    """One episode on Gymnasium's CartPole, of which the policy sees two of four numbers: its return."""
    env = gymnasium.make("CartPole-v1")
    observation, _ = env.reset(seed=0)
    state = algo.get_policy().get_initial_state()
    action, reward, total, done = None, None, 0.0, False
    while not done:
        # Networks without lstm_use_prev_action and lstm_use_prev_reward do not look at the last two.
        action, state, _ = algo.compute_single_action(
            observation[[0, 2]], state, prev_action=action, prev_reward=reward
        )
        observation, reward, terminated, truncated, _ = env.step(action)
        total, done = total + reward, terminated or truncated
    env.close()
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", choices=MEMORIES, default="lstm")
    parser.add_argument("--timesteps", type=int, default=200_000)
    arguments = parser.parse_args()
    with make_config(arguments.memory).build(min_sample_timesteps_per_iteration=arguments.timesteps // 10) as algo:
        steps = 0
        while steps < arguments.timesteps:
            result = algo.train()
            steps = result["timesteps_total"]
            print(f"{steps:7d} steps, return {result['episode_reward_mean']:.1f}")
        print(f"evaluation: {algo.evaluate()['evaluation']['episode_reward_mean']:.1f}")
        print(f"by hand: {play(algo):.1f}")


if __name__ == "__main__":
    main()
