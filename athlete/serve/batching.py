"""Requests that come at the same time are answered by one call of the policy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from athlete.core import Tree
from athlete.policy import Policy


class Asked(NamedTuple):
    """One action that somebody waits for."""

    row: Tree  # what `Policy.row` gave
    state: Tree
    explore: bool
    answer: asyncio.Future


class Batcher:
    """Answers what has come while the last batch was computed, at most `largest` at a time.

    The policy works in a thread of its own, so that requests are read meanwhile: under load batches grow by themselves,
    and a request that comes alone waits for nobody.
    """

    def __init__(self, get_policy: Callable[[], Policy], largest: int, told: Callable[[int], None]):
        self.largest = largest
        self._get_policy, self._told = get_policy, told
        self._waiting: list[Asked] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="policy")
        self._worker: asyncio.Task | None = None

    async def act(self, row: Tree, state: Tree, explore: bool) -> tuple[Any, Tree]:
        """`(action, state)` as `Policy.act_each` gives them."""
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(Asked(row, state, explore, answer))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            explore = self._waiting[0].explore
            batch = [asked for asked in self._waiting if asked.explore == explore][: self.largest]
            taken = set(map(id, batch))
            self._waiting = [asked for asked in self._waiting if id(asked) not in taken]
            try:
                found: Sequence[Any] = await loop.run_in_executor(self._thread, self._answers, batch, explore)
            except Exception as error:
                found = [error] * len(batch)
            self._told(len(batch))
            for asked, result in zip(batch, found, strict=True):
                if asked.answer.done():  # whoever asked has gone
                    continue
                if isinstance(result, Exception):
                    asked.answer.set_exception(result)
                else:
                    asked.answer.set_result(result)

    def _answers(self, batch: list[Asked], explore: bool) -> list[tuple[Any, Tree]]:
        rows, states = [asked.row for asked in batch], [asked.state for asked in batch]
        return self._get_policy().act_each(rows, states, explore)

    def close(self) -> None:
        self._thread.shutdown(wait=False)
