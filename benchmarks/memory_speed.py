"""What memory costs: a step of PPO with a network that remembers beside one with a feed-forward network.

    python benchmarks/memory_speed.py [--json FILE]

All train with equal settings, in turn: compiled on CartPole without velocities, and on Gymnasium's CartPole, whose
steps cost as much with memory as without. Seconds are those of the processor, which do not count what other programs
take: medians over `--rounds` of an iteration each, after one that compiles. At equal width a GRU has six products where
a feed-forward layer has one, and with networks of its own for policy and value (the default) twice as many as with one
(`vf_share_layers`); the wider feed-forward network has as many weights as the GRU.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

from manifest import add_speed_options, require_idle, write_manifest

from athlete.algorithms.ppo import PPOConfig

SETTINGS = {"num_envs_per_worker": 8, "train_batch_size": 2048, "minibatch_size": 256, "num_epochs": 10}
MODES = {  # settings and timesteps of an iteration
    "compiled": ({"env": "StatelessCartPole-v1"}, 16_384),
    "Gymnasium": ({"env": "CartPole-v1", "backend": "gymnasium"}, 4_096),
}
MODELS = {
    "feed-forward": {"fcnet_hiddens": [64, 64]},
    "feed-forward, as many weights as the GRU": {"fcnet_hiddens": [156, 156]},
    "GRU": {"fcnet_hiddens": [64], "use_gru": True, "gru_cell_size": 64},
    "GRU, shared by policy and value": {
        "fcnet_hiddens": [64],
        "use_gru": True,
        "gru_cell_size": 64,
        "vf_share_layers": True,
    },
    "LSTM": {"fcnet_hiddens": [64], "use_lstm": True, "lstm_cell_size": 64},
    "LSTM, shared by policy and value": {
        "fcnet_hiddens": [64],
        "use_lstm": True,
        "lstm_cell_size": 64,
        "vf_share_layers": True,
    },
    "GTrXL": {
        "fcnet_hiddens": [64],
        "use_attention": True,
        "attention_memory_inference": 16,
    },
}


def measure(mode: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round's iteration, for each network."""
    environment, timesteps = MODES[mode]
    algorithms = {
        name: PPOConfig.from_dict({**SETTINGS, **environment, "model": model, "seed": 0, "logdir": False}).build(
            min_sample_timesteps_per_iteration=timesteps
        )
        for name, model in MODELS.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in MODELS}
    for round_ in range(rounds + 1):
        for name, algorithm in algorithms.items():
            start = time.process_time()
            algorithm.train()
            if round_:
                seconds[name].append(time.process_time() - start)
    for algorithm in algorithms.values():
        algorithm.stop()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_speed_options(parser, rounds=9)
    arguments = parser.parse_args()
    require_idle(arguments)
    seconds = {mode: measure(mode, arguments.rounds) for mode in MODES}
    figures: dict[str, dict] = {"median_microseconds_a_step": {}, "ratios": {}}
    for mode, (_, timesteps) in MODES.items():
        taken = {name: 1e6 * statistics.median(rounds) / timesteps for name, rounds in seconds[mode].items()}
        figures["median_microseconds_a_step"][mode] = {name: round(median, 2) for name, median in taken.items()}
        figures["ratios"][mode] = {name: round(median / taken["feed-forward"], 2) for name, median in taken.items()}
    print(figures)
    if arguments.json:
        more = {"settings": SETTINGS, "models": MODELS, "seconds": seconds}
        write_manifest(arguments.json, figures, {"athlete": sys.executable}, **more)


if __name__ == "__main__":
    main()
