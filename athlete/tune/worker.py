"""Where trials run: in this process, one after another, or in processes of their own.

Both kinds of slot speak the same: `submit` a command, `take` its outcome. A process is a fresh interpreter that talks
through its pipes. It never runs the user's main module again (so scripts need no `if __name__ == "__main__"`, and
notebooks work); what is defined there travels by value, with cloudpickle. A process serves several trials, one after
another: importing JAX and compiling the program are paid once.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from athlete.env.adapters.parent import end_with_parent
from athlete.env.registry import register_env, registered, registered_names
from athlete.record.results import without_repeated
from athlete.tune.trainable import Trainable, make_trainable

_START = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); from athlete.tune import worker; worker.main()"
)


class Outcome(NamedTuple):
    """What came of a command: its value, or the error with its traceback."""

    value: Any = None
    error: BaseException | None = None
    trace: str = ""


class WorkerError(RuntimeError):
    """A trial's process died, or something in it raised; the message holds the traceback from over there."""


class Stage:
    """Holds one trainable at a time and carries out commands on it."""

    def __init__(self) -> None:
        self.trainable: Trainable | None = None
        self._commands: dict[str, Callable[..., Any]] = {
            "make": self._make,
            "train": self._train,
            "save": self._save,
            "stop": self._stop,
        }

    def perform(self, command: str, *arguments: Any) -> Outcome:
        try:
            return Outcome(self._commands[command](*arguments))
        except Exception as error:
            return Outcome(None, error, traceback.format_exc())

    def _make(self, run: Any, config: Any, start: Any) -> None:
        """Make a trainable that goes on from `start`: a checkpoint, another trainable in this process, or None."""
        self._stop()
        self.trainable = make_trainable(run, config)
        if isinstance(start, str):
            self.trainable.restore(start)
        elif start is not None:
            self.trainable.take_over(start)  # type: ignore[attr-defined]

    def _train(self) -> dict[str, Any] | None:
        assert self.trainable is not None
        result = self.trainable.train()
        return without_repeated(result) if isinstance(result, dict) else result

    def _save(self, folder: str) -> str | None:
        assert self.trainable is not None
        return self.trainable.save(folder)

    def _stop(self) -> None:
        trainable, self.trainable = self.trainable, None
        if trainable is not None:
            trainable.stop()


class Slot(Protocol):
    """A place where one trial at a time runs."""

    occupant: Any

    def submit(self, command: str, *arguments: Any) -> None:
        """Begin a command: `make`, `train`, `save` or `stop`."""

    def take(self) -> Outcome:
        """Wait for the outcome of the command."""

    def end(self, patience: float) -> None:
        """Stop what runs in it; a process is killed after that many seconds."""


class Pool(Protocol):
    """The slots of an experiment."""

    def free(self) -> Slot | None:
        """A slot without a trial, None if all are taken."""

    def has_room(self) -> bool:
        """Whether `free` would give one."""

    def next(self, timeout: float) -> Slot | None:
        """A slot whose outcome can be taken; None if there was none within that many seconds."""

    def drop(self, slot: Slot) -> None:
        """Give up on a slot after an error in it."""

    def close(self) -> None:
        """End everything."""


class LocalSlot:
    """Trials in this process: the command is carried out when its outcome is taken."""

    def __init__(self) -> None:
        self.occupant: Any = None
        self._stage = Stage()
        self._command: tuple[Any, ...] = ()

    @property
    def trainable(self) -> Trainable | None:
        return self._stage.trainable

    @property
    def is_busy(self) -> bool:
        return bool(self._command)

    def is_to(self, command: str) -> bool:
        """Whether that is the command whose outcome is to be taken."""
        return self._command[:1] == (command,)

    def submit(self, command: str, *arguments: Any) -> None:
        self._command = (command, *arguments)

    def take(self) -> Outcome:
        command, self._command = self._command, ()
        return self._stage.perform(*command)

    def end(self, patience: float) -> None:
        self._stage.perform("stop")
        self.occupant = None


class LocalPool:
    """Up to `size` slots in this process, whose commands are carried out in turn."""

    def __init__(self, size: int = 1) -> None:
        self._size = size
        self._slots: deque[LocalSlot] = deque()

    def free(self) -> LocalSlot | None:
        for slot in self._slots:
            if slot.occupant is None:
                return slot
        if len(self._slots) == self._size:
            return None
        self._slots.append(LocalSlot())
        return self._slots[-1]

    def has_room(self) -> bool:
        return len(self._slots) < self._size or any(slot.occupant is None for slot in self._slots)

    def next(self, timeout: float) -> LocalSlot | None:
        for _ in range(len(self._slots)):
            slot = self._slots.popleft()
            self._slots.append(slot)
            if slot.is_busy:
                return slot
        return None

    def drop(self, slot: Slot) -> None:
        slot.end(patience=0.0)

    def close(self) -> None:
        for slot in self._slots:
            slot.end(patience=0.0)


