"""Episodes that are being played by clients: what the network remembers of each."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import Any

from athlete.core import Tree


class Session:
    """One episode. Its lock keeps two requests of it in order."""

    def __init__(self) -> None:
        self.state: Tree = None
        self.action: Any = None  # the last one, which some networks see
        self.steps = 0
        self.used = time.monotonic()
        self.lock = asyncio.Lock()


class Sessions:
    """Sessions by name. One that was idle for `idle_s` seconds is forgotten; beyond `most` so is the idlest."""

    def __init__(self, most: int, idle_s: float):
        self.most, self.idle_s = most, idle_s
        self._by_name: OrderedDict[str, Session] = OrderedDict()  # the idlest first

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: str) -> Session:
        """The session of that name, begun if there is none."""
        now = time.monotonic()
        while self._by_name and now - next(iter(self._by_name.values())).used > self.idle_s:
            self._by_name.popitem(last=False)
        session = self._by_name.setdefault(name, Session())
        session.used = now
        self._by_name.move_to_end(name)
        if len(self._by_name) > self.most:
            self._by_name.popitem(last=False)
        return session

    def end(self, name: str) -> bool:
        """Forget a session; whether there was one."""
        return self._by_name.pop(name, None) is not None

    def clear(self) -> None:
        self._by_name.clear()
