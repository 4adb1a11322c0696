"""What holds for all tests."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Trainings of tests leave no folders; those whose subject that is set another.
os.environ["ATHLETE_RESULTS_DIR"] = ""

# A shell that starts the tests in its background has interrupts ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

MAPS = Path("/proc/self/maps")  # of Linux
MANY = 30_000


def _forget_programs() -> None:
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


@pytest.fixture(autouse=True, scope="module")
def _programs_of_a_module_go_with_it() -> Iterator[None]:
    yield
    _forget_programs()


@pytest.fixture(autouse=True)
def _programs_go_before_they_are_too_many() -> Iterator[None]:
    """Compiled programs are memory maps, of which a process may have some 65,000: without one left, XLA aborts."""
    yield
    if MAPS.exists():
        with MAPS.open("rb") as lines:
            many = next(itertools.islice(lines, MANY, None), None) is not None
        if many:
            _forget_programs()
