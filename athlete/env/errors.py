"""What can go wrong while an environment runs. Imports nothing, so that worker processes start fast."""

from __future__ import annotations


class EnvError(RuntimeError):
    """An environment failed in the middle of its work, or the process it lives in died.

    The message begins with the environment's own traceback, if there is one, and then says which row, seed, episode,
    step and action it was.
    """
