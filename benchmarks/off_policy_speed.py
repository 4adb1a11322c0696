"""Steady steps per second of DQN and SAC on one environment with an update a step: Athlete and its rivals, alternating.

    benchmarks/setup_rivals.sh sb3 sbx
    python benchmarks/off_policy_speed.py [--only hosted-dqn hosted-sac compiled-dqn utd] [--json FILE]

hosted-dqn    DQN on Gymnasium's CartPole-v1 against Stable-Baselines3 and sbx
hosted-sac    SAC on Gymnasium's Pendulum-v1 against both, and against the floor that its operations set
compiled-dqn  DQN on CartPole-v1 in JAX against Stable-Baselines3, which has Gymnasium's
utd           SAC with 1, 2 and 4 updates a step against both: the time of an update

All have equal hyperparameters. Importing, compiling and a warm-up are left out; each process gives the median of its
repeats, and the figure is the median over the processes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Any, NamedTuple

import flops
from manifest import add_speed_options, require_idle, rival_python, write_manifest
from processes import run_cold

NAMES = ["hosted-dqn", "hosted-sac", "compiled-dqn", "utd"]
UPDATES = [1, 2, 4]
# PyTorch's thread that waits for another one spins. Products of DQN's size lose by sharing; those of SAC win a third on
# two idle cores and lose most of their speed on busy ones, so that both numbers play.
SAC_THREADS = [1, 2]


class Match(NamedTuple):
    """Commands to compare, and how many times as fast as each rival ours has to be."""

    title: str
    ours: list[str]
    rivals: dict[str, list[str]]
    to_reach: dict[str, float]
    updates: int = 1  # after each step
    of_sac: bool = False


def ours(algorithm: str, *more: str) -> list[str]:
    return [sys.executable, "benchmarks/ours_off_policy.py", "--algorithm", algorithm, *more]


def rival(library: str, algorithm: str, *more: str) -> list[str]:
    script = "benchmarks/rivals/sb3_off_policy.py"
    return [rival_python(library), script, "--library", library, "--algorithm", algorithm, *more]


def hosted_dqn() -> Match:
    rivals = {"sb3": rival("sb3", "DQN", "--threads", "1"), "sbx": rival("sbx", "DQN")}
    return Match("hosted DQN on CartPole", ours("DQN"), rivals, {"sb3": 8.0, "sbx": 8.0})


def compiled_dqn() -> Match:
    mine = ours("DQN", "--backend", "jax", "--timesteps", "20000")
    rivals = {"sb3": rival("sb3", "DQN", "--threads", "1")}
    return Match("compiled DQN on CartPole", mine, rivals, {"sb3": 20.0})


def sac_rivals(threads: list[int], *more: str) -> dict[str, list[str]]:
    torch_ones = {f"sb3 ({number} threads)": rival("sb3", "SAC", "--threads", str(number), *more) for number in threads}
    return {**torch_ones, "sbx": rival("sbx", "SAC", *more)}


def hosted_sac(threads: list[int]) -> Match:
    rivals = sac_rivals(threads)
    to_reach = {name: 1.2 if name == "sbx" else 2.0 for name in rivals}
    return Match("hosted SAC on Pendulum", ours("SAC"), rivals, to_reach, of_sac=True)


def updates_to_data(threads: list[int], updates: int) -> Match:
    timesteps = ["--timesteps", str(200 // updates)]
    mine = ours("SAC", "--updates", str(updates), *timesteps)
    rivals = sac_rivals(threads, "--gradient-steps", str(updates), *timesteps)
    return Match(f"hosted SAC on Pendulum, updates a step: {updates}", mine, rivals, {}, updates, of_sac=True)


def chosen(names: list[str], threads: list[int]) -> list[Match]:
    """The matches of these names, in the order of `NAMES`; Stable-Baselines3's SAC once with each number of threads."""
    matches = []
    if "hosted-dqn" in names:
        matches.append(hosted_dqn())
    if "hosted-sac" in names:
        matches.append(hosted_sac(threads))
    if "compiled-dqn" in names:
        matches.append(compiled_dqn())
    if "utd" in names:
        matches += [updates_to_data(threads, updates) for updates in UPDATES]
    return matches


