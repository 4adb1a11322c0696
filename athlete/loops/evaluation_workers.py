"""Episodes of evaluations, played by workers: who plays which, and what comes of it.

Episodes are played in the waves of `evaluate_hosted` or `evaluate_compiled`, from the same keys, so that they are the
same to the last bit wherever they are played and by how many. The rows of a wave outside JAX are shared out among
workers, and waves among as many teams of workers as there are. Waves of a compiled environment stay whole.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from athlete.core import Agent, Array, Env, Health, Source, Tree
from athlete.loops.compiling import set_up
from athlete.loops.episodes import Told
from athlete.loops.evaluate import (
    LONGEST_EPISODE,
    Evaluation,
    joined_evaluation,
    play_compiled,
    play_hosted,
    warn_of_cut,
)
from athlete.loops.transport import on_device
from athlete.loops.workers import Leaves, Workers


class WaveTask(NamedTuple):
    """What a worker is asked: its rows of a wave."""

    serial: int  # the answer has it too
    view: Leaves
    key: Array  # uint32 [2], of the evaluation
    start: int  # episodes before this wave
    episodes: int  # of this wave that count
    explore: bool
    with_carry: bool = False


class Wave(NamedTuple):
    """What came of a worker's episodes of a wave, in the order of its rows."""

    serial: int
    returns: Array
    lengths: Array
    told: Sequence[Told]
    health: Health
    carry: Sequence[Array] = ()  # leaves, where it was asked for


class EvaluationWorker:
    """What a worker of evaluations is: `make` gives a JAX environment or a source of which its own rows are there."""

    def __init__(self, agent: Agent, view: Tree, make: Callable[[int], Env | Source], worker: int):
        """`view` shows what the leaves of a view are built into."""
        set_up()
        self.agent: Agent = jax.tree.map(on_device, agent)
        self._structure = jax.tree.structure(view)
        made = make(worker)
        self._env = made if isinstance(made, Env) else None
        self.source = Source() if isinstance(made, Env) else made

    def collect(self, task: WaveTask) -> Wave:
        """The episodes. Raises what the environments raise."""
        view = jax.device_put(jax.tree.unflatten(self._structure, task.view))
        wave = task.key, task.start, task.episodes, task.explore, task.with_carry
        if self._env is not None:
            played = play_compiled(self.agent, self._env, view, *wave)
        else:
            played = play_hosted(self.agent, self.source, view, *wave)
        carry = [np.asarray(leaf) for leaf in jax.tree.leaves(played.carry)]
        return Wave(task.serial, played.returns, played.lengths, played.told, self.source.health, carry)

    def close(self) -> None:
        self.source.close()


class Sharing(NamedTuple):
    """Who plays what: of each wave of `rows` episodes every member of a team has `each`, the last one the rest."""

    rows: int
    each: int
    teams: int

    @property
    def team_size(self) -> int:
        return math.ceil(self.rows / self.each)

    @property
    def workers(self) -> int:
        return self.teams * self.team_size

    def first_row(self, worker: int) -> int:
        return worker % self.team_size * self.each

    def start(self, worker: int, wave: int) -> int:
        """Episodes before the `wave`-th wave of a worker."""
        return (wave * self.teams + worker // self.team_size) * self.rows


def share_out(rows: int, workers: int, whole: bool) -> Sharing:
    """Waves of `rows` episodes for at most so many workers. `whole`: a wave is one worker's."""
    each = rows if whole else math.ceil(rows / min(rows, workers))
    return Sharing(rows, each, max(1, workers // math.ceil(rows / each)))


class EvaluationWorkers:
    """Plays evaluations on workers. One at a time; what one that was broken off has left under way does not count."""

    def __init__(self, workers: Workers, sharing: Sharing):
        self.workers, self._sharing = workers, sharing
        self._serial = self._since = 0  # the newest task, and the first of the evaluation under way

    def play(
        self, view: Tree, key: Array, episodes: int | None, explore: bool, goes_on: Callable[[], bool] | None = None
    ) -> Evaluation:
        """`episodes` episodes; where it is None every worker plays waves, one at least, for as long as it `goes_on`.

        All episodes that were begun are finished and count, so that short ones are not favoured. Raises EnvError.
        """
        task = WaveTask(0, _leaves(view), np.asarray(key), 0, self._sharing.rows, explore)
        return self._play(task, episodes, goes_on)

    def play_members(self, members: Callable[[int], Tree], key: Array, episodes: int) -> Evaluation:
        """`episodes` episodes, exploring, each wave with a view of its own: `members(start)`, told the first episode.

        The carry is a list of leaves.
        """
        task = WaveTask(0, [], np.asarray(key), 0, self._sharing.rows, True, with_carry=True)
        return self._play(task, episodes, members=members)

    def _play(
        self,
        task: WaveTask,
        episodes: int | None,
        goes_on: Callable[[], bool] | None = None,
        members: Callable[[int], Tree] | None = None,
    ) -> Evaluation:
        self._since = self._serial + 1
        asked: dict[int, tuple[int, WaveTask]] = {}  # by worker: the number of its wave
        played: list[tuple[int, int, Evaluation]] = []
        for worker in range(self._sharing.workers):
            self._ask(asked, worker, 0, task, episodes, members)
        while asked:
            arrival = self.workers.next()
            worker = arrival.worker
            if arrival.error is not None and (arrival.lost or arrival.serial >= self._since):
                raise arrival.error
            if arrival.lost:
                if worker in asked:
                    self.workers.ask(worker, asked[worker][1])
            elif arrival.fragment is not None and arrival.serial >= self._since:
                wave, done = asked.pop(worker)
                part: Wave = arrival.fragment
                evaluation = Evaluation(part.returns, part.lengths, tuple(part.told), part.carry)
                played.append((done.start, self._sharing.first_row(worker), evaluation))
                if episodes is not None or (goes_on is not None and goes_on()):
                    self._ask(asked, worker, wave + 1, task, episodes, members)
        found = joined_evaluation([part for *_, part in sorted(played, key=lambda each: each[:2])])
        warn_of_cut(found.lengths >= LONGEST_EPISODE)
        return found

    def _ask(
        self,
        asked: dict[int, tuple[int, WaveTask]],
        worker: int,
        wave: int,
        task: WaveTask,
        episodes: int | None,
        members: Callable[[int], Tree] | None,
    ) -> None:
        """Ask a worker for its part of a wave, if it has any in so many episodes."""
        start = self._sharing.start(worker, wave)
        count = self._sharing.rows if episodes is None else min(self._sharing.rows, episodes - start)
        if self._sharing.first_row(worker) < count:
            self._serial += 1
            if members is not None:
                task = task._replace(view=_leaves(members(start)))
            asked[worker] = wave, task._replace(serial=self._serial, start=start, episodes=count)
            self.workers.ask(worker, asked[worker][1])

    @property
    def health(self) -> Health:
        return self.workers.health

    def close(self) -> None:
        self.workers.close()


def _leaves(view: Tree) -> Leaves:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(jax.device_get(view))]


class Beside:
    """Work in a thread of its own, beside what this one does. `work` is told whether that still goes on."""

    def __init__(self, work: Callable[[Callable[[], bool]], Any]):
        self._over = threading.Event()
        self._outcome: list[Any] = []
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[Callable[[], bool]], Any]) -> None:
        try:
            self._outcome.append(work(lambda: not self._over.is_set()))
        except Exception as error:  # which belongs to who asks for the result
            self._error = error

    def result(self) -> Any:
        """Wait for what comes of it, which from now on is not beside anything. Raises what the work raised."""
        self._over.set()
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._outcome[0]
