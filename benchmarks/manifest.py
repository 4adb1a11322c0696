"""What benchmarks write beside their figures: command, versions, commit, machine and load that they came from."""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RIVALS = ROOT / ".rivals"
PACKAGES = [
    "athlete",
    "jax",
    "jaxlib",
    "numpy",
    "gymnasium",
    "torch",
    "stable-baselines3",
    "sbx-rl",
    "ray",
    "gymnax",
    "flax",
]

_LIST_VERSIONS = """
import importlib.metadata, json, platform, sys
versions = {"python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(versions))
"""


LOAD_AT_START = os.getloadavg()[0] if hasattr(os, "getloadavg") else None  # mean of the last minute
LARGEST_LOAD = 0.5  # of other work, beside which speeds are still worth something
FEWEST_ROUNDS = 3


def add_speed_options(parser: argparse.ArgumentParser, rounds: int = 5) -> None:
    """The options that every measurement of speed has: `--rounds`, `--json` and `--busy`."""
    parser.add_argument("--rounds", type=int, default=rounds, help="how often each contestant has its turn")
    parser.add_argument("--json", help="write figures and circumstances to this file")
    parser.add_argument("--busy", action="store_true", help="measure beside other work, for a look; writes no file")


def require_idle(arguments: argparse.Namespace) -> None:
    """Exit where a speed would mean little: beside other work without `--busy`, or written from too few rounds.

    Rivals that spin on two threads suffer most from other work, so that a busy machine flatters us.
    """
    if LOAD_AT_START is not None and LOAD_AT_START > LARGEST_LOAD and not arguments.busy:
        sys.exit(
            f"the load average is {LOAD_AT_START:.1f}, and speeds are measured at {LARGEST_LOAD} at most: wait, or "
            f"look with --busy"
        )
    if arguments.json and arguments.busy:
        sys.exit("--busy is for a look: what it measures is written to no file; leave out --json")
    if arguments.json and arguments.rounds < FEWEST_ROUNDS:
        sys.exit(f"--rounds {arguments.rounds}: a manifest of speeds has {FEWEST_ROUNDS} rounds at least")


def rival_python(name: str) -> str:
    """The interpreter of a rival's environment. Exits with what to do if it was not set up."""
    python = RIVALS / name / "bin" / "python"
    if not python.exists():
        raise SystemExit(f"no environment for {name}: run benchmarks/setup_rivals.sh {name}")
    return str(python)


@functools.cache
def versions(python: str) -> dict[str, str]:
    """Versions of Python and of `PACKAGES` as far as they are installed beside the interpreter `python`."""
    command = [python, "-c", _LIST_VERSIONS, *PACKAGES]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def write_manifest(
    path: str | Path, figures: Any, interpreters: Mapping[str, str], seeds: Iterable[int] = (), **more: Any
) -> None:
    """Write `figures` to the JSON file `path`, with all that is needed to judge and repeat them.

    `interpreters` maps each contestant to its Python; `more` is added as it is.
    """
    manifest = {
        # Of a file elsewhere only the name: where it lay on this machine says nothing on another.
        "command": " ".join(["python", *(Path(word).name if Path(word).is_absolute() else word for word in sys.argv)]),
        "written": time.strftime("%Y-%m-%d %H:%M:%S"),
        "commit": commit(),
        "dirty": is_dirty(),
        "machine": machine(),
        "versions": {name: versions(python) for name, python in interpreters.items()},
        "seeds": list(seeds),
        **more,
        "figures": figures,
    }
    write_json(path, manifest)


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file, indented but for lists of numbers, which take a line each. It is there whole or not at all."""
    text = json.dumps(value, indent=1, allow_nan=False)
    text = re.sub(r"\[[\s\d.,eE+-]*(?:null[\s\d.,eE+-]*)*\]", lambda match: " ".join(match[0].split()), text)
    part = Path(path).with_suffix(".part")
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(path)


@functools.cache
def commit() -> str:
    """The commit that this process runs: the one that was checked out when it first asked."""
    return _git("rev-parse", "HEAD")


@functools.cache
def is_dirty() -> bool:
    """Whether a file under version control was changed since, manifests left out."""
    return bool(_git("status", "--porcelain", "--untracked-files=no", "--", ":!benchmarks/results"))


def machine() -> dict[str, Any]:
    """Cores, processor, platform and the load average of the minute before the benchmark."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "platform": platform.platform(),
        "load_at_start": LOAD_AT_START,
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
