"""Ray: the one module that imports it, and only where a cluster is asked for.

What goes into a cluster is a function, of which Ray makes an actor there: what the function returns, an `Actor`, is
asked and answers. Workers that act (`athlete/ray_workers.py`) and trials (`athlete/tune/ray_slots.py`) are actors.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

PATIENCE = 2.0  # seconds in which an actor is to end by itself
_REACH = 5.0  # seconds in which whatever listens at an address is to take a connection


class Request(NamedTuple):
    """What each actor holds of its node, and how actors are spread over nodes: RLlib's `placement_strategy`."""

    cpus: float = 1.0
    gpus: float = 0.0
    resources: Mapping[str, float] = {}
    strategy: str = "PACK"

    @property
    def bundle(self) -> dict[str, float]:
        """By Ray's names, without what is not asked for."""
        whole = {"CPU": self.cpus, "GPU": self.gpus, **self.resources}
        return {name: amount for name, amount in whole.items() if amount}

    def __str__(self) -> str:
        return ", ".join(f"{amount:g} {name}" for name, amount in self.bundle.items()) or "nothing"


class Actor(Protocol):
    """What a function makes that is sent into a cluster."""

    def __call__(self, *arguments: Any) -> Any: ...

    def close(self) -> None: ...


class Answer(NamedTuple):
    """What came of an actor: a value, or what was raised there or ended it.

    The first answer says that it is `made`. After one that it is `lost` no other comes.
    """

    number: int
    value: Any = None
    error: str = ""
    made: bool = False
    lost: bool = False


def is_near() -> bool:
    """Whether a cluster is there that nobody has to name: this process is connected, or RAY_ADDRESS is set."""
    ray = sys.modules.get("ray")
    return bool(os.environ.get("RAY_ADDRESS")) or (ray is not None and ray.is_initialized())


def connect(address: bool | str, asked: str) -> Any:
    """The module ray, connected to the cluster that this process is connected to, else to the one at `address`.

    True and "auto" are the one at $RAY_ADDRESS; where that is not set, a cluster of this machine is started, which ends
    with this process. `asked` is the setting, for errors. Raises ImportError where Ray is not installed, ValueError for
    what is no address, and ConnectionError, within seconds, where there is no cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError(f"{asked}: Ray is not installed: pip install ray, or this package's extra [ray]") from error
    if ray.is_initialized():
        return ray
    where = os.environ.get("RAY_ADDRESS") or "local" if address in (True, "auto") else str(address)
    _require_listener(where, asked)
    options: dict[str, Any] = {"include_dashboard": False} if where == "local" else {}
    try:
        ray.init(address=where, logging_level="ERROR", **options)
    except Exception as error:
        raise ConnectionError(f"{asked}: no cluster at {where}: {first_line(error)}") from error
    return ray


def _require_listener(address: str, asked: str) -> None:
    """Raise unless something listens at an address: Ray itself would try for a minute or more."""
    if address in ("auto", "local"):
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"{asked}: {address!r} is no address; 'host:6379' of a head, or 'ray://host:10001', is one")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(
            f"{asked}: nothing answers at {address} ({error}). `ray start --head` begins a cluster there, and "
            "`ray status` tells of it"
        ) from error


def room(ray: Any, request: Request) -> int:
    """How many such actors the nodes can hold, also those that an autoscaler would add; 2**31 for any number."""
    if not request.bundle:
        return 2**31
    nodes = [_holds(node["Resources"], request) for node in ray.nodes() if node["Alive"]]
    total = {"STRICT_PACK": max(nodes, default=0), "STRICT_SPREAD": sum(held > 0 for held in nodes)}
    return max(total.get(request.strategy, sum(nodes)), _addable(ray, request))


def _holds(resources: Mapping[str, float], request: Request) -> int:
    # Amounts are floats, of which ten tenths are not quite one.
    return min(int(resources.get(name, 0.0) / amount + 1e-6) for name, amount in request.bundle.items())


def _addable(ray: Any, request: Request) -> int:
    """How many actors a cluster can hold that its autoscaler has made as large as it may; 0 without one."""
    if ray.util.client.ray.is_connected():
        return 0  # asked through a client, Ray does not tell
    largest = ray._private.state.state.get_max_resources_from_cluster_config()  # it has no public name
    return _holds(largest, request) if largest else 0


def require_room(ray: Any, request: Request, count: int, asked: str, advice: str) -> None:
    """Raise ValueError where the cluster cannot hold `count` actors beside those that this process has there: Ray
    would have them wait for ever.
    """
    total, taken = ray.cluster_resources().get("CPU", 0.0), sum(actors.cpus for actors in _ACTORS)
    fitting = room(ray, request)
    if taken and request.cpus and not _addable(ray, request):
        fitting = min(fitting, int((total - taken) / request.cpus + 1e-6))
    if fitting < count:
        placed = f", {request.strategy}" if request.strategy.startswith("STRICT") else ""
        there = f"{total:g} CPUs" + (f", {taken:g} of them taken by this program" if taken else "")
        raise ValueError(
            f"{asked}: {request} each{placed}, and the cluster, of {there}, has room for {fitting}; {advice}"
        )


_ACTORS: weakref.WeakSet[Actors] = weakref.WeakSet()  # of this process, wherever they are used


class _RayActor:
    """Ray's side of an actor. It imports nothing before it has its surroundings."""

    def __init__(self, surroundings: Mapping[str, str], path: list[str]):
        os.environ.update(surroundings)
        sys.path += [entry for entry in path if entry not in sys.path]

    def make(self, make: Callable[[], Actor]) -> None:
        self._actor = make()

    def ask(self, *arguments: Any) -> Any:
        return self._actor(*arguments)

    def end(self) -> None:
        self._actor.close()


