"""Episodes that are being played by clients: what the network remembers of each."""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from athlete.core import Tree
from athlete.serve.answers import as_json


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

    # Over a restart -----------------------------------------------------------------------------------------------

    def write(self, path: Path) -> None:
        """Keep all sessions in a file, arrays and JSON."""
        kept = {name: session for name, session in self._by_name.items() if session.state is not None}
        columns = zip(*(jax.tree.leaves(session.state) for session in kept.values()), strict=True)
        arrays: Any = {f"state_{i}": np.concatenate(column) for i, column in enumerate(columns)}
        about = [[name, session.steps, as_json(session.action)] for name, session in kept.items()]
        beside = path.with_name(f".tmp-{path.name}")
        with beside.open("wb") as file:
            np.savez(file, about=np.array(json.dumps(about)), **arrays)
        beside.replace(path)

    def read(self, path: Path, start: Tree) -> None:
        """Take in the sessions of a file; `start` is a state of one row in the shapes that they must have.

        Raises ValueError where they are of another network, or the file holds none.
        """
        leaves: list[Any]
        structure: Any
        leaves, structure = jax.tree.flatten(start)
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            columns = [file[f"state_{i}"] for i in range(len(leaves))] if about else []
        for column, leaf in zip(columns, leaves, strict=bool(about)):
            if (column.shape, column.dtype) != ((len(about), *leaf.shape[1:]), leaf.dtype):
                raise ValueError(f"{path} holds sessions of another network")
        for i, (name, steps, action) in enumerate(about):
            session = self.get(name)
            session.state = structure.unflatten([column[i : i + 1] for column in columns])
            session.steps, session.action = steps, action
