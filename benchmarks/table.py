"""Write the README's table of what was learned from the manifests in `benchmarks/results`.

    python benchmarks/table.py

Rows keep their order and what stands behind their names; new ones come before the algorithms with their defaults.
"""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parent.parent
HEAD = "| | timesteps | seeds |"


def number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def name_of(path: Path) -> str:
    """What stands in backquotes in a manifest's row."""
    manifest = json.loads(path.read_text(encoding="utf-8"))
    if path.stem.endswith("-defaults"):
        return f"{manifest['algorithm']} {manifest['environment']}"
    return path.stem.removeprefix("learning-")


def row(label: str, path: Path) -> str:
    found = json.loads(path.read_text(encoding="utf-8"))
    digits = 3 if abs(found["iqm"]) < 1 else 2
    middle, worst = (number(found[key]) if digits == 2 else f"{found[key]:.3f}" for key in ("iqm", "worst"))
    return f"| {label} | {found['timesteps']:,} | {len(found['seeds'])} | {middle} | {worst} |"


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, after = text.split(HEAD)
    head, ruler, *rows = (HEAD + after).partition("\n\n")[0].splitlines()
    rest = (HEAD + after).partition("\n\n")[2]
    labels = [line.split("|")[1].strip() for line in rows]
    paths = {name_of(path): path for path in sorted((ROOT / "benchmarks" / "results").glob("learning-*.json"))}
    known = {label.split("`")[1] for label in labels}
    new = [f"`{name}`" for name in paths if name not in known]
    own = [label for label in labels if not label.endswith("defaults")]
    lines = [row(label, paths[label.split("`")[1]]) for label in [*own, *new, *labels[len(own) :]]]
    readme.write_text(before + "\n".join([head, ruler, *lines]) + "\n\n" + rest, encoding="utf-8")


if __name__ == "__main__":
    main()