class Actors:
    """Actors of a cluster by number. Each is asked in turn, and answers in turn."""

    def __init__(self, ray: Any, request: Request, count: int, surroundings: Mapping[str, str]):
        """`count` is how many there may be at most; `surroundings` are variables of their processes' environment."""
        self._ray, self._cpus = ray, request.cpus
        kept = {name: os.environ[name] for name in ("ATHLETE_CACHE_DIR",) if name in os.environ}
        path = [os.getcwd() if entry == "" else entry for entry in sys.path]
        self._arguments = ({**kept, **surroundings}, path)
        self._kind = ray.remote(_RayActor)
        # An actor is not restarted by Ray: who asks counts losses, and calls in between would fail one after another.
        self._options = {
            "num_cpus": request.cpus,
            "num_gpus": request.gpus,
            "resources": dict(request.resources) or None,
            "max_restarts": 0,
            "scheduling_strategy": "SPREAD" if request.strategy == "SPREAD" else "DEFAULT",
        }
        self._group: Any = None
        if request.strategy.startswith("STRICT"):
            self._group = ray.util.placement_group([request.bundle] * count, strategy=request.strategy)
        self._handles: dict[int, Any] = {}
        self._open: dict[Any, tuple[int, bool]] = {}  # reference -> of which actor, and whether of its making
        _ACTORS.add(self)

    @property
    def cpus(self) -> float:
        """That all of them hold."""
        return self._cpus * len(self._handles)

    def put(self, value: Any) -> Any:
        """A reference that stands for a value where it is an argument of `ask`: it goes to each node once."""
        return self._ray.put(value)

    def begin(self, number: int, make: Callable[[], Actor]) -> None:
        """Have an actor made. What an earlier one of this number was asked is not answered any more."""
        self._let_go(number)
        options = dict(self._options)
        if self._group is not None:
            from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(self._group, number)
        self._handles[number] = actor = self._kind.options(**options).remote(*self._arguments)
        self._open[actor.make.remote(make)] = (number, True)

    def ask(self, number: int, *arguments: Any) -> None:
        self._open[self._handles[number].ask.remote(*arguments)] = (number, False)

    def next(self, timeout: float | None = None) -> Answer | None:
        """What comes first; None where nothing came within so many seconds."""
        waiting = list(self._open)
        done = self._ray.wait(waiting, num_returns=1, timeout=timeout)[0] if waiting else []
        if not done or done[0] not in self._open:  # another thread has closed them
            return None
        errors = self._ray.exceptions
        number, made = self._open[done[0]]
        try:
            value = self._ray.get(done[0])
        except (errors.RayTaskError, errors.RaySystemError) as error:  # raised there, or of what was sent there
            self._open.pop(done[0], None)
            return Answer(number, error=str(error), made=made)
        except errors.RayError as error:
            self._let_go(number)
            return Answer(number, error=first_line(error), made=made, lost=True)
        self._open.pop(done[0], None)
        return Answer(number, value, made=made)

    def _let_go(self, number: int) -> None:
        self._open = {reference: asked for reference, asked in self._open.items() if asked[0] != number}
        if (actor := self._handles.pop(number, None)) is not None:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor)

    def end(self, number: int, patience: float = PATIENCE) -> None:
        """End an actor, by force where it does not end within so many seconds."""
        self._end([number], patience)

    def close(self) -> None:
        """End all. May be called twice, and when the cluster is no more."""
        self._end(list(self._handles), PATIENCE)
        if self._group is not None:
            with contextlib.suppress(Exception):
                self._ray.util.remove_placement_group(self._group)
            self._group = None

    def _end(self, numbers: list[int], patience: float) -> None:
        with contextlib.suppress(Exception):  # whatever keeps them from ending by themselves
            if patience > 0 and self._ray.is_initialized():
                last = [self._handles[number].end.remote() for number in numbers if number in self._handles]
                self._ray.wait(last, num_returns=max(1, len(last)), timeout=patience)
        for number in numbers:
            with contextlib.suppress(Exception):
                self._let_go(number)


def first_line(error: BaseException) -> str:
    """What an error of Ray's says first; behind it come names that mean nothing to users."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
