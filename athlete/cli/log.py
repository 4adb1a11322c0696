"""What the library logs, on the terminal."""

from __future__ import annotations

import logging
import sys


class Lines(logging.Handler):
    """Log records as lines of standard error, each text once: trials of one experiment say the same things."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self._said:
            self._said.add(text)
            print(text, file=sys.stderr)  # looked up anew each time: a live table replaces sys.stderr while it runs


def show_log(verbose: int) -> None:
    """Show what the library logs: which environments run compiled, which settings mean nothing here."""
    logger = logging.getLogger("athlete")
    logger.handlers = [Lines()]
    logger.setLevel(logging.DEBUG if verbose > 1 else logging.INFO)
    logger.propagate = False
