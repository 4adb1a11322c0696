"""Workers that act by themselves in processes of this machine: fresh interpreters, spoken to through their pipes.

As trials' processes they never run the user's main module again; what is defined there travels by value.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Literal

from athlete.core import Env, Health, Source
from athlete.env.adapters.parent import end_with_parent
from athlete.env.errors import EnvError
from athlete.env.supervision import Supervision
from athlete.env.world import World
from athlete.env.wrappers.info_metrics import with_info_metrics
from athlete.log import logger
from athlete.loops.episodes import WatchedSource
from athlete.loops.evaluation_workers import Sharing
from athlete.loops.workers import Arrival, Worker

PATIENCE = 2.0  # seconds in which a process is to end by itself
_START = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from athlete import worker_processes; worker_processes.main()"
)
_CLOSED = "the workers were closed"
# In the place of a serial:
_READY = -1  # its environments are made
_LAST_WORDS = -2  # why it ends


def make_source(
    world: World,
    num_workers: int,
    num_envs_per_worker: int,
    supervision: Supervision,
    seed: int,
    info_metrics: Sequence[str] | Literal[True],
    worker: int,
) -> Source:
    """The rows of a worker. Called in its process."""
    source = world.source(
        num_workers=num_workers,
        num_envs_per_worker=num_envs_per_worker,
        supervision=supervision,
        seed=seed,
        worker=worker,
    )
    return WatchedSource(source, None, frozenset(), None, info_metrics) if info_metrics else source


def make_evaluated(
    world: World, sharing: Sharing, supervision: Supervision, info_metrics: Sequence[str] | Literal[True], worker: int
) -> Env | Source:
    """What a worker of evaluations plays in: of environments outside JAX its rows. Called in its process."""
    if world.env is not None:
        return with_info_metrics(world.env, info_metrics)
    source = world.source(
        num_workers=sharing.team_size,
        num_envs_per_worker=sharing.each,
        seeded_resets=True,
        supervision=supervision,
        seed=0,  # the same environments for every policy
        worker=worker % sharing.team_size,
        most_rows=sharing.rows,
    )
    return WatchedSource(source, None, frozenset(), None, info_metrics, first_only=True) if info_metrics else source


class Losses:
    """What happens where a worker of `rows` rows is lost, by `fault_tolerance(...)`, and how many were."""

    def __init__(self, supervision: Supervision, rows: int):
        self._supervision, self._rows = supervision, rows
        self._restarts = self._lost_rows = 0

    def take(self, worker: int, sentence: str, health: Health) -> Arrival:
        """The arrival that tells of a loss: with an error, or of a worker that is to begin anew. `health` was its."""
        first, supervision = worker * self._rows, self._supervision
        sentence = f"{sentence}, and with it the rows {first} to {first + self._rows - 1}"
        if not supervision.recreate_workers:
            error = EnvError(f"{sentence}; fault_tolerance(recreate_failed_workers=True) begins it anew")
            return Arrival(worker, error=error, lost=True)
        if self._restarts >= supervision.max_restarts:
            limit = f"fault_tolerance(max_num_worker_restarts={supervision.max_restarts})"
            return Arrival(worker, error=EnvError(f"{sentence}. No more is begun anew: {limit}"), lost=True)
        logger.warning("%s; it begins anew", sentence)
        self._restarts += 1
        self._lost_rows += self._rows + health.faulty_episodes
        return Arrival(worker, lost=True)

    def health(self, alive: int, workers: Sequence[Health]) -> Health:
        """Of all workers, so many of which are alive."""
        return Health(alive, self._restarts, self._lost_rows + sum(health.faulty_episodes for health in workers))


def surroundings() -> dict[str, str]:
    """Variables of a worker's environment: many share a machine, so each computes on one thread of the CPU."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
    return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


