"""Trials in a Ray cluster: the slots of `athlete/tune/worker.py` as actors that Ray places.

Checkpoints travel as bytes. The experiment's folder is on the machine that called `tune.run`, and nodes need not share
a file system.
"""

from __future__ import annotations

import functools
import io
import shutil
import tarfile
import tempfile
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from athlete.cluster import Actors, Answer, Request, connect, is_near, require_room, room
from athlete.tune.worker import Outcome, Slot, Stage, WorkerError, environments, register

LARGEST_PARCEL = 1 << 30  # bytes of a checkpoint that travels; it is in memory on both sides
_AMOUNTS = {"cpu": "cpus", "gpu": "gpus"}  # of `resources_per_trial`, whatever their case; all others are custom


class Cluster(NamedTuple):
    """Where the trials of an experiment run: Ray, connected, what each holds, and how many there is room for."""

    ray: Any
    request: Request
    size: int


def cluster_for(
    address: Any, resources: Mapping[str, Any] | None, at_once: int | None, configs: Iterable[Any]
) -> Cluster | None:
    """The cluster that `tune.run(ray=...)` asks for, and how many trials run in it; None for none.

    `configs` are those of trials, whose own workers in Ray take room too. Raises ValueError where there is no room for
    `at_once` trials, or for one, and what `connect` raises.
    """
    if not address or (address == "auto" and not is_near()):
        return None
    asked, request = f"tune.run(ray={address!r})", _request(resources)
    ray = connect(address, asked)
    advice = "take fewer at a time, ask for less, or add nodes"
    require_room(ray, request, at_once or 1, f"{asked}, {at_once or 1} trials at a time", advice)
    size, held = room(ray, request), max(map(_held_by_workers, configs), default=0.0)
    if held:
        whole = ray.cluster_resources().get("CPU", 0.0)
        size = min(size, int(whole / (request.cpus + held)))
        if size < (at_once or 1):
            raise ValueError(
                f"{asked}, {at_once or 1} trials at a time: with its workers in Ray a trial takes "
                f"{request.cpus + held:g} CPUs, and the cluster has {whole:g}; {advice}"
            )
    return Cluster(ray, request, min(size, at_once or size))


def _request(resources: Mapping[str, Any] | None) -> Request:
    """What `resources_per_trial` asks for: `{"cpu": 2, "gpu": 0.5, "some_custom_resource": 1}`."""
    amounts, custom = {"cpus": 1.0, "gpus": 0.0}, {}
    for name, amount in (resources or {}).items():
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < float("inf"):
            raise ValueError(f"tune.run(resources_per_trial={dict(resources or {})}): {name} is a number of at least 0")
        if name.lower() in _AMOUNTS:
            amounts[_AMOUNTS[name.lower()]] = float(amount)
        elif amount:
            custom[name] = float(amount)
    return Request(amounts["cpus"], amounts["gpus"], custom)


def _held_by_workers(config: Any) -> float:
    """The CPUs that the workers of a trial hold besides, where they are in Ray."""
    values = config if isinstance(config, Mapping) else config.to_dict() if hasattr(config, "to_dict") else {}
    if not values.get("ray"):
        return 0.0
    return float(values.get("num_rollout_workers", 0)) * float(values.get("num_cpus_per_worker", 1))


def require_portable(path: Any, size: int, asked: str) -> None:
    """Raise ValueError for a checkpoint of so many bytes that is too large to travel."""
    if size > LARGEST_PARCEL:
        from athlete.memory.room import in_words

        raise ValueError(
            f"{asked}: {path} takes {in_words(size)}, and checkpoints travel as bytes, {in_words(LARGEST_PARCEL)} at "
            "most; take a smaller replay_buffer_config={'capacity': ...}, or trials in processes of this machine"
        )


def folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def packed(folder: str | Path) -> bytes:
    """A checkpoint as bytes. Raises ValueError where it is too large to travel."""
    folder = Path(folder)
    require_portable(folder, folder_bytes(folder), "a checkpoint")
    parcel = io.BytesIO()
    with tarfile.open(fileobj=parcel, mode="w") as tar:
        tar.add(folder, folder.name)
    return parcel.getvalue()


def unpack(parcel: bytes, folder: Path) -> Path:
    """Put a checkpoint into a folder; where it is then. Nothing lands outside of that folder."""
    with tarfile.open(fileobj=io.BytesIO(parcel)) as tar:
        tar.extractall(folder, filter="data")
    return next(folder.iterdir())


