"""Draw the learning curves of the documentation from the manifests that `benchmarks/learning.py` wrote.

    python docs/make_figures.py

Reads `benchmarks/results/learning-*.json` and writes `docs/assets/NAME.svg` with its caption, `NAME.txt`. The line is
the interquartile mean over seeds, the band reaches from the first to the third quartile. A manifest without at least
two seeds is passed over: there is nothing to draw a band from.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from athlete.ops.statistics import interquartile_mean

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
ASSETS = ROOT / "docs" / "assets"
POINTS = 200  # of the common grid that all seeds are read at


def name_of(manifest: dict[str, Any], path: Path) -> str:
    """`ppo-cartpole` for PPO on CartPole-v1; `-defaults` where settings are, `-10k` in so many steps, `-rainbow`."""
    environment = (manifest["environment"].rpartition("-v")[0] or manifest["environment"]).replace("/", "-")
    suffix = next((end for end in ("-defaults", "-10k", "-rainbow") if path.stem.endswith(end)), "")
    return f"{manifest['algorithm']}-{environment}{suffix}".lower()


def curves_on_grid(curves: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Timesteps `[POINTS]` that every seed reached, and each seed's reward there, `[seeds, POINTS]`.

    Before a seed's first finished episode there is no reward: the grid begins where every seed has one.
    """
    pairs = []
    for curve in curves:
        reward = np.array([np.nan if value is None else value for value in curve["episode_reward_mean"]], float)
        known = np.isfinite(reward)
        pairs.append((np.array(curve["timesteps"], float)[known], reward[known]))
    begin, end = max(steps[0] for steps, _ in pairs), min(steps[-1] for steps, _ in pairs)
    grid = np.linspace(begin, end, POINTS)
    return grid, np.stack([np.interp(grid, steps, reward) for steps, reward in pairs])


def draw(manifest: dict[str, Any], path: Path) -> None:
    """The figure of one manifest, as an SVG whose bytes depend on the manifest alone."""
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "athlete"
    from matplotlib import pyplot

    grid, rewards = curves_on_grid(manifest["curves"])
    low, high = np.quantile(rewards, [0.25, 0.75], axis=0)
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axes.fill_between(grid, low, high, alpha=0.25, linewidth=0, label="first to third quartile")
    axes.plot(grid, [interquartile_mean(column) for column in rewards.T], label="interquartile mean")
    axes.set_xlabel("timesteps")
    axes.set_ylabel("episode_reward_mean")
    axes.set_title(f"{manifest['algorithm']} on {manifest['environment']}, {len(rewards)} seeds")
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def caption_of(manifest: dict[str, Any]) -> str:
    """What the figure shows, with the figures and the command that the manifest holds."""
    evaluation = f"interquartile mean {manifest['iqm']:g}, worst seed {manifest['worst']:g}"
    episodes = f" over {manifest['evaluation_episodes']} episodes" if "evaluation_episodes" in manifest else ""
    return (
        f"*Mean return of the last 100 training episodes, actions sampled; {len(manifest['curves'])} seeds. "
        f"Greedy evaluation{episodes} after training: {evaluation}. "
        f"Commit {manifest['commit'][:10]}; made by `{manifest['command']}`.*\n"
    )


def main() -> None:
    ASSETS.mkdir(exist_ok=True)
    for path in sorted(RESULTS.glob("learning-*.json")):
        manifest = json.loads(path.read_text())
        if len(manifest.get("curves", [])) < 2:
            print(f"{path.name}: fewer than two seeds, not drawn")
            continue
        name = name_of(manifest, path)
        draw(manifest, ASSETS / f"{name}.svg")
        (ASSETS / f"{name}.txt").write_text(caption_of(manifest), encoding="utf-8")
        print(f"{path.name} -> docs/assets/{name}.svg")


if __name__ == "__main__":
    main()
