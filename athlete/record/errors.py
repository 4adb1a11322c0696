"""What goes wrong with files. Imports nothing: it is on the way to `import athlete.tune`."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint that cannot be written or read; the message is one sentence that says which and why."""


class DamagedError(CheckpointError):
    """A checkpoint that is not what was written, or whose values cannot be: one before it may still be whole."""


class LockedError(RuntimeError):
    """Another process, or another thread of this one, holds a lock; the message says who."""
