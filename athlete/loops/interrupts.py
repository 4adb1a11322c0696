"""Ctrl-C while a training advances: at once where environments step, else when the program that runs has ended."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Interrupts:
    """Within the block a first Ctrl-C is noted, and raised at its end; a second one is raised where it arrives, and so
    is every one while `at_once` is set, which says that nothing can be lost.

    A program uses up the state it is given, so an exception between its call and the assignment of what it returns
    would lose the training. Handlers of the user's own are left alone; outside the main thread none can be set.
    """

    def __init__(self) -> None:
        self.noted = False
        self.at_once = False
        self._installed = False

    def __enter__(self) -> Interrupts:
        self.noted = self.at_once = False
        in_main_thread = threading.current_thread() is threading.main_thread()
        self._installed = in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._installed:
            signal.signal(signal.SIGINT, self._handle)
        return self

    def _handle(self, *_: Any) -> None:
        if self.at_once or self.noted:
            raise KeyboardInterrupt
        self.noted = True

    def raise_noted(self) -> None:
        """Raise the Ctrl-C that came meanwhile."""
        if self.noted:
            raise KeyboardInterrupt

    def __exit__(self, kind: Any, *_: Any) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if kind is None:
            self.raise_noted()