class RemoteStage(Stage):
    """A stage, as an actor: checkpoints come and go as bytes."""

    def __init__(self, parcels: Mapping[str, bytes]):
        super().__init__()
        for name, parcel in parcels.items():
            register(name, parcel)
        self._restored: tempfile.TemporaryDirectory | None = None  # a trainable may read it as long as it lives

    def __call__(self, command: str, *arguments: Any) -> tuple[Any, str]:
        outcome = self.perform(command, *arguments)
        return outcome.value, outcome.trace

    def _make(self, run: Any, config: Any, start: Any) -> None:
        restored = tempfile.TemporaryDirectory() if isinstance(start, bytes) else None
        if restored is not None:
            start = str(unpack(start, Path(restored.name)))
        super()._make(run, config, start)
        self._restored = restored

    def _save(self, folder: str) -> bytes | None:  # type: ignore[override]
        with tempfile.TemporaryDirectory() as here:
            saved = super()._save(str(Path(here) / Path(folder).name))
            return None if saved is None else packed(saved)

    def close(self) -> None:
        self.perform("stop")


class RaySlot:
    """A trial's actor."""

    def __init__(self, pool: RayPool, number: int):
        self.occupant: Any = None
        self.number = number
        self.made = False  # and placed
        self.answers: deque[Answer] = deque()
        self._pool = pool
        self._folder: Path | None = None  # where the checkpoint that was asked for goes

    def submit(self, command: str, *arguments: Any) -> None:
        self._folder = Path(arguments[0]) if command == "save" else None
        if command == "make" and isinstance(arguments[2], str):
            arguments = (*arguments[:2], packed(arguments[2]))
        self._pool.actors.ask(self.number, command, *arguments)

    def take(self) -> Outcome:
        while not self.answers:
            self._pool.listen(None)
        answer = self.answers.popleft()
        if answer.error:
            lost = "the trial's actor was lost: " if answer.lost else ""
            return Outcome(None, WorkerError(lost + answer.error), lost + answer.error)
        value, trace = answer.value
        if self._folder is not None and isinstance(value, bytes):
            value = str(_put_in_place(value, self._folder))
        return Outcome(value, WorkerError(trace) if trace else None, trace)

    def end(self, patience: float) -> None:
        self._pool.actors.end(self.number, patience)


class RayPool:
    """Up to `size` actors, begun when they are needed."""

    def __init__(self, cluster: Cluster, size: int):
        self._size, self._begun = size, 0
        surroundings = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # several trials share a GPU's memory
        self.actors = Actors(cluster.ray, cluster.request, size, surroundings)
        self._make = functools.partial(RemoteStage, environments())
        self._slots: list[RaySlot] = []

    def free(self) -> RaySlot | None:
        for slot in self._slots:
            if slot.occupant is None:
                return slot
        if len(self._slots) == self._size:
            return None
        slot = RaySlot(self, self._begun)
        self._begun += 1
        self._slots.append(slot)
        self.actors.begin(slot.number, self._make)
        return slot

    def has_room(self) -> bool:
        return len(self._slots) < self._size or any(slot.occupant is None for slot in self._slots)

    def next(self, timeout: float) -> RaySlot | None:
        if not any(slot.answers for slot in self._slots) and not self.listen(timeout):
            self._end_idle()
        for slot in self._slots:
            if slot.answers and slot.occupant is None:  # one that was lost with nothing to do
                self.drop(slot)
                return None
            if slot.answers:
                return slot
        return None

    def listen(self, timeout: float | None) -> bool:
        """Wait for an answer, and keep it for its slot. False where none came within so many seconds."""
        answer = self.actors.next(timeout)
        if answer is None:
            return False
        for slot in self._slots:
            if slot.number == answer.number:
                slot.made = slot.made or answer.made
                if answer.error or not answer.made:
                    slot.answers.append(answer)
        return True

    def _end_idle(self) -> None:
        """An actor without a trial holds what one that waits for room may need, after a node was lost."""
        if all(slot.made for slot in self._slots):
            return
        for slot in [slot for slot in self._slots if slot.occupant is None]:
            self.drop(slot)

    def drop(self, slot: Slot) -> None:
        self._slots = [other for other in self._slots if other is not slot]
        slot.end(patience=0.0)

    def close(self) -> None:
        self._slots = []
        self.actors.close()


def _put_in_place(parcel: bytes, folder: Path) -> Path:
    """A checkpoint that came home, whole or not at all."""
    beside = folder.with_name(f".tmp-{folder.name}")
    shutil.rmtree(beside, ignore_errors=True)
    came = unpack(parcel, beside)
    shutil.rmtree(folder, ignore_errors=True)
    came.rename(folder)
    beside.rmdir()
    return folder
