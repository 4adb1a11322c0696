"""Steady steps per second of PPO on CartPole-v1, at equal hyperparameters: Athlete and its rivals, alternating.

    benchmarks/setup_rivals.sh sb3
    python benchmarks/steady_speed.py [--json FILE]

Compiled against a one-file scan program in PureJaxRL's method (`rivals/scan_ppo.py`), at three settings, and against
PureJaxRL's own code where `setup_rivals.sh purejaxrl` got it; hosted, on Gymnasium's own CartPole, against
Stable-Baselines3, neither with a Monitor or an environment checker. Importing, compiling and a warm-up are left out;
each process gives the median of its repeats, and the figure is the median over the processes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Any, NamedTuple

from manifest import RIVALS, add_speed_options, require_idle, rival_python, write_manifest
from processes import RIVAL_ENVIRONMENT, run_cold

OURS = "benchmarks/ours_cartpole.py"
SCAN = "benchmarks/rivals/scan_ppo.py"
PUREJAXRL = "benchmarks/rivals/purejaxrl_cartpole.py"
SHAPES = [(8, 32, 256, 20), (4, 128, 128, 4), (64, 128, 2048, 4)]  # environments, steps, minibatch, epochs


class Match(NamedTuple):
    """Two commands to compare, and how many times as fast ours has to be."""

    title: str
    ours: list[str]
    rival: list[str]
    to_reach: float


def compiled_match(rival: list[str], against: str, envs: int, steps: int, minibatch: int, epochs: int) -> Match:
    shape = f"--envs {envs} --steps {steps} --minibatch {minibatch} --epochs {epochs}".split()
    timesteps = str(max(20_480, 8 * envs * steps))
    return Match(
        f"compiled ({envs} envs, {steps} steps, minibatch {minibatch}, {epochs} epochs){against}",
        [sys.executable, OURS, "--steady", *shape, "--timesteps", timesteps],
        [*rival, *shape, "--timesteps", timesteps],
        1.0,
    )


def hosted_match() -> Match:
    return Match(
        "hosted on Gymnasium (8 envs, zoo settings) against Stable-Baselines3",
        [sys.executable, OURS, "--steady", "--backend", "gymnasium", "--timesteps", "5120"],
        [rival_python("sb3"), "benchmarks/rivals/sb3_cartpole.py", "--steady"],
        4.0,
    )


def play(match: Match, rounds: int) -> dict[str, Any]:
    """Run both commands alternately; print and return medians and their ratios."""
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "rival": []}
    for _ in range(rounds):
        runs["ours"].append(run_cold(match.ours))
        runs["rival"].append(run_cold(match.rival, RIVAL_ENVIRONMENT))
    medians = {name: statistics.median(run["steps_per_second"] for run in results) for name, results in runs.items()}
    of_cpu = {name: statistics.median(run["steps_per_cpu_second"] for run in results) for name, results in runs.items()}
    ratio, cpu_ratio = medians["ours"] / medians["rival"], of_cpu["ours"] / of_cpu["rival"]
    print(
        f"{match.title}: ours {medians['ours']:,.0f}, rival {medians['rival']:,.0f} steps/s, "
        f"ratio {ratio:.2f} (to reach: {match.to_reach:g}); ratio per CPU second {cpu_ratio:.2f}",
        flush=True,
    )
    return {
        "title": match.title,
        "median_steps_per_second": medians,
        "ratio": ratio,
        "median_steps_per_cpu_second": of_cpu,
        "cpu_ratio": cpu_ratio,
        "runs": runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["compiled", "purejaxrl", "hosted"])
    add_speed_options(parser)
    arguments = parser.parse_args()
    require_idle(arguments)

    interpreters = {"athlete": sys.executable}
    matches = []
    if arguments.only in (None, "compiled"):
        matches += [compiled_match([sys.executable, SCAN], "", *shape) for shape in SHAPES]
    if arguments.only == "purejaxrl" or (arguments.only is None and (RIVALS / "purejaxrl").exists()):
        interpreters["purejaxrl"] = rival_python("purejaxrl")
        own = [interpreters["purejaxrl"], PUREJAXRL]
        matches += [compiled_match(own, " against PureJaxRL's own code", *shape) for shape in SHAPES]
    if arguments.only in (None, "hosted"):
        interpreters["sb3"] = rival_python("sb3")
        matches.append(hosted_match())
    figures = [play(match, arguments.rounds) for match in matches]
    if arguments.json:
        write_manifest(arguments.json, figures, interpreters, rounds=arguments.rounds)


if __name__ == "__main__":
    main()
