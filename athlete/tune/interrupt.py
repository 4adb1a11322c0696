"""Ctrl-C that lets the running iteration end."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from typing import Any


class Interrupt:
    """Within the block the first Ctrl-C (or SIGTERM) only sets `requested`; a second one raises KeyboardInterrupt.

    Training is never cut in the middle of an iteration, so what is saved then is whole. After the block a SIGTERM is
    raised again, for whoever else waits for it. Outside the main thread signals cannot be caught, and are not.
    """

    def __init__(self, say: Callable[[str], None]):
        self.requested = False
        self._say = say
        self._signal = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested, self._signal = True, number
        with contextlib.suppress(RuntimeError):  # printing may be just what was interrupted
            self._say("Interrupted: finishing the running iteration, then saving. Once more ends at once, unsaved.")

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._signal == signal.SIGTERM:
            signal.raise_signal(signal.SIGTERM)
