"""What holds for all tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def _programs_of_a_module_go_with_it() -> Iterator[None]:
    """Compiled programs are memory maps, of which a process may have some 65,000: thousands of programs use them up."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
