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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np

from athlete import spaces
from athlete.env.adapters.buffers import Buffers
from athlete.env.adapters.rows import Answer, Info, LocalRows, Row, per_row, told
from athlete.env.errors import EnvError
from athlete.log import logger

PATIENCE = 2.0  # seconds in which a process is to end by itself

Maker = Callable[[Buffers], Row]


@dataclass(frozen=True)
class Group:
    """The rows of one process: `makers` make those from `first` on, of `rows` in all processes."""

    makers: Sequence[Maker]
    first: int
    rows: int
    space: spaces.Space
    action_space: Any  # Gymnasium's


class LostProcessError(EnvError):
    """A worker process died, while its environment of the row `row` was at work."""

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

    def __init__(self, groups: list[Group]):
        context = _context()
        space, rows = groups[0].space, groups[0].rows
        self.action_space = groups[0].action_space
        self.memory = context.RawArray("b", Buffers.size(space, rows))  # type: ignore[attr-defined]
        self.buffers = Buffers(space, rows, self.memory)
        self._groups = groups
        self._split = per_row(self.action_space)
        self._serials = itertools.count(1)
        self.processes: list[Any] = []
        self._pipes: list[Connection] = []
        try:
            with _main_left_out():
                for group in groups:
                    self._begin(context, group)
            failures = {row: failure for made in self._received(0) for row, failure in made.failures.items()}
        except LostProcessError as error:
            self.close()
            raise EnvError(f"{error} while it made its environments; what it printed is above") from error
        except BaseException:
            self.close()
            raise
        if failures:
            self.close()
            made = "while its environment was being made"
            raise EnvError("\n\n".join(f"{text}\nThis was row {row}, {made}" for row, text in failures.items()))

    def _begin(self, context: BaseContext, group: Group) -> None:
        import cloudpickle  # sends classes and functions of scripts and notebooks; a dependency of Gymnasium

        here, there = context.Pipe()
        process = context.Process(  # type: ignore[attr-defined]
            target=_serve, args=(there, cloudpickle.dumps(group), self.memory), daemon=True
        )
        process.start()
        there.close()  # so that the end of the process is the end of the pipe
        self.processes.append(process)
        self._pipes.append(here)

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
        for i, pipe in enumerate(self._pipes):
            try:
                pipe.send((serial, method, arguments[i]))
            except (EOFError, ConnectionError) as error:
                raise self._loss(i) from error
        infos: list[Info] = []
        failures: dict[int, str] = {}
        for group, answer in zip(self._groups, self._received(serial), strict=True):
            infos.extend(answer.infos)
            failures.update({group.first + row: failure for row, failure in answer.failures.items()})
        return Answer(infos, failures)

    def _received(self, serial: int) -> list[Answer]:
        """The answers to the call of this number; those to a call that was interrupted are thrown away."""
        answers: dict[int, Answer] = {}
        while waiting := [pipe for i, pipe in enumerate(self._pipes) if i not in answers]:
            for ready in multiprocessing.connection.wait(waiting):
                i = self._pipes.index(ready)  # type: ignore[arg-type]
                try:
                    number, answer = self._pipes[i].recv()
                except (EOFError, ConnectionError) as error:
                    raise self._loss(i) from error
                if number == serial:
                    answers[i] = answer
        return [answers[i] for i in range(len(self._pipes))]

    def _loss(self, i: int) -> LostProcessError:
        process = self.processes[i]
        process.join(PATIENCE)
        killed = " (killed; is the memory full?)" if process.exitcode == -signal.SIGKILL else ""
        group = self._groups[i]
        at_work = self.buffers.under_way[group.first : group.first + len(group.makers)]
        sentence = f"worker process {i} died with exit code {process.exitcode}{killed}"
        return LostProcessError(sentence, group.first + int(at_work.argmax()))

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()  # its end is the word to a process that waits for the next call
        for process in self.processes:
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that environments are closed
    logger.setLevel(logging.ERROR)  # the parent made the same environment and said what there is to say
    group: Group = pickle.loads(pickled)
    buffers = Buffers(group.space, group.rows, memory)
    made: list[Row] = []
    failures: dict[int, str] = {}
    for i, maker in enumerate(group.makers):
        try:
            made.append(maker(buffers))
        except Exception as error:
            failures[group.first + i] = told(error)
    rows = LocalRows(made, buffers, group.action_space)
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
