"""The random policy on CartPole-v1, 60 000 episodes: Athlete's baseline against a plain Gymnasium loop.

    python benchmarks/random_baseline.py [--json FILE]

Both run as whole processes, alternating; the figure is the wall time from process start to the printed result.
"""

from __future__ import annotations

import argparse
import statistics
import sys

from manifest import add_speed_options, require_idle, write_manifest
from processes import run_cold

OURS = """
import json, athlete
result = athlete.baseline("CartPole-v1", episodes={episodes}, seed={seed})
print(json.dumps({{"mean": result.episode_reward_mean}}), flush=True)
"""

GYMNASIUM = """
import json, gymnasium
env = gymnasium.make("CartPole-v1")
env.action_space.seed({seed})
env.reset(seed={seed})
total = 0.0
for _ in range({episodes}):
    env.reset()
    done = False
    while not done:
        _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        total += reward
        done = terminated or truncated
print(json.dumps({{"mean": total / {episodes}}}), flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=60_000)
    add_speed_options(parser, rounds=3)
    arguments = parser.parse_args()
    require_idle(arguments)

    seconds: dict[str, list[float]] = {"athlete": [], "gymnasium loop": []}
    means: dict[str, list[float]] = {"athlete": [], "gymnasium loop": []}
    for seed in range(arguments.rounds):
        for name, program in (("athlete", OURS), ("gymnasium loop", GYMNASIUM)):
            code = program.format(episodes=arguments.episodes, seed=seed)
            figures = run_cold([sys.executable, "-c", code])
            seconds[name].append(figures["wall_s"])
            means[name].append(figures["mean"])
            print(f"{name:15} seed {seed}: {figures['wall_s']:6.2f} s, mean return {figures['mean']:.2f}", flush=True)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = medians["gymnasium loop"] / medians["athlete"]
    print(
        f"{arguments.episodes:,} episodes, median: athlete {medians['athlete']:.2f} s, "
        f"loop {medians['gymnasium loop']:.2f} s, ratio {ratio:.1f} (to reach: 15)"
    )
    if arguments.json:
        figures = {"seconds": seconds, "mean_return": means, "median_seconds": medians, "ratio": ratio}
        write_manifest(arguments.json, figures, {"athlete": sys.executable}, range(arguments.rounds))


if __name__ == "__main__":
    main()
