"""`athlete doctor`: does everything work here, and what mends what does not?"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import typer

from athlete.cli.common import aligned
from athlete.version import __version__

_PACKAGES = ("jax", "jaxlib", "numpy", "gymnasium", "safetensors", "pandas", "tensorboardX", "imageio", "typer", "rich")


def examine() -> tuple[str, bool]:
    """What there is here, as text, and whether all core parts work."""
    rows = [("athlete", __version__), ("python", f"{platform.python_version()} ({sys.executable})")]
    rows += [("system", platform.platform()), *((name, _version(name)) for name in _PACKAGES)]
    is_well = True
    for name, look in _CHECKS.items():
        try:
            rows.append((name, look()))
        except Exception as error:
            is_well = False
            rows.append((name, typer.style(f"does not work: {error}", fg="red")))
    rows += _extras()
    return aligned(rows), is_well


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return f"missing; mend: pip install {package}"


def _devices() -> str:
    import jax

    total = float(jax.jit(lambda x: x + 1)(1.0))
    if total != 2.0:
        raise RuntimeError(f"JAX computes 1 + 1 = {total}; mend: pip install --force-reinstall jax jaxlib")
    return ", ".join(f"{device.platform}:{device.id} ({device.device_kind})" for device in jax.devices())


def _processors() -> str:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limits = [f"{name}={os.environ[name]}" for name in ("OMP_NUM_THREADS", "XLA_FLAGS") if name in os.environ]
    return ", ".join([f"{os.cpu_count()}, of which this process uses up to {usable} threads at once", *limits])


def _cache() -> str:
    from athlete.loops.compiling import cache_folder

    folder = cache_folder()
    if folder is None:
        return "turned off by an empty ATHLETE_CACHE_DIR: every process compiles anew"
    _write_into(folder, "set ATHLETE_CACHE_DIR to a folder that you may write to")
    files = [path for path in folder.rglob("*") if path.is_file()]
    return f"{folder} ({len(files)} files, {_size(sum(path.stat().st_size for path in files))})"


def _results() -> str:
    from athlete.tune.trial import results_folder

    folder = results_folder(None)
    _write_into(folder, "set ATHLETE_RESULTS_DIR to a folder that you may write to")
    return f"{folder} (writable, {_size(shutil.disk_usage(folder).free)} free)"


def _write_into(folder: Path, mend: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"athlete")
    except OSError as error:
        raise RuntimeError(f"cannot write into {folder} ({error.strerror}); mend: {mend}") from error


def _rendering() -> str:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    from athlete.env.adapters.gymnasium import make_gymnasium

    try:
        env = make_gymnasium("CartPole-v1", {"render_mode": "rgb_array"})
        env.reset(seed=0)
        height, width, _ = env.render().shape  # type: ignore[union-attr]
        env.close()
    except Exception as error:
        raise RuntimeError(f"{error}; mend: pip install 'gymnasium[classic-control,toy-text]'") from error
    import pygame

    return f"pygame {pygame.version.ver} draws CartPole-v1, {width}x{height}"


def _films() -> str:
    import numpy as np

    from athlete.record.video import write_video

    with tempfile.TemporaryDirectory() as folder:
        path = write_video(Path(folder) / "film.mp4", np.zeros((2, 64, 64, 3), np.uint8), fps=30)
        if path.suffix != ".mp4":
            raise RuntimeError("ffmpeg does not start, films become GIFs; mend: pip install -U imageio-ffmpeg")
        return f"ffmpeg of imageio-ffmpeg {_version('imageio-ffmpeg')} writes mp4 ({path.stat().st_size} bytes)"


_CHECKS: dict[str, Callable[[], str]] = {
    "devices": _devices,
    "processors": _processors,
    "compile cache": _cache,
    "results": _results,
    "rendering": _rendering,
    "films": _films,
}


def _extras() -> list[tuple[str, str]]:
    """Each extra of the package: there, or what is missing of it and the command that installs it."""
    rows = []
    for extra, requirements in sorted(_requirements("athlete").items()):
        if extra:
            missing = [_quoted(wanted) for wanted in requirements if not _is_there(wanted)]
            rows.append((f"extra {extra}", f"missing; mend: pip install {' '.join(missing)}" if missing else "there"))
    return rows


def _requirements(package: str) -> dict[str, list[str]]:
    """What an installed package requires by extra, `""` for what it always does: `gymnasium[mujoco]`, `numpy`, ..."""
    wanted: dict[str, list[str]] = {}
    for requirement in importlib.metadata.requires(package) or []:  # `gymnasium[mujoco]>=1.2; extra == "mujoco"`
        name = re.match(r"[\w.-]+(\[[\w, -]+\])?", requirement)
        if not _for_this_python(requirement):
            continue
        extra = re.search(r"extra\s*==\s*['\"]([\w.-]+)['\"]", requirement)
        if name is not None:
            wanted.setdefault(extra[1] if extra else "", []).append(name[0])
    return wanted


def _for_this_python(requirement: str) -> bool:
    """Whether the condition of a requirement on Python's version holds here: `box2d; python_version < "3.14"`."""
    condition = re.search(r"python_version\s*(<=|>=|==|<|>)\s*['\"](\d+)\.(\d+)['\"]", requirement)
    if condition is None:
        return True
    here, there = sys.version_info[:2], (int(condition[2]), int(condition[3]))
    return {"<": here < there, "<=": here <= there, "==": here == there, ">=": here >= there, ">": here > there}[
        condition[1]
    ]


def _is_there(requirement: str) -> bool:
    """Whether a package is installed, and with it what the extras in its brackets require."""
    package, _, listed = requirement.rstrip("]").partition("[")
    if _version(package).startswith("missing"):
        return False
    of_extras = _requirements(package) if listed else {}
    return all(_is_there(wanted) for extra in listed.split(",") if extra for wanted in of_extras.get(extra.strip(), []))


def _quoted(requirement: str) -> str:
    """As a shell takes it: brackets mean something else to it."""
    return f"'{requirement}'" if "[" in requirement else requirement


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"
