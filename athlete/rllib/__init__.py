"""RLlib's module paths: a program that says `athlete` where it said `ray` finds what it imports.

`names.py` has the one table of where things are; the modules are made of it when they are imported. Only what RLlib has
and Athlete has not under another name stands here: `trainer.py` and `utilities.py`.
"""

from __future__ import annotations

from typing import Any

from athlete.rllib.names import find


def __getattr__(name: str) -> Any:
    return find("rllib", name)
