"""Write the tables of `docs/benchmarks.md` and of the README from the manifests in `benchmarks/results`.

    python benchmarks/table.py

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; all else on the pages is written by hand.
`tests/test_figures.py` holds pages and manifests equal.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from athlete.ops.statistics import summarize

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "off-policy-estimation.md")
OPTIMA = {
    "masked-grid": "0.907",
    "mirror": "10",
    "contextual-bandit": "10",
    "wheel-bandit": "37.8",
    "deep-sea": "0.99",
    "memory-chain": "1",
    "frozen-lake-ppo": "0.74",
    "two-step-game": "8",
    "climbing-game": "275",
    "penalty-game": "250",
    "multi-agent-cartpole": "2,000, 500 for each of four",
}
MUJOCO = [
    *("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5"),
    *("Swimmer-v5", "Reacher-v5", "InvertedPendulum-v5", "InvertedDoublePendulum-v5"),
]
ONE_SETTING = "mujoco-ppo"
TRIALS = 16  # of `benchmarks/trials_speed.py`


def manifest(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def learned() -> dict[str, dict[str, Any]]:
    """The manifests of learning by their labels, sorted by algorithm and label."""
    found = {path.stem.removeprefix("learning-"): manifest(path.stem) for path in RESULTS.glob("learning-*.json")}
    return dict(sorted(found.items(), key=lambda item: (item[1]["algorithm"], item[0])))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    if len(lines) == 1:
        return "Nothing has been measured on fresh seeds yet."
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def number(value: float) -> str:
    """With as many digits as are worth reading: 2,609, 93.14, 0.907."""
    size = abs(value)
    digits = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 1 else 3
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text and digits < 3 else text


def reached(found: dict[str, Any]) -> list[str]:
    """Seeds, middle with its interval, and worst seed of a manifest."""
    figures = found["figures"]
    middle = (
        number(figures["interquartile_mean"])
        if "interquartile_mean" in figures
        else f"{number(figures['mean'])} (mean)"
    )
    interval = " to ".join(map(number, figures["interval_95"])) if figures["interval_95"] else "one seed"
    return [str(len(found["seeds"])), middle, interval, number(figures["worst"])]


HEAD = ["seeds", "interquartile mean", "95%", "worst seed"]


def tuned_table() -> str:
    """Every tuned example but the one setting for all of MuJoCo."""
    rows = []
    for label, found in learned().items():
        if label.endswith("-defaults") or "-without-" in label or label.startswith(ONE_SETTING):
            continue
        optimum = next((f" (optimum {best})" for name, best in OPTIMA.items() if label.startswith(name)), "")
        rows.append([f"`{label}`{optimum}", found["algorithm"], f"{found['timesteps']:,}", *reached(found)])
    return table(["", "algorithm", "timesteps", *HEAD], rows)


def defaults_table() -> str:
    """Algorithms with their defaults, and examples without one of their parts."""
    rows = []
    for label, found in learned().items():
        if label.endswith("-defaults"):
            rows.append(
                [f"{found['algorithm']}, defaults", found["environment"], f"{found['timesteps']:,}", *reached(found)]
            )
        elif "-without-" in label:
            example, _, without = label.partition("-without-")
            name = f"`{example}` without `{without.replace('-', '_')}`"
            rows.append([name, found["environment"], f"{found['timesteps']:,}", *reached(found)])
    return table(["", "environment", "timesteps", *HEAD], rows)


def mujoco_table() -> str:
    """PPO with one setting for all of MuJoCo, beside what others published."""
    published = json.loads((ROOT / "benchmarks" / "published.json").read_text(encoding="utf-8"))
    found = {each["environment"]: each for label, each in learned().items() if label.startswith(ONE_SETTING)}
    rows = []
    for environment in MUJOCO:
        if environment in found:
            seeds, middle, interval, worst = reached(found[environment])
            others = [published[name].get(environment, "") for name in ("CleanRL", "Tianshou")]
            rows.append([environment, seeds, f"**{middle}**", interval, worst, *others])
    return table(["", *HEAD, "CleanRL", "Tianshou, tuned"], rows)


def self_play_table() -> str:
    """Games of two: the shares that `main` wins and loses against players that do not learn."""
    rows = []
    for name, found in self_play().items():
        for player, worst in found["worst"].items():
            won = [run["against"][player]["win_rate"] for run in found["runs"]]
            shares = summarize(won).value, worst["win_rate"], worst["loss_rate"]
            seeds = str(len(found["seeds"]))
            rows.append([f"`{name}`", f"{found['timesteps']:,}", seeds, player, *(f"{share:.1%}" for share in shares)])
    head = ["", "timesteps", "seeds", "against", "wins, interquartile mean", "wins, worst seed", "losses, worst seed"]
    return table(head, rows)


def self_play() -> dict[str, dict[str, Any]]:
    """The manifests of `benchmarks/self_play.py` by their labels."""
    found = {path.stem.removeprefix("self-play-"): manifest(path.stem) for path in sorted(RESULTS.glob("self-play-*"))}
    return {name: each for name, each in found.items() if "games" in each}


def rock_paper_scissors_table() -> str:
    """Of ten rounds against players of a pattern, with a memory and without."""
    found = manifest("self-play-rock-paper-scissors")
    rows = []
    for name, label in (("memory", "a GRU"), ("without", "no memory")):
        reached = summarize([run[name] for run in found["runs"]])
        figures = number(reached.value), number(reached.worst)
        rows.append([label, f"{found['timesteps']:,}", str(len(found["seeds"])), *figures])
    return table(["", "timesteps", "seeds", "interquartile mean", "worst seed"], rows)


OFFLINE = ["environment", "data", "its return", "algorithm", "steps read"]


def offline() -> list[dict[str, Any]]:
    """The manifests of `benchmarks/offline.py`, in the order of its rows."""
    found = [manifest(path.stem) for path in RESULTS.glob("offline-*.json") if "recipe" in manifest(path.stem)]
    kinds = ["medium-replay", "replay", "mixed", "medium", "medium-expert", "expert"]
    return sorted(found, key=lambda each: (each["environment"], kinds.index(each["data"]), each["algorithm"]))


def offline_table() -> str:
    """What was learned from recorded data, beside those who made them; with D4RL's published scores for MuJoCo."""
    published = json.loads((ROOT / "benchmarks" / "published.json").read_text(encoding="utf-8"))["D4RL"]
    rows = []
    for found in offline():
        figures, of_others = found["figures"], published.get(found["environment"], {}).get(found["data"], {})
        there = [found["environment"], found["data"], number(figures["behaviour"]), found["algorithm"]]
        score = number(figures["score"])
        rows.append([*there, f"{found['timesteps']:,}", *reached(found), score, of_others.get(found["algorithm"], "")])
    return table([*OFFLINE, *HEAD, "score", "published score"], rows)


