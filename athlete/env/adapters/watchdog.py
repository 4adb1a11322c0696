"""Environments of this process that do not come back from a step or a reset. No JAX here."""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
import time
import weakref
from types import FrameType
from typing import Any, Protocol

from athlete.log import logger

_dogs: weakref.WeakSet[Watchdog] = weakref.WeakSet()


class Watched(Protocol):
    """Rows that say where they are."""

    def at_work(self) -> tuple[int, int] | None:
        """The number of the call and the row that is at work in it; None between calls."""


class Watchdog:
    """Breaks off a call of `rows` in which one row is at work for more than `seconds`: TimeoutError is raised there.

    In the main thread a signal does it (SIGURG, which nobody else uses), so that a sleep is broken off too; in others
    it is raised between two lines of Python. What waits in foreign code is not reached; `hung` tells of it.
    """

    def __init__(self, rows: Watched, seconds: float):
        self.hung: int | None = None  # the row that does not come back
        self._rows, self._seconds = weakref.ref(rows), seconds
        self._ended = threading.Event()
        _listen()
        _dogs.add(self)
        threading.Thread(target=self._watch, daemon=True).start()

    def sentence(self) -> str:
        return f"it did not come back within {self._seconds:g} seconds (rollouts(env_timeout={self._seconds:g}))"

    def end(self) -> None:
        self._ended.set()

    def is_in_call(self, frame: FrameType | None) -> bool:
        """Whether a frame, or one that called it, is a call of the rows."""
        rows = self._rows()
        while frame is not None:
            if frame.f_code.co_name in ("step_each", "reset") and frame.f_locals.get("self") is rows:
                return True
            frame = frame.f_back
        return False

    def _watch(self) -> None:
        since, mark = time.monotonic(), None
        while not self._ended.wait(min(1.0, self._seconds / 4)):
            rows = self._rows()
            if rows is None:
                return
            now = rows.at_work()
            if now is None or now != mark:
                since, mark, self.hung = time.monotonic(), now, None
            elif time.monotonic() - since >= self._seconds:
                since, self.hung = time.monotonic(), now[1]
                logger.error("the environment of row %d: %s", now[1], self.sentence())
                self._break_off()
            del rows

    def _break_off(self) -> None:
        for ident, frame in sys._current_frames().items():
            if not self.is_in_call(frame):
                continue
            if ident == threading.main_thread().ident and hasattr(signal, "SIGURG"):
                signal.pthread_kill(ident, signal.SIGURG)
            else:
                said = self.sentence()  # only a class can be raised in another thread: it knows what to say
                error = type("TimeoutError", (TimeoutError,), {"__str__": lambda _, said=said: said})
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(error))


def _listen() -> None:
    """Take SIGURG, where it is free and can be taken."""
    if not hasattr(signal, "SIGURG") or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGURG) in (signal.SIG_DFL, signal.SIG_IGN):
        signal.signal(signal.SIGURG, _bite)


def _bite(number: int, frame: Any) -> None:
    for dog in list(_dogs):
        if dog.hung is not None and dog.is_in_call(frame):
            dog.hung = None
            raise TimeoutError(dog.sentence())
