"""The oldest JAX that Athlete runs on, asked for before anything is imported that an older one lacks."""

from __future__ import annotations

import re

import jax

OLDEST_JAX = (0, 7)


def require_jax(version: str = jax.__version__) -> None:
    """Raise ImportError, with what to do, where JAX is too old."""
    found = tuple(map(int, re.findall(r"\d+", version)[:2]))
    if found < OLDEST_JAX:
        oldest = ".".join(map(str, OLDEST_JAX))
        raise ImportError(f"Athlete needs JAX {oldest} or newer, and this is JAX {version}: pip install -U jax")


require_jax()
