"""Random numbers that environments draw outside of their own generator: Python's and NumPy's global ones, and spaces'.

Imports neither JAX nor Gymnasium, since worker processes use it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


def seed_global_generators(seed: int) -> None:
    """Seed `random` and `np.random` of this process."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (it is what environments use)


@contextmanager
def global_generators_kept() -> Iterator[None]:
    """Leave `random` and `np.random` as they were before: what is played inside shall not change what comes after."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def seed_spaces(env: Any, seed: int) -> None:
    """Seed the spaces of an environment and of what it wraps: many draw from `observation_space.sample()`."""
    for level in (env, getattr(env, "unwrapped", env)):
        for name in ("observation_space", "action_space"):
            seed_space = getattr(getattr(level, name, None), "seed", None)
            if callable(seed_space):
                seed_space(seed)
