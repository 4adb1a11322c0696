"""Processes that end with the one that they work for. No JAX here, since worker processes import it."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import threading
import time

_POLL = 0.5  # seconds between two looks where the system tells nothing


def end_with_parent() -> None:
    """End this process when its parent is no more, whatever ended that: `kill -9` leaves it no time to say so."""
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent_id: int) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
    elif os.name == "nt":
        return  # children of a Popen are not told there
    else:
        while os.getppid() == parent_id:
            time.sleep(_POLL)
    os._exit(1)