class MappedPool(LocalPool):
    """A slot in this process for every trial, and one program that trains all of them: see `athlete.population`."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._is_joined = False

    def next(self, timeout: float) -> LocalSlot | None:
        slot = super().next(timeout)
        if slot is not None and slot.is_to("train") and not self._is_joined:
            from athlete.population import join_algorithms  # which imports JAX

            self._is_joined = True
            join_algorithms([each.trainable for each in self._slots if each.trainable is not None])  # type: ignore[misc]
        return slot


class ProcessSlot:
    """A trial's process. A thread reads its answers, so that waiting for many works alike on every system."""

    def __init__(self, log: Path, ready: queue.SimpleQueue[ProcessSlot]):
        self.occupant: Any = None
        self.log = log
        self._answers: queue.Queue[Outcome] = queue.Queue()
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START],  # -P: nothing is imported from the current folder by itself
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env={"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ},  # several processes share a GPU's memory
                **_own_group(),
            )
        self._send(pickle.dumps([os.getcwd() if entry == "" else entry for entry in sys.path]))
        self._send(_cloudpickle(environments()))
        threading.Thread(target=self._read, args=(ready,), daemon=True).start()

    def _send(self, message: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # a dead process is reported by the reading thread
            self._process.stdin.write(message)
            self._process.stdin.flush()

    def _read(self, ready: queue.SimpleQueue[ProcessSlot]) -> None:
        assert self._process.stdout is not None
        while True:
            try:
                value, trace = pickle.load(self._process.stdout)
                outcome = Outcome(value, WorkerError(trace) if trace else None, trace)
            except Exception:
                message = f"the trial's process {self._end()}; its last words in {self.log}:\n{self._tail()}"
                self._answers.put(Outcome(None, WorkerError(message), message))
                ready.put(self)
                return
            self._answers.put(outcome)
            ready.put(self)

    def _end(self) -> str:
        code = self._process.wait()
        if code < 0:
            hint = " (out of memory?)" if code == -9 else ""
            return f"was killed by signal {-code}, {signal.Signals(-code).name}{hint}"
        return f"ended with exit code {code}"

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])

    def submit(self, command: str, *arguments: Any) -> None:
        self._send(_cloudpickle((command, *arguments)))

    def take(self) -> Outcome:
        return self._answers.get()

    @property
    def answered(self) -> bool:
        return not self._answers.empty()

    def end(self, patience: float) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()

    def _kill(self) -> None:
        """Kill the process and, where groups exist, the environments' processes that it has started."""
        if sys.platform == "win32":
            self._process.kill()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


class ProcessPool:
    """Up to `size` processes, started when they are needed."""

    def __init__(self, size: int, folder: Path):
        self._size, self._folder, self._started = size, folder, 0
        self._slots: list[ProcessSlot] = []
        self._ready: queue.SimpleQueue[ProcessSlot] = queue.SimpleQueue()

    def free(self) -> ProcessSlot | None:
        for slot in self._slots:
            if slot.occupant is None:
                return slot
        if len(self._slots) == self._size:
            return None
        slot = ProcessSlot(self._folder / f"worker_{self._started:02d}.log", self._ready)
        self._started += 1
        self._slots.append(slot)
        return slot

    def has_room(self) -> bool:
        return len(self._slots) < self._size or any(slot.occupant is None for slot in self._slots)

    def next(self, timeout: float) -> ProcessSlot | None:
        try:
            slot = self._ready.get(timeout=timeout)
        except queue.Empty:
            return None
        if slot not in self._slots or not slot.answered:  # given up, or taken by someone who waited for just this one
            return None
        if slot.occupant is None:  # a process that died with nothing to do
            self.drop(slot)
            return None
        return slot

    def drop(self, slot: Slot) -> None:
        self._slots = [other for other in self._slots if other is not slot]
        slot.end(patience=0.0)

    def close(self) -> None:
        for slot in self._slots:
            with contextlib.suppress(OSError):
                slot.end(patience=5.0 if slot.occupant is None else 0.0)
        self._slots = []


def _own_group() -> dict[str, Any]:
    """Ctrl-C in a terminal goes to the whole process group; only the parent shall hear it, and decide."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def environments() -> dict[str, bytes]:
    """Registered environments, each in a parcel of its own: one that cannot be opened must not spoil the others."""
    return {name: _cloudpickle(registered(name)) for name in registered_names()}


def register(name: str, parcel: bytes) -> None:
    """Register a parent's environment here; one that cannot be rebuilt says so when it is used."""
    try:
        factory = pickle.loads(parcel)
    except Exception:
        why = traceback.format_exc()

        def factory(env_config: Any) -> Any:
            raise ImportError(f"environment {name!r} cannot be rebuilt in a trial's process:\n{why}")

    register_env(name, factory)


def _cloudpickle(value: Any) -> bytes:
    try:
        import cloudpickle
    except ImportError as error:
        raise ImportError("max_concurrent_trials > 1 needs cloudpickle: pip install cloudpickle") from error
    return cloudpickle.dumps(value)


def main() -> None:
    """A trial's process: carry out commands until the parent closes the pipe, or is no more."""
    end_with_parent()
    commands = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the training prints goes to the log, not among the answers
    sys.stdout = sys.stderr
    for name, parcel in pickle.load(commands).items():
        register(name, parcel)
    stage = Stage()
    while True:
        try:
            command = pickle.load(commands)
        except EOFError:
            break
        except Exception:
            outcome = Outcome(
                None, None, "the trial's config cannot be rebuilt in its process:\n" + traceback.format_exc()
            )
        else:
            outcome = stage.perform(*command)
        try:
            message = pickle.dumps((outcome.value, outcome.trace))
        except Exception:
            message = pickle.dumps((None, "the result cannot be sent to the parent:\n" + traceback.format_exc()))
        answers.write(message)
        answers.flush()
    stage.perform("stop")
