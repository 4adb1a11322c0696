"""Workers that act by themselves in a Ray cluster, each an actor (`athlete/cluster.py`)."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from typing import Any

from athlete.cluster import PATIENCE, Actors, Request, connect, require_room
from athlete.core import Health
from athlete.env.errors import EnvError
from athlete.env.supervision import Supervision
from athlete.log import logger
from athlete.loops.workers import Arrival, Leaves, Task, Worker
from athlete.worker_processes import Losses, end_where_hung, surroundings, tried


class Acting:
    """A worker, as an actor."""

    def __init__(self, make: Callable[[int], Worker], worker: int):
        logger.setLevel(logging.ERROR)  # who sent it made the same environment and said what there is to say
        self._worker = make(worker)
        watch = functools.partial(end_where_hung, self._worker.source, self._say)
        threading.Thread(target=watch, daemon=True).start()

    def _say(self, serial: int, answer: Any, error: Exception) -> None:
        logger.error("%s", error)  # Ray prints it where the training runs

    def __call__(self, task: Any, view: Leaves | None) -> tuple[int, Any, Exception | None]:
        if view is not None:
            task = task._replace(view=view)
        return task.serial, *tried(functools.partial(self._worker.collect, task))

    def close(self) -> None:
        self._worker.close()


class RayWorkers:
    """`count` workers with `rows` rows each in a cluster.

    As `ProcessWorkers`: it raises EnvError from `start` and gives it from `next`. A worker that is lost, with its node
    or alone, begins anew wherever there is room; while there is none it waits, until a node joins.
    """

    def __init__(
        self,
        make: Callable[[int], Worker],
        count: int,
        rows: int,
        supervision: Supervision,
        place: tuple[bool | str, Request],
    ):
        """`place`: the address of the cluster, and what a worker holds of it. For `make` see `ProcessWorkers`."""
        self.count, self._make = count, make
        self._address, self._request = place
        self._actors: Actors | None = None
        self._losses = Losses(supervision, rows)
        self._ready: set[int] = set()
        self._health = [Health()] * count
        self._view: tuple[Leaves, Any] = [], None  # that was sent last, and the reference to it

    def start(self) -> None:
        """Have all workers ready. Raises ValueError where the cluster has no room for them, and as `connect`."""
        asked = f"resources(ray={self._address!r})"
        ray = connect(self._address, asked)
        advice = "take fewer workers, num_cpus_per_worker=0.5 or the like, or add nodes"
        require_room(ray, self._request, self.count, f"{asked}, {self.count} workers", advice)
        self._actors = actors = Actors(ray, self._request, self.count, surroundings())
        for worker in range(self.count):
            self._begin(actors, worker)
        try:
            while len(self._ready) < self.count:
                answer = actors.next(10 * PATIENCE)
                if answer is None:
                    waiting = self.count - len(self._ready)
                    logger.warning("%d of %d workers wait for room in the cluster", waiting, self.count)
                elif answer.error:
                    raise EnvError(f"worker {answer.number} cannot be made in the cluster: {answer.error}")
                else:
                    self._ready.add(answer.number)
        except BaseException:
            self.close()
            raise

    def _begin(self, actors: Actors, worker: int) -> None:
        self._ready.discard(worker)
        self._health[worker] = Health()
        actors.begin(worker, functools.partial(Acting, self._make, worker))

    def ask(self, worker: int, task: Any) -> None:
        if self._actors is None:
            self.start()
        assert self._actors is not None
        if not isinstance(task, Task):
            self._actors.ask(worker, task, None)
            return
        if self._view[0] is not task.view:
            self._view = task.view, self._actors.put(task.view)
        self._actors.ask(worker, task._replace(view=[]), self._view[1])

    def next(self) -> Arrival:
        while True:
            actors = self._actors
            answer = None if actors is None else actors.next(PATIENCE)
            if actors is None or actors is not self._actors:
                return Arrival(0, error=EnvError("the workers were closed"), lost=True)
            if answer is None:
                continue
            worker = answer.number
            if answer.lost:
                return self._after_loss(actors, worker, f"worker {worker} was lost ({answer.error})")
            if answer.error:
                self._begin(actors, worker)
                return Arrival(worker, error=EnvError(f"worker {worker}: {answer.error}"), lost=True)
            if not answer.made:
                serial, fragment, error = answer.value
                if fragment is not None:
                    self._health[worker] = fragment.health
                return Arrival(worker, serial, fragment, error)
            self._ready.add(worker)

    def _after_loss(self, actors: Actors, worker: int, sentence: str) -> Arrival:
        arrival = self._losses.take(worker, sentence, self._health[worker])
        self._begin(actors, worker)  # also where it is an error: the next trajectory may be asked for
        return arrival

    @property
    def health(self) -> Health:
        return self._losses.health(len(self._ready), self._health)

    def close(self) -> None:
        actors, self._actors = self._actors, None
        self._ready.clear()
        if actors is not None:
            actors.close()
