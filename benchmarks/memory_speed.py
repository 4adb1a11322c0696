"""What memory costs: a step of PPO with a network that remembers beside one with a feed-forward network.

    python benchmarks/memory_speed.py

All train on CartPole without velocities with equal settings, in turn, compiled. Seconds are those of the processor,
which do not count what other programs take: medians over `ROUNDS` of an iteration each, after one that compiles.
At equal width a GRU has six products where a feed-forward layer has one; the wider feed-forward network has as many.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from manifest import write_manifest

from athlete.algorithms.ppo import PPOConfig

ROUNDS = 9
ITERATION = 16_384  # timesteps
SETTINGS = {"num_envs_per_worker": 8, "train_batch_size": 2048, "minibatch_size": 256, "num_epochs": 10}
MODELS = {
    "feed-forward": {"fcnet_hiddens": [64, 64]},
    "feed-forward, as many weights as the GRU": {"fcnet_hiddens": [156, 156]},
    "GRU": {"fcnet_hiddens": [64], "use_gru": True, "gru_cell_size": 64},
    "LSTM": {"fcnet_hiddens": [64], "use_lstm": True, "lstm_cell_size": 64},
    "GTrXL": {
        "fcnet_hiddens": [64],
        "use_attention": True,
        "attention_memory_inference": 16,
    },
}


def main() -> None:
    algorithms = {
        name: PPOConfig.from_dict({**SETTINGS, "env": "StatelessCartPole-v1", "model": model, "seed": 0}).build(
            min_sample_timesteps_per_iteration=ITERATION
        )
        for name, model in MODELS.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in MODELS}
    for round_ in range(ROUNDS + 1):
        for name, algorithm in algorithms.items():
            start = time.process_time()
            algorithm.train()
            if round_:
                seconds[name].append(time.process_time() - start)
    microseconds = {name: round(1e6 * statistics.median(taken) / ITERATION, 2) for name, taken in seconds.items()}
    ratios = {name: round(taken / microseconds["feed-forward"], 2) for name, taken in microseconds.items()}
    figures = {"median_microseconds_a_step": microseconds, "ratios": ratios}
    path = Path(__file__).parent / "results" / "memory-speed.json"
    write_manifest(path, figures, {"athlete": sys.executable}, settings=SETTINGS, models=MODELS, seconds=seconds)
    print(f"{figures} -> {path}")


if __name__ == "__main__":
    main()