def play(match: Match, rounds: int) -> dict[str, Any]:
    """Run all commands alternately; print and return medians and their ratios."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ["ours", *match.rivals]}
    for _ in range(rounds):
        runs["ours"].append(run_cold(match.ours))
        for name, command in match.rivals.items():
            runs[name].append(run_cold(command))
    speeds = {name: statistics.median(run["steps_per_second"] for run in results) for name, results in runs.items()}
    of_cpu = {name: statistics.median(run["steps_per_cpu_second"] for run in results) for name, results in runs.items()}
    update_ms = {name: 1e3 / (speed * match.updates) for name, speed in speeds.items()}
    print(f"{match.title}: ours {speeds['ours']:,.0f} steps/s, {update_ms['ours']:.2f} ms per update", flush=True)
    ratios = {}
    for name in match.rivals:
        ratios[name] = speeds["ours"] / speeds[name]
        to_reach = f" (to reach: {match.to_reach[name]:g})" if name in match.to_reach else ""
        print(
            f"  {name} {speeds[name]:,.0f} steps/s, {update_ms[name]:.2f} ms: ratio {ratios[name]:.2f}{to_reach}; "
            f"ratio per CPU second {of_cpu['ours'] / of_cpu[name]:.2f}",
            flush=True,
        )
    return {
        "title": match.title,
        "median_steps_per_second": speeds,
        "ratios": ratios,
        "median_steps_per_cpu_second": of_cpu,
        "median_ms_per_update": update_ms,
        "runs": runs,
    }


def sac_floor() -> dict[str, Any]:
    """Milliseconds that the products of a SAC update take at this machine's best, on one core and on all."""
    operations = flops.sac_update(256, 3, 1, [256, 256])
    gflops = {
        "one core": run_cold([sys.executable, "benchmarks/flops.py", "--cores", "1"])["gflops"],
        "all cores": run_cold([sys.executable, "benchmarks/flops.py"])["gflops"],
    }
    return {
        "operations": operations,
        "gflops": gflops,
        "ms": {on: operations / speed / 1e6 for on, speed in gflops.items()},
    }


def tell_floor(floor: dict[str, Any], figures: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Print and return the fraction of the floor that each contestant reaches: 1 is as fast as products alone allow."""
    fractions = {
        name: {on: floor_ms / update_ms for on, floor_ms in floor["ms"].items()}
        for name, update_ms in figures["median_ms_per_update"].items()
    }
    print(f"  floor: an update has {floor['operations'] / 1e6:.0f} MFLOP in its products", flush=True)
    for on, floor_ms in floor["ms"].items():
        reached = ", ".join(f"{name} {fraction[on]:.0%}" for name, fraction in fractions.items())
        print(f"    {on}: {floor['gflops'][on]:.0f} GFLOPS, {floor_ms:.2f} ms; reached: {reached}", flush=True)
    return fractions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="all by default")
    parser.add_argument(
        "--sac-threads", type=int, nargs="+", default=SAC_THREADS, help="PyTorch's threads in Stable-Baselines3's SAC"
    )
    add_speed_options(parser)
    arguments = parser.parse_args()
    require_idle(arguments)

    matches = chosen(arguments.only, arguments.sac_threads)
    floor = sac_floor() if any(match.of_sac for match in matches) else None
    figures = []
    for match in matches:
        figure = play(match, arguments.rounds)
        if floor is not None and match.of_sac:
            figure["fraction_of_floor"] = tell_floor(floor, figure)
        figures.append(figure)
    if arguments.json:
        libraries = sorted({name.split()[0] for match in matches for name in match.rivals})
        interpreters = {"athlete": sys.executable} | {name: rival_python(name) for name in libraries}
        write_manifest(arguments.json, figures, interpreters, rounds=arguments.rounds, sac_floor=floor)


if __name__ == "__main__":
    main()
