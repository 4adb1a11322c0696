"""Rows in worker processes: each process steps its own, and writes what they give into shared memory.

No JAX here, since worker processes import it.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import multiprocessing
import multiprocessing.connection
import pickle
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np

from athlete import spaces
from athlete.env.adapters.buffers import Buffers, Members
from athlete.env.adapters.parent import end_with_parent
from athlete.env.adapters.rows import Answer, Info, LocalRows, Maker, Row, per_row, told
from athlete.env.errors import EnvError
from athlete.env.randomness import seed_global_generators
from athlete.env.supervision import UNSUPERVISED, Supervision
from athlete.log import logger

PATIENCE = 2.0  # seconds in which a process is to end by itself


@dataclass(frozen=True)
class Group:
    """The rows of one process: `makers` make those from `first` on, of `rows` in all processes."""

    makers: Sequence[Maker]
    first: int
    rows: int
    space: spaces.Space
    action_space: Any  # Gymnasium's
    restart_rows: bool = False
    agents: Sequence[Members] = ()  # where the environment has many
    seed: int | None = None  # of the global generators, for what draws while it is made


class LostProcessError(EnvError):
    """A worker process died or hung, while its environment of the row `row` was at work."""

    def __init__(self, message: str, row: int):
        super().__init__(message)
        self.row = row


class ProcessRows:
    """Rows in processes, `processes[i]` with those of `groups[i]`.

    Raises:
        EnvError: a row cannot be made, or a process died meanwhile. LostProcessError: a process died, from `reset` and
            `step`; from then on there is only `close`.
    """

    any_thread = True

    def __init__(self, groups: list[Group], supervision: Supervision = UNSUPERVISED):
        space, rows, agents = groups[0].space, groups[0].rows, groups[0].agents
        self.action_space = groups[0].action_space
        self.restarts = 0  # of processes
        self._context = _context()
        self.memory = self._context.RawArray("b", Buffers.size(space, rows, agents))  # type: ignore[attr-defined]
        self.buffers = Buffers(space, rows, self.memory, agents)
        self._groups, self._supervision = groups, supervision
        self._split = per_row(self.action_space)
        self._serials = itertools.count(1)
        self.processes: list[Any] = [None] * len(groups)
        self._pipes: list[Any] = [None] * len(groups)
        try:
            with _main_left_out():
                for i in range(len(groups)):
                    self._begin(i)
            answers, losses = self._received(0, range(len(groups)))
            for error in losses.values():
                raise EnvError(f"{error} while it made its environments; what it printed is above") from error
            self._require_made(answers.values())
        except BaseException:
            self.close()
            raise

    def _begin(self, i: int) -> None:
        """Start the process of group i."""
        import cloudpickle  # sends classes and functions of scripts and notebooks; a dependency of Gymnasium

        here, there = self._context.Pipe()
        process = self._context.Process(  # type: ignore[attr-defined]
            target=_serve, args=(there, cloudpickle.dumps(self._groups[i]), self.memory), daemon=True
        )
        process.start()
        there.close()  # so that the end of the process is the end of the pipe
        self.processes[i], self._pipes[i] = process, here

    def _require_made(self, answers: Iterable[Answer]) -> None:
        failures = {row: failure for made in answers for row, failure in made.failures.items()}
        if failures:
            made = "while its environment was being made"
            raise EnvError("\n\n".join(f"{text}\nThis was row {row}, {made}" for row, text in failures.items()))

    def reset(self, seed: int | None, where: np.ndarray) -> Answer:
        arguments = []
        for group in self._groups:
            own = where[group.first : group.first + len(group.makers)]
            arguments.append((None if seed is None else seed + group.first, own))
        return self._call("reset", arguments)

    def step(self, actions: Any) -> Answer:
        taken = self._split(actions)
        return self._call("step", [(taken[group.first : group.first + len(group.makers)],) for group in self._groups])

    def _call(self, method: str, arguments: list[tuple]) -> Answer:
        serial = next(self._serials)
        losses = {i: error for i in range(len(self._pipes)) if (error := self._sent(i, (serial, method, arguments[i])))}
        answers, lost = self._received(serial, [i for i in range(len(self._pipes)) if i not in losses])
        for i, error in (losses | lost).items():
            answers[i] = self._after_loss(i, error, method, arguments[i])
        infos: list[Info] = []
        failures: dict[int, str] = {}
        renewed: dict[int, str] = {}
        for i, group in enumerate(self._groups):
            answer = answers[i]
            infos.extend(answer.infos)
            failures.update({group.first + row: failure for row, failure in answer.failures.items()})
            renewed.update({group.first + row: failure for row, failure in (answer.renewed or {}).items()})
        return Answer(infos, failures, renewed)

    def _sent(self, i: int, message: tuple) -> LostProcessError | None:
        try:
            self._pipes[i].send(message)
            return None
        except (EOFError, ConnectionError):
            return self._loss(i)

    def _received(self, serial: int, indices: Iterable[int]) -> tuple[dict[int, Answer], dict[int, LostProcessError]]:
        """Answers to the call of this number, and processes that will not give one.

        Answers to a call that was interrupted are thrown away.
        """
        answers: dict[int, Answer] = {}
        losses: dict[int, LostProcessError] = {}
        waiting = {self._pipes[i]: i for i in indices}
        at_work = self.buffers.under_way.copy()
        while waiting:
            ready = multiprocessing.connection.wait(list(waiting), self._supervision.env_timeout)
            for pipe in ready:
                i = waiting[pipe]
                try:
                    number, answer = self._pipes[i].recv()
                except (EOFError, ConnectionError):
                    losses[i] = self._loss(i)
                    del waiting[pipe]
                    continue
                if number == serial:
                    answers[i] = answer
                    del waiting[pipe]
            if not ready:
                hung = {pipe: i for pipe, i in waiting.items() if self._stands_still(i, at_work)}
                losses |= {i: self._hang(i) for i in hung.values()}
                waiting = {pipe: i for pipe, i in waiting.items() if pipe not in hung}
                at_work = self.buffers.under_way.copy()
        return answers, losses

    def _of_group(self, i: int, of_rows: np.ndarray) -> np.ndarray:
        group = self._groups[i]
        return of_rows[group.first : group.first + len(group.makers)]

    def _stands_still(self, i: int, at_work: np.ndarray) -> bool:
        """Whether process i is at the same row as when `at_work` was noted; its only row is."""
        now = self._of_group(i, self.buffers.under_way)
        return len(now) == 1 or bool((now == self._of_group(i, at_work)).all())

    def _loss(self, i: int) -> LostProcessError:
        process = self.processes[i]
        process.join(PATIENCE)
        killed = " (killed; is the memory full?)" if process.exitcode == -signal.SIGKILL else ""
        return self._error(i, f"worker process {i} died with exit code {process.exitcode}{killed}")

    def _hang(self, i: int) -> LostProcessError:
        seconds = self._supervision.env_timeout
        self.processes[i].kill()
        return self._error(
            i, f"worker process {i} did not come back within {seconds:g} seconds (rollouts(env_timeout={seconds:g}))"
        )

    def _error(self, i: int, sentence: str) -> LostProcessError:
        at_work = self._of_group(i, self.buffers.under_way)
        return LostProcessError(sentence, self._groups[i].first + int(at_work.argmax()))

    def _after_loss(self, i: int, error: LostProcessError, method: str, arguments: tuple) -> Answer:
        """The answer of a process in the place of one that was lost. Raises `error` where there is to be none."""
        if not self._supervision.recreate_workers or self.restarts >= self._supervision.max_restarts:
            raise error
        logger.warning("%s; it begins anew", error)
        self.restarts += 1
        self._pipes[i].close()
        self.processes[i].kill()
        self._of_group(i, self.buffers.under_way)[:] = False
        with _main_left_out():
            self._begin(i)
        self._require_made([self._answer_of(i, 0)])
        count = len(self._groups[i].makers)
        if method == "reset":
            serial = next(self._serials)
            self._sent(i, (serial, method, arguments))
            return self._answer_of(i, serial)
        return Answer([{}] * count, {}, dict.fromkeys(range(count), str(error)))

    def _answer_of(self, i: int, serial: int) -> Answer:
        answers, losses = self._received(serial, [i])
        if i in losses:
            raise losses[i]
        return answers[i]

    def healthy(self) -> int:
        """How many processes are alive."""
        return sum(process is not None and process.is_alive() for process in self.processes)

    def close(self) -> None:
        begun = [process for process in self.processes if process is not None]
        for pipe in self._pipes:
            if pipe is not None:
                pipe.close()  # its end is the word to a process that waits for the next call
        for process in begun:
            process.join(PATIENCE)
            for end in (process.terminate, process.kill):
                if process.is_alive():
                    end()
                    process.join(PATIENCE)
        self._pipes = []

    def __repr__(self) -> str:
        return f"{self.buffers.rows} rows in {len(self.processes)} processes"


def _serve(pipe: Connection, pickled: bytes, memory: Any) -> None:
    """The life of a worker process: make the rows, then answer calls until the pipe is closed."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that environments are closed
    logger.setLevel(logging.ERROR)  # the parent made the same environment and said what there is to say
    group: Group = pickle.loads(pickled)
    buffers = Buffers(group.space, group.rows, memory, group.agents)
    made: list[Row] = []
    failures: dict[int, str] = {}
    if group.seed is not None:
        seed_global_generators(group.seed)
    for i, maker in enumerate(group.makers):
        try:
            made.append(maker(buffers))
        except Exception as error:
            failures[group.first + i] = told(error)
    rows = LocalRows(made, buffers, group.action_space, group.makers if group.restart_rows else ())
    calls: dict[str, Callable[..., Answer]] = {"reset": rows.reset, "step": rows.step_each}
    try:
        pipe.send((0, Answer([], failures)))
        while True:
            serial, method, arguments = pipe.recv()
            _send(pipe, serial, calls[method](*arguments))
    except (EOFError, ConnectionError):
        pass
    finally:
        rows.close()


