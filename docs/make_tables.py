"""Writes the tables of the documentation that can be computed, between `<!-- computed: NAME -->` and `<!-- end -->`.

    python docs/make_tables.py

A test holds the pages and what this would write equal.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from athlete.algorithms.catalog import entries
from athlete.spaces import ACTION_KINDS

ROOT = Path(__file__).parent
ACTIONS = {"discrete": "`Discrete`", "continuous": "`Box`", "slates": "`MultiDiscrete` slates"}
PAGES = {
    "ApexDDPG": "apex-ddpg.md", "ApexDQN": "apex-dqn.md", "DroQ": "redq.md", "SimpleQ": "simple-q.md",
    **dict.fromkeys(("BanditLinUCB", "BanditLinTS"), "bandits.md"),
}


def algorithms() -> str:
    """Which algorithm for which actions."""
    rows = ["| Algorithm | Actions | Learns from | Memory in the network | What it is |", "|---|---|---|---|---|"]
    for entry in entries():
        every = len(entry.actions) == len(ACTION_KINDS)
        actions = "all kinds" if every else ", ".join(ACTIONS[kind] for kind in entry.actions)
        page = PAGES.get(entry.name, f"{entry.name.lower()}.md")
        rows.append(
            f"| [`{entry.name}`]({page}) | {actions} | {entry.learns_from} | {entry.memory} | {entry.summary} "
            f"({entry.paper}) |"
        )
    return "\n".join(rows)


TABLES: dict[str, Callable[[], str]] = {"algorithms": algorithms}


def with_tables(page: str) -> str:
    """The text of a page with its tables made anew."""
    return re.sub(
        r"(<!-- computed: (\w+) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}\n{TABLES[match[2]]()}\n\n{match[3]}",
        page,
        flags=re.S,
    )


def main() -> None:
    for path in sorted(ROOT.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        if with_tables(text) != text:
            path.write_text(with_tables(text), encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
