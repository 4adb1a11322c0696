"""How programs are compiled, kept between processes, and counted."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from pathlib import Path

import jax

# Same results and speed as level 3, faster to compile.
COMPILER_OPTIONS = {"xla_backend_optimization_level": 2}
# For a program whose kernels are too short to share between cores: handing over costs more than it brings.
ONE_BY_ONE_OPTIONS: dict[str, str | int] = dict(COMPILER_OPTIONS)
if jax.__version_info__ >= (0, 9):  # older ones do not all know it
    ONE_BY_ONE_OPTIONS["xla_cpu_scheduler_type"] = "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"
# For what runs once: compiling is all it costs.
RUN_ONCE_OPTIONS = {"xla_backend_optimization_level": 0}

_compilations = {"count": 0, "seconds": 0.0}
_is_set_up = False


def set_up() -> None:
    """Keep compiled programs between processes and count compilations. Idempotent.

    The cache is `$ATHLETE_CACHE_DIR`, else `~/.cache/athlete`; an empty `$ATHLETE_CACHE_DIR` turns it off. A folder
    of JAX's own settings (`JAX_COMPILATION_CACHE_DIR`) is left as the user set it.
    """
    global _is_set_up
    if _is_set_up:
        return
    _is_set_up = True
    jax.monitoring.register_event_duration_secs_listener(_count)
    folder = cache_folder()
    if folder is not None and not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def cache_folder() -> Path | None:
    """Where programs are kept: a folder for this JAX and this processor, since machine code does not travel."""
    root = os.environ.get("ATHLETE_CACHE_DIR")
    if root == "":
        return None
    base = Path(root) if root else Path.home() / ".cache" / "athlete"
    return base / f"xla-{jax.__version__}-{_processor()}"


def compilations() -> tuple[int, float]:
    """How many programs this process has compiled or loaded from the cache so far, and the seconds that took."""
    return int(_compilations["count"]), _compilations["seconds"]


def _count(event: str, duration_secs: float, **_: str | int) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        _compilations["count"] += 1
        _compilations["seconds"] += duration_secs


def _processor() -> str:
    """A short hash of what this processor can do."""
    description = f"{platform.machine()} {platform.processor()} {sys.platform}"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        description += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        pass
    return hashlib.sha256(description.encode()).hexdigest()[:12]