def _send(pipe: Connection, serial: int, answer: Answer) -> None:
    try:
        pipe.send((serial, answer))
    except (TypeError, AttributeError, pickle.PicklingError, RecursionError) as error:
        sentence = f"info cannot be sent from a worker process: {error}"
        pipe.send((serial, Answer([{}] * len(answer.infos), {0: sentence} | answer.failures)))


def _context() -> BaseContext:
    # A fork of this process could hang once JAX runs threads; a fork of a clean server cannot. It has Gymnasium
    # loaded, so that a worker starts in milliseconds. Only Linux forks safely after system libraries are loaded.
    method = "forkserver" if sys.platform == "linux" else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["athlete.env.adapters.making"])
    return context


@contextlib.contextmanager
def _main_left_out() -> Iterator[None]:
    """Let processes start without running the user's script again, which multiprocessing would do in each of them.

    Nothing of it is missed: cloudpickle sends what is defined there by value. So no `if __name__ == "__main__"` is
    needed, and workers do not import what the script imports (JAX, half a second and 100 MB each).
    """
    main = sys.modules["__main__"]
    hidden: dict[str, Any] = {name: vars(main)[name] for name in ("__spec__", "__file__") if name in vars(main)}
    try:
        main.__spec__ = None
        vars(main).pop("__file__", None)
        yield
    finally:
        vars(main).update(hidden)
