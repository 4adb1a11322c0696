"""How environments that run outside JAX are looked after. Imports nothing, so that worker processes start fast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Supervision(NamedTuple):
    """What is done where an environment fails, hangs, or was made."""

    env_timeout: float | None = None  # seconds for a step or a reset; None: as long as it takes
    restart_rows: bool = False  # a row whose environment fails begins anew
    recreate_workers: bool = False  # so does a process that dies or hangs
    max_restarts: int = 1000  # of rows and processes together; the next failure is an error
    created: Callable[[Any, Any, int], None] | None = None  # called with (environment, its EnvContext, row)


UNSUPERVISED = Supervision()
