"""Every figure in the README is one that a manifest in `benchmarks/results` holds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def manifest(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def row(label: str) -> list[str]:
    """The cells behind `label` in the README's tables."""
    rows = [line for line in README.splitlines() if line.startswith(f"| {label} |")]
    assert len(rows) == 1, f"the README must have one row for {label}"
    return [cell.strip() for cell in rows[0].strip("|").split("|")[1:]]


def learning_of(label: str) -> str:
    """The manifest of a row of learning: `cartpole-ppo` is an example, `PPO CartPole-v1` an algorithm's defaults."""
    name = re.match(r"`([^`]+)`", label)
    assert name is not None, label
    return f"learning-{name[1].replace(' ', '-').lower()}{'-defaults' if label.endswith('defaults') else ''}"


TABLE = README[README.index("| | timesteps | seeds |") :].partition("\n\n")[0]
LEARNING = [line.split("|")[1].strip() for line in TABLE.splitlines()[2:]]


def test_every_manifest_of_learning_is_in_the_readme() -> None:
    assert sorted(map(learning_of, LEARNING)) == sorted(path.stem for path in RESULTS.glob("learning-*.json"))


@pytest.mark.parametrize("label", LEARNING)
def test_what_is_learned(label: str) -> None:
    found = manifest(learning_of(label))
    timesteps, seeds, middle, worst = row(label)
    assert timesteps == f"{found['timesteps']:,}"
    assert int(seeds) == len(found["seeds"])
    assert float(middle) == pytest.approx(found["iqm"], abs=0.005)
    assert float(worst) == pytest.approx(found["worst"], abs=0.005)


def test_steady_speed() -> None:
    labels = [
        "compiled, 8 envs, 32 steps, minibatch 256, 20 epochs",
        "compiled, 4 envs, 128 steps, minibatch 128, 4 epochs",
        "compiled, 64 envs, 128 steps, minibatch 2048, 4 epochs",
        "Gymnasium's CartPole, 8 envs, RL-Zoo's settings",
    ]
    for label, match in zip(labels, manifest("steady-speed")["figures"], strict=True):
        medians = match["median_steps_per_second"]
        assert row(label)[:2] == [f"{medians['ours']:,.0f}", f"{medians['rival']:,.0f}"]


def test_speed_from_replay() -> None:
    dqn, compiled = manifest("off-policy-speed-dqn")["figures"]
    sac, *_ = manifest("off-policy-speed-sac")["figures"]
    labels = [
        "DQN, Gymnasium's CartPole, one environment, batch 64",
        "DQN, CartPole in JAX, the same settings",
        "SAC, Gymnasium's Pendulum, one environment, 256 x 256, batch 256",
    ]
    for label, match in zip(labels, (dqn, compiled, sac), strict=True):
        speeds = match["median_steps_per_second"]
        torch = max(speed for name, speed in speeds.items() if name.startswith("sb3"))
        others = f"{speeds['sbx']:,.0f}" if "sbx" in speeds else ""
        assert row(label) == [f"{speeds['ours']:,.0f}", f"{torch:,.0f}", others]


def test_what_a_memory_costs_by_its_fill() -> None:
    page = (ROOT / "docs" / "replay.md").read_text(encoding="utf-8")
    for label, case in zip(("uniform, 52 MB", "prioritised, 56 MB"), manifest("memory-cost")["figures"], strict=False):
        costs = " | ".join(f"{cost:.1f}" for cost in case["cpu_microseconds_a_step_by_fill"].values())
        assert f"| {label} | {costs} |" in page


@pytest.mark.parametrize(
    ("name", "label"),
    [("sb3", "Stable-Baselines3 2.9.2, RL-Zoo's settings"), ("rllib", "RLlib 2.60.0, its defaults")],
)
def test_time_to_400(name: str, label: str) -> None:
    figures = manifest("time-to-400")["figures"]
    assert row("Athlete, `cartpole-ppo`")[0] == f"{figures['median_seconds']['athlete']:.1f} s"
    seconds, ratio = row(label)
    of_medians, by_seed = figures["ratios"][name]["of_medians"], figures["ratios"][name]["by_seed"]
    assert len(by_seed) == 5
    assert seconds == f"{figures['median_seconds'][name]:.1f} s"
    assert ratio == f"{of_medians:.1f} times as long ({min(by_seed):.1f} to {max(by_seed):.1f} seed by seed)"


def test_random_baseline() -> None:
    medians = manifest("random-baseline")["figures"]["median_seconds"]
    assert f"{medians['athlete']:.1f} s, import and compile\nincluded; a loop over Gymnasium takes" in README
    assert f"takes {medians['gymnasium loop']:.1f} s" in README