def online_table() -> str:
    """What a policy from records is worth as a beginning, where it was measured."""
    if not (RESULTS / "offline-online.json").exists():
        return "\nNot measured yet.\n"
    found, names = manifest("offline-online"), {"iql": "IQL, after the recorded data", "sac": "SAC, from nothing"}
    rows = []
    for name, label in names.items():
        ends = [run[name] for run in found["runs"]]
        figures = found["figures"][name]
        before = number(statistics.mean(run["before"] for run in found["runs"])) if name == "iql" else ""
        half = number(statistics.mean(curve[len(curve) // 2 - 1][1] for curve in ends))
        rows.append([label, str(len(ends)), before, half, number(figures["mean"]), number(figures["worst"])])
    steps = f"after about {found['steps']:,} steps"
    return table(["", "seeds", "before", f"after about {found['steps'] // 2:,}", steps, "worst seed"], rows)


def estimation_table() -> str:
    """How well estimators rank policies, and how often their intervals hold what is true."""
    names = {
        "IS": "importance sampling",
        "WIS": "the same, weighted",
        "FQE": "direct method (FQE)",
        "DR": "doubly robust",
    }
    rows = []
    for path in sorted(RESULTS.glob("estimation-*.json")):
        found = manifest(path.stem)
        cases = str(sum(len(run["true"]) for run in found["runs"]))
        for method, figures in found["figures"].items():
            shown = number(figures["rank_correlation"]), f"{figures['inside']:.0%}", number(figures["relative_std"])
            rows.append([path.stem.removeprefix("estimation-"), names[method], cases, *shown])
    return table(["", "estimator", "cases", "rank correlation", "true value inside", "deviation"], rows)


def earlier_list() -> str:
    """What was measured on tuning seeds only."""
    published = {path.name for path in RESULTS.glob("learning-*.json")}
    names = [path for path in sorted((RESULTS / "tuning-seeds").glob("*.json")) if path.name not in published]
    return (
        "\n" + ", ".join(f"`{path.stem.removeprefix('learning-')}`" for path in names) + ".\n" if names else "\nNone.\n"
    )


def time_table() -> str:
    figures = manifest("time-to-400")["figures"]
    medians, ratios = figures["median_seconds"], figures["ratios"]
    parts = ", ".join(f"{part.removesuffix('_s')} {seconds:.1f}" for part, seconds in figures["breakdown_s"].items())
    rows = [["Athlete, `cartpole-ppo`", f"{medians['athlete']:.1f} s", f"{parts} s"]]
    labels = {
        "sb3": "Stable-Baselines3, RL-Zoo's settings",
        "sb3-ours": "Stable-Baselines3, the settings of `cartpole-ppo`",
        "sbx": "sbx, RL-Zoo's settings",
        "rllib": "RLlib, its defaults",
    }
    for name, label in labels.items():
        if name in medians:
            each = ratios[name]["by_seed"]
            spread = f"{min(each):.1f} to {max(each):.1f} seed by seed"
            rows.append([label, f"{medians[name]:.1f} s", f"{ratios[name]['of_medians']:.1f} times as long ({spread})"])
    return table(["", "median", ""], rows)


def steady_table() -> str:
    rows = []
    for match in manifest("steady-speed")["figures"]:
        speeds = match["median_steps_per_second"]
        rows.append([match["title"], *(f"{speeds[name]:,.0f}" for name in ("ours", "rival")), f"{match['ratio']:.2f}"])
    return table(["steps a second", "Athlete", "rival", "ratio"], rows)


def replay_table() -> str:
    rows = []
    for name in ("off-policy-speed-dqn", "off-policy-speed-sac"):
        for match in manifest(name)["figures"]:
            speeds = match["median_steps_per_second"]
            torch = max(speed for rival, speed in speeds.items() if rival.startswith("sb3"))
            sbx = f"{speeds['sbx']:,.0f}" if "sbx" in speeds else ""
            rows.append([match["title"], f"{speeds['ours']:,.0f}", f"{torch:,.0f}", sbx])
    return table(["steps a second", "Athlete", "Stable-Baselines3", "sbx"], rows)


def random_sentence() -> str:
    medians = manifest("random-baseline")["figures"]["median_seconds"]
    return f"{medians['athlete']:.1f} s; a loop over Gymnasium takes {medians['gymnasium loop']:.1f} s."


def workers_table() -> str:
    """Steps a second of workers in processes and in Ray."""
    found: dict[int, dict[str, Any]] = {}
    for each in manifest("workers")["figures"]:
        found.setdefault(each["workers"], {})[each["where"]] = each
    rows = []
    for workers, by_place in found.items():
        cells = [f"{each['steps_per_s']:,.0f} ({each['times']:.1f} times one)" for each in by_place.values()]
        rows.append(
            [str(workers), *cells, f"{by_place['ray']['steps_per_s'] / by_place['processes']['steps_per_s']:.2f}"]
        )
    return table(["workers", "processes", "Ray", "Ray of processes"], rows)


def failures_table() -> str:
    rows = [
        [event, f"{seen['gap_s']:.1f} s", f"{seen['speed']:.0%}"]
        for event, seen in manifest("ray-failures")["figures"].items()
    ]
    return table(["event", "longest time between two updates", "speed 15 to 20 s later"], rows)


def trials_table() -> str:
    training = manifest("trials-speed")["figures"]
    theirs = f"{training['ray_tune_trial_s'] * TRIALS:,.0f} s, {TRIALS} times a trial of {training['rival_trials']}"
    what = f"{TRIALS} trials of PPO, 100,000 CartPole steps each"
    rows = [[what, f"{training['trials_s']:.1f} s", theirs, f"{training['ratio']:.1f}"]]
    return table(["", "Athlete", "Ray Tune with RLlib", "times"], rows)


def search_table() -> str:
    """Timesteps that searches took until one of their trials reached -200 on Pendulum."""
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for each in manifest("search")["figures"]:
        by_kind.setdefault(each["kind"], []).append(each)
    taken = {kind: [each["timesteps"] for each in searches] for kind, searches in by_kind.items()}
    rows = []
    for kind, timesteps in taken.items():
        means, medians = (of(timesteps) / of(taken["random"]) for of in (statistics.mean, statistics.median))
        spread = f"{min(timesteps):,} to {max(timesteps):,}"
        reached = f"{sum(each['reached'] for each in by_kind[kind])} of {len(timesteps)}"
        rows.append([kind, f"{statistics.mean(timesteps):,.0f}", spread, f"{means:.2f}", f"{medians:.2f}", reached])
    return table(["search", "mean timesteps", "", "of random search's", "medians", "reached"], rows)


def circumstances_table() -> str:
    """When and under which load the speeds were measured: a load above 0.5 is other work on the machine."""
    found = {path.name: manifest(path.stem) for path in sorted(RESULTS.glob("*.json"))}
    rows = [
        [f"`{name}`", each["written"][:10], f"`{each['commit'][:8]}`", f"{each['machine']['load_at_start']:.1f}"]
        for name, each in found.items()
        if "written" in each  # of speeds; what learned says it of each of its runs
    ]
    return table(["manifest", "measured", "commit", "load before"], rows)


def summary_table() -> str:
    """The five rows of the README."""
    medians = manifest("time-to-400")["figures"]["median_seconds"]
    compiled, *_, hosted = (match["median_steps_per_second"] for match in manifest("steady-speed")["figures"])
    dqn = manifest("off-policy-speed-dqn")["figures"][0]["median_steps_per_second"]
    sac = manifest("off-policy-speed-sac")["figures"][0]["median_steps_per_second"]
    torch = max(speed for name, speed in sac.items() if name.startswith("sb3"))
    rows = [
        [
            "CartPole to 400, from the start of the process",
            f"{medians['athlete']:.1f} s",
            f"{medians['sb3']:.1f} s (RLlib {medians['rllib']:.1f} s)",
        ],
        ["PPO, CartPole compiled, 8 environments", f"{compiled['ours']:,.0f} steps/s", ""],
        [
            "PPO, Gymnasium's CartPole, the same settings",
            f"{hosted['ours']:,.0f} steps/s",
            f"{hosted['rival']:,.0f} steps/s",
        ],
        ["DQN, Gymnasium's CartPole, an update a step", f"{dqn['ours']:,.0f} steps/s", f"{dqn['sb3']:,.0f} steps/s"],
        ["SAC, Gymnasium's Pendulum, an update a step", f"{sac['ours']:,.0f} steps/s", f"{torch:,.0f} steps/s"],
    ]
    return table(["", "Athlete", "Stable-Baselines3"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "summary": summary_table,
    "mujoco": mujoco_table,
    "tuned": tuned_table,
    "defaults": defaults_table,
    "offline": offline_table,
    "online": online_table,
    "estimation": estimation_table,
    "earlier": earlier_list,
    "time": time_table,
    "steady": steady_table,
    "replay": replay_table,
    "random": random_sentence,
    "workers": workers_table,
    "failures": failures_table,
    "trials": trials_table,
    "search": search_table,
    "circumstances": circumstances_table,
    "self-play": self_play_table,
    "rock-paper-scissors": rock_paper_scissors_table,
}


def filled(text: str) -> str:
    """A page with its tables as the manifests have them."""
    pattern = r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)"
    return re.sub(pattern, lambda match: f"{match[1]}\n{made(match[2])}\n\n{match[3]}", text, flags=re.S)


def made(name: str) -> str:
    try:
        return TABLES[name]()
    except FileNotFoundError:  # of a manifest
        return "Not measured on an idle machine yet."


def main() -> None:
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
