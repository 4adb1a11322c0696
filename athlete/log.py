"""The lines that Athlete says: through `logging`, and on the screen even where a program has not set logging up."""

from __future__ import annotations

import logging
import sys

logger = logging.getLogger("athlete")


class Screen(logging.Handler):
    """Prints each text once to stderr (trials of one experiment say the same), where the program has no handler."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if logging.getLogger().handlers or text in self._said:
            return
        self._said.add(text)
        print(text, file=sys.stderr)  # looked up anew each time: a live table replaces sys.stderr while it runs


def set_level(level: str) -> None:
    """Show lines of this level and above: RLlib's `log_level`, "DEBUG" to "ERROR"."""
    logger.setLevel("WARNING" if level == "WARN" else level)


def show_log(verbose: int) -> None:
    """The command line's choice: everything from `-vv` on."""
    logger.setLevel(logging.DEBUG if verbose > 1 else logging.INFO)


if not logger.handlers:
    logger.addHandler(Screen())
    logger.setLevel(logging.INFO)
