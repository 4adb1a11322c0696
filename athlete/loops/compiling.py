"""How programs are compiled, kept between processes, and counted."""

from __future__ import annotations

import hashlib
import os
import platform
import stat
import sys
from pathlib import Path

import jax

from athlete.log import logger

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

    The cache is `$ATHLETE_CACHE_DIR`, else `~/.cache/athlete`; an empty `$ATHLETE_CACHE_DIR` turns it off. It holds
    machine code, so a folder that another user owns, or may write into, is not used. A folder of JAX's own settings
    (`JAX_COMPILATION_CACHE_DIR`) is left as the user set it.
    """
    global _is_set_up
    if _is_set_up:
        return
    _is_set_up = True
    jax.monitoring.register_event_duration_secs_listener(_count)
    folder = cache_folder()
    if folder is None or jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return
    if (danger := danger_of(folder)) is not None:
        logger.warning("compiled programs are not kept: %s", danger)
    else:
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


def danger_of(folder: Path) -> str | None:
    """Why machine code must not be read from `folder`: somebody else could have put it there. None where it is ours.

    Makes the folder where there is none, for this user alone.
    """
    try:
        for place in (folder.parent, folder):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            if (danger := _danger_of(place.lstat(), is_parent=place is not folder)) is not None:
                return f"{place} {danger}: chmod go-w, or set ATHLETE_CACHE_DIR to a folder of your own"
    except OSError as error:
        return str(error)
    return None


def _danger_of(status: os.stat_result, is_parent: bool) -> str | None:
    """Who else, by the status of a folder, could change what is in it. A parent may be root's, or `/tmp`'s kind."""
    if not hasattr(os, "getuid"):  # Windows keeps users apart in other ways
        return None
    if stat.S_ISLNK(status.st_mode):
        return None if is_parent else "is a symbolic link"
    if status.st_uid != os.getuid() and not (is_parent and status.st_uid == 0):
        return f"belongs to another user ({status.st_uid})"
    is_sticky = bool(status.st_mode & stat.S_ISVTX)
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not (is_parent and is_sticky):
        return "may be written by other users"
    return None


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
