"""A memory of recorded steps that is filled anew between updates: data of which a part at a time is in memory."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np

from athlete.core import Memory, Transition
from athlete.loops.compiling import COMPILER_OPTIONS
from athlete.loops.devices import Devices
from athlete.memory.mixed import mixed
from athlete.memory.recorded import Recorded, room_for_recorded
from athlete.memory.replay import Replay
from athlete.memory.ring import ring_add
from athlete.ops.devices import everywhere


class Feed(NamedTuple):
    """Recorded steps that come without end, `length` at once, of which the last `number` such chunks are in memory."""

    replay: Replay  # as which they are sampled
    length: int
    number: int
    chunks: Callable[[int, int], Iterator[Transition]]  # a seed and a number -> that chunk, `[length, 1, ...]`, and on

    @property
    def batch_size(self) -> int:
        return self.replay.batch_size


class Refill:
    """A memory, each of whose `parts` holds recorded steps, or takes in the next chunk of its feed after every
    `every` updates.

    What it holds is told by `seed` and the number of updates alone, so that a training that is restored reads it
    again. The next chunks are read while the learner is at work.
    """

    def __init__(self, parts: Sequence[Recorded | Feed], every: int, seed: int):
        self.batch_size = sum(part.batch_size for part in parts)
        self.seed = seed
        self._parts, self._every = parts, every
        self._filled: list[_Filled | Recorded] = []
        self._told_by: tuple[int, int] | None = None  # what it is filled for: a seed, and how many chunks have gone

    def updates_left(self, iteration: int) -> int:
        """How many updates come before the next chunks, after `iteration` of them."""
        return self._every - iteration % self._every

    def at(self, iteration: int, devices: Devices) -> Memory:
        """The memory after so many updates, on these devices; it uses up the one that was given before."""
        now = self.seed, iteration // self._every
        if now != self._told_by:
            goes_on = (self.seed, now[1] - 1) == self._told_by
            self._told_by = None  # unless all goes well
            if not goes_on:
                self._filled = []  # lets go of the memory before there is another
                self._filled = [
                    _Filled(part, *now, devices) if isinstance(part, Feed) else devices.everywhere(jax.device_put(part))
                    for part in self._parts
                ]
            for part in self._filled if goes_on else ():
                if isinstance(part, _Filled):
                    part.take_in()
            self._told_by = now
        return mixed([part.memory if isinstance(part, _Filled) else part for part in self._filled])


class _Filled:
    """A ring that holds the chunks from `first` on."""

    def __init__(self, feed: Feed, seed: int, first: int, devices: Devices):
        self._coming, self._devices = _ahead(feed.chunks(seed, first)), devices
        example = jax.tree.map(lambda leaf: np.zeros(leaf.shape[2:], leaf.dtype), steps := next(self._coming))
        self.memory = devices.everywhere(room_for_recorded(feed.replay, example, feed.number * feed.length))
        self._write(steps)
        for _ in range(feed.number - 1):
            self.take_in()

    def take_in(self) -> None:
        """The next chunk, in the place of the oldest."""
        self._write(next(self._coming))

    def _write(self, steps: Transition) -> None:
        with self._devices.set():
            self.memory = _written(self.memory, self._devices.everywhere(steps))


@functools.partial(jax.jit, donate_argnames=("memory",), compiler_options=COMPILER_OPTIONS)
def _written(memory: Recorded, steps: Transition) -> Recorded:
    return everywhere(dataclasses.replace(memory, steps=ring_add(memory.steps, steps)))


def _ahead(chunks: Iterator[Transition]) -> Iterator[Transition]:
    """The same, of which the next one is made in a thread while one is used."""
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(next, chunks)
        while True:
            chunk = waiting.result()
            waiting = executor.submit(next, chunks)
            yield chunk


def rechunked(parts: Iterable[Transition], length: int) -> Iterator[Transition]:
    """The same steps `[N, 1, ...]`, `length` at once; where they end, the last ones may be fewer."""
    held: list[Transition] = []
    steps = 0
    for part in parts:
        start, size = 0, len(part.reward)
        while start < size:
            stop = min(size, start + length - steps)
            held.append(jax.tree.map(lambda leaf, start=start, stop=stop: leaf[start:stop], part))
            steps, start = steps + stop - start, stop
            if steps == length:
                yield _joined(held)
                held, steps = [], 0
    if held:
        yield _joined(held)


def _joined(parts: list[Transition]) -> Transition:
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
