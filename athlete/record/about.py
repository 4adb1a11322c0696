"""What was trained, and on what: `about.json` beside the results."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

from athlete.record.files import write_beside
from athlete.record.results import to_json
from athlete.version import __version__

ABOUT = "about.json"
_PACKAGES = ("jax", "jaxlib", "numpy", "gymnasium")


def about(algorithm: str) -> dict[str, Any]:
    """The algorithm's name, the system, its processors and the versions that results may depend on."""
    found: dict[str, Any] = {
        "algorithm": algorithm,
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "athlete": __version__,
    }
    if gpus := _gpus():
        found["gpus"] = gpus
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def write_about(folder: str | os.PathLike[str], algorithm: str) -> None:
    """Write `about(algorithm)` into a training's folder."""
    write_beside(Path(folder) / ABOUT, to_json(about(algorithm), indent=2) + "\n")


def read_about(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What `write_about` wrote; empty where there is nothing that can be read."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((Path(folder) / ABOUT).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpus() -> list[str]:
    """NVIDIA's, as the driver names them: asking JAX would take their memory."""
    found = []
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        with contextlib.suppress(OSError):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            found += [line.partition(":")[2].strip() for line in lines if line.startswith("Model")]
    return found