class ProcessWorkers:
    """`count` workers with `rows` rows each.

    Raises EnvError from `start` and gives it from `next`: an environment fails, or a process dies or hangs that is not
    to begin anew.
    """

    def __init__(self, make: Callable[[int], Worker], count: int, rows: int, supervision: Supervision):
        """`make` makes what answers the tasks of the worker whose number it is told, in its process."""
        import cloudpickle  # a dependency of Gymnasium

        self.count = count
        self._made = cloudpickle.dumps(make)
        self._processes: list[subprocess.Popen | None] = [None] * count
        self._arrivals: queue.SimpleQueue[tuple[int, Arrival]] = queue.SimpleQueue()  # with the process's number
        self._last_words = [""] * count
        self._health = [Health()] * count
        self._losses = Losses(supervision, rows)

    def start(self) -> None:
        waiting = {worker for worker in range(self.count) if self._processes[worker] is None}
        for worker in waiting:
            self._begin(worker)
        of_others = []
        while waiting:
            pid, arrival = self._arrivals.get()
            process = self._processes[arrival.worker]
            if process is None:
                raise EnvError(_CLOSED)
            if arrival.worker not in waiting or pid != process.pid:
                of_others.append((pid, arrival))
                continue
            error = arrival.error
            if arrival.lost:
                made = "while it made its environments; what it printed is above"
                error = EnvError(f"{self._ending(arrival.worker)} {made}")
            if error is not None:
                self.close()
                raise error
            waiting.discard(arrival.worker)
        for each in of_others:
            self._arrivals.put(each)

    def _begin(self, worker: int) -> None:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START],  # -P: nothing is imported from the current folder by itself
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **surroundings()},
            **_own_group(),
        )
        self._processes[worker], self._last_words[worker] = process, ""
        self._send(worker, pickle.dumps([os.getcwd() if entry == "" else entry for entry in sys.path]))
        self._send(worker, self._made)
        self._send(worker, pickle.dumps(worker))
        # It holds neither the process nor these workers: who forgets to close them ends them all the same.
        reader = threading.Thread(
            target=_pass_on, args=(worker, process.pid, process.stdout, self._arrivals), daemon=True
        )
        reader.start()

    def _send(self, worker: int, message: bytes) -> None:
        process = self._processes[worker]
        assert process is not None and process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # the reading thread tells of a dead process
            process.stdin.write(message)
            process.stdin.flush()

    def ask(self, worker: int, task: Any) -> None:
        if self._processes[worker] is None:
            self.start()
        self._send(worker, pickle.dumps(task, protocol=pickle.HIGHEST_PROTOCOL))

    def next(self) -> Arrival:
        while True:
            pid, arrival = self._arrivals.get()
            process = self._processes[arrival.worker]
            if process is None and not self.processes:
                return Arrival(arrival.worker, error=EnvError(_CLOSED), lost=True)
            if process is None or pid != process.pid:
                continue  # the end of one that was replaced
            if arrival.lost:
                return self._after_loss(arrival.worker)
            if arrival.serial == _LAST_WORDS:
                self._last_words[arrival.worker] = str(arrival.error)
            elif arrival.serial != _READY or arrival.error is not None:
                if arrival.fragment is not None:
                    self._health[arrival.worker] = arrival.fragment.health
                return arrival

    def _ending(self, worker: int) -> str:
        """How a process has ended, as the beginning of a sentence."""
        process = self._processes[worker]
        assert process is not None
        killed = " (killed; is the memory full?)" if process.wait() == -signal.SIGKILL else ""
        return f"worker process {worker} died with exit code {process.returncode}{killed}"

    def _after_loss(self, worker: int) -> Arrival:
        """A process has ended: begin it anew, or tell of it as an error."""
        sentence = self._ending(worker)
        if self._last_words[worker]:
            sentence = f"{self._last_words[worker]}. So {sentence}"
        arrival = self._losses.take(worker, sentence, self._health[worker])
        if arrival.error is not None:
            self._processes[worker] = None  # who asks it again has it begun
            return arrival
        self._health[worker] = Health()
        self._begin(worker)
        return arrival

    @property
    def processes(self) -> list[subprocess.Popen]:
        return [process for process in self._processes if process is not None]

    @property
    def health(self) -> Health:
        alive = sum(process.poll() is None for process in self.processes)
        return self._losses.health(alive, self._health)

    def close(self) -> None:
        begun, self._processes = self.processes, [None] * self.count
        for process in begun:
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()  # its end is the word to a process that waits for the next task
        for process in begun:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                _kill(process)
                process.wait()


def _pass_on(worker: int, pid: int, answers: Any, arrivals: queue.SimpleQueue) -> None:
    """Pass on what a process answers, until it ends."""
    with contextlib.suppress(Exception):  # whatever cannot be read is the end
        while True:
            serial, fragment, error = pickle.load(answers)
            arrivals.put((pid, Arrival(worker, serial, fragment, error)))
    arrivals.put((pid, Arrival(worker, lost=True)))


def _kill(process: subprocess.Popen) -> None:
    """Kill a process and, where groups exist, what its environments have started."""
    if sys.platform == "win32":
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _own_group() -> dict[str, Any]:
    """Ctrl-C in a terminal goes to the whole process group; only the parent shall hear it, and decide."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def main() -> None:
    """The life of a worker: make its rows, then collect until the parent closes the pipe, or is no more."""
    end_with_parent()
    tasks, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what environments print is not among the answers
    sys.stdout = sys.stderr
    logger.setLevel(logging.ERROR)  # the parent made the same environment and said what there is to say
    lock = threading.Lock()

    def answer(serial: int, fragment: Any, error: Exception | None) -> None:
        with lock:
            answers.write(pickle.dumps((serial, fragment, error), protocol=pickle.HIGHEST_PROTOCOL))
            answers.flush()

    collector = None
    try:
        make = pickle.load(tasks)
        collector = make(pickle.load(tasks))
    except Exception:
        answer(_READY, None, EnvError(f"{traceback.format_exc()}while a worker made its environments"))
        return
    threading.Thread(target=end_where_hung, args=(collector.source, answer), daemon=True).start()
    answer(_READY, None, None)
    with contextlib.suppress(EOFError), contextlib.closing(collector):
        while True:
            task: Any = pickle.load(tasks)
            answer(task.serial, *tried(functools.partial(collector.collect, task)))


def tried(collect: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """What a worker's work gives, or the error that is told of it."""
    try:
        return collect(), None
    except EnvError as error:
        return None, error
    except Exception:
        return None, RuntimeError(f"{traceback.format_exc()}in a worker")


def end_where_hung(source: Source, answer: Callable) -> None:
    """End this process where an environment does not come back and cannot be broken off; `answer` tells why first."""
    pause, told = threading.Event(), ""
    while not pause.wait(PATIENCE / 2):
        try:
            source.raise_if_hung()
            told = ""
        except EnvError as error:
            if told == str(error):  # still, and it was to be broken off
                answer(_LAST_WORDS, None, error)
                os._exit(1)
            told = str(error)
