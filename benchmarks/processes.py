"""Contestants as whole processes: each prints a JSON line of figures, and the clock runs from start to that line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Rivals on torch run with one thread: on two shared cores their own default of two took twice as long.
RIVAL_ENVIRONMENT = {"OMP_NUM_THREADS": "1"}

ROOT = Path(__file__).resolve().parent.parent


def run_cold(command: Sequence[str], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run `command` with fresh, empty folders for caches and results; its figures with "wall_s" added.

    "wall_s" ends when the JSON line arrives, so that no contestant pays for its orderly end. Exits with the
    contestant's own output if it prints no JSON line.
    """
    with tempfile.TemporaryDirectory() as folder:
        fresh = {"XDG_CACHE_HOME": folder, "ATHLETE_CACHE_DIR": f"{folder}/athlete", "ATHLETE_RESULTS_DIR": folder}
        errors = Path(folder) / "errors.txt"
        with errors.open("w") as error_file:
            started = time.perf_counter()
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=error_file,
                text=True,
                cwd=ROOT,
                env={**os.environ, **fresh, **(environment or {})},
            )
            figures, printed = None, []
            for line in process.stdout or []:
                printed.append(line)
                if figures is None and line.startswith("{"):
                    figures = {"wall_s": time.perf_counter() - started, **json.loads(line)}
            process.wait()
        if figures is None:
            sys.exit(f"{' '.join(command)} printed no figures:\n{''.join(printed)}\n{errors.read_text()}")
    return figures
