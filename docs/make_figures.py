"""Draw the learning curves of the documentation from the manifests that `benchmarks/learning.py` wrote.

    python docs/make_figures.py [--all]

For each `<!-- figure: NAME -->` of a page, `benchmarks/results/learning-NAME.json`, or that of `tuning-seeds` where
there is no newer one, becomes `docs/assets/NAME.svg` with its caption, `NAME.txt`. What has its caption already is not
drawn again without `--all`, and what no manifest stands behind is removed. The line is the interquartile mean over
seeds and the band reaches from the first to the third quartile; of fewer than four seeds they are the mean and the
whole range. One seed is passed over.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from athlete.ops.statistics import interquartile_mean

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results"
ASSETS = DOCS / "assets"
POINTS = 200  # of the common grid that all seeds are read at


def manifests() -> dict[str, dict[str, Any]]:
    """What the pages show, by name: the manifest of fresh seeds if there is one, else that of tuning seeds."""
    pages = "".join(page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md"))
    found = {}
    for name in sorted(set(re.findall(r"<!-- figure: ([\w-]+) -->", pages))):
        file = f"learning-{name}.json"
        path = next((path for path in (RESULTS / file, RESULTS / "tuning-seeds" / file) if path.exists()), None)
        if path is not None:
            found[name] = json.loads(path.read_text(encoding="utf-8"))
    return found


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
    enough = len(rewards) >= 4
    low, high = np.quantile(rewards, [0.25, 0.75] if enough else [0.0, 1.0], axis=0)
    band, line = ("first to third quartile", "interquartile mean") if enough else ("lowest to highest", "mean")
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axes.fill_between(grid, low, high, alpha=0.25, linewidth=0, label=band)
    axes.plot(grid, [interquartile_mean(column) for column in rewards.T], label=line)
    axes.set_xlabel("timesteps")
    axes.set_ylabel("episode_reward_mean")
    axes.set_title(f"{manifest['algorithm']} on {manifest['environment']}, {len(rewards)} seeds")
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def caption_of(manifest: dict[str, Any]) -> str:
    """What the figure shows, with the figures and the command that the manifest holds."""
    figures, curves = manifest["figures"], manifest["curves"]
    name = "interquartile_mean" if "interquartile_mean" in figures else "mean"
    low, high = figures["interval_95"]
    seeds = f"{len(curves)} seeds" + (", those that the settings were tuned on" if "note" in manifest else "")
    commits = sorted({curve["commit"][:10] for curve in curves if curve["commit"]})
    return (
        f"*Mean return of the last 100 training episodes, actions sampled; {seeds}. Greedy evaluation over "
        f"{manifest['evaluation_episodes']} episodes after training: {name.replace('_', ' ')} {figures[name]:g} "
        f"(95%: {low:g} to {high:g}), worst seed {figures['worst']:g}. "
        f"{'Commit ' + ', '.join(commits) + '; made' if commits else 'Made'} by `{manifest['command']}`.*\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="draw what has been drawn already, too")
    arguments = parser.parse_args()
    ASSETS.mkdir(exist_ok=True)
    shown = manifests()
    for old in [path for ending in ("*.svg", "*.txt") for path in ASSETS.glob(ending) if path.stem not in shown]:
        old.unlink()
    for name, manifest in shown.items():
        picture, text = ASSETS / f"{name}.svg", ASSETS / f"{name}.txt"
        if len(manifest["curves"]) < 2:
            print(f"{name}: one seed, not drawn")
            continue
        caption = caption_of(manifest)
        if arguments.all or not picture.exists() or not text.exists() or text.read_text(encoding="utf-8") != caption:
            draw(manifest, picture)
            text.write_text(caption, encoding="utf-8")
            print(f"docs/assets/{name}.svg")


if __name__ == "__main__":
    main()
