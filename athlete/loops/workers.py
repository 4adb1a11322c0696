"""Workers that act by themselves: who holds rows of environments elsewhere, and what is said to it.

A worker gets what acts and the run's key, computes the keys of all rows from it, and acts in all of them, though only
its own exist: the others show zeros. So what acts draws the same for a row whoever holds it, and a trajectory is that
of `loops/host.py` to the last bit, whatever the number of workers. Acting for rows that are elsewhere costs arithmetic
that small networks do not notice beside a call; in return there is one message a trajectory and not one a step.

How a worker is reached is a matter of who carries the messages: `athlete/worker_processes.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from athlete.core import Agent, Array, Episodes, Health, Key, Rows, Source, Step, Transition, Tree, Which
from athlete.core.wrappers import SourceWrapper
from athlete.loops.collect import Keys, draw_keys
from athlete.loops.compiling import COMPILER_OPTIONS, RUN_ONCE_OPTIONS, set_up
from athlete.loops.episodes import Told, WatchedSource
from athlete.loops.host import collect_hosted, host_rows
from athlete.loops.transport import Packet, from_packet, on_device, to_packet
from athlete.ops.random import unwrap, wrap

Leaves = list[Array]  # of a tree that both sides know: what travels are arrays and numbers, no classes of anyone


class Beginning(NamedTuple):
    """New episodes in all rows of a worker."""

    key: Array  # uint32 [2], of `Source.reset`
    carry: Leaves | None  # `[B, ...]` of all rows; None: as at the start of a run


class Task(NamedTuple):
    """What a worker is asked: a trajectory with this view."""

    serial: int  # the answer has it too
    version: int  # of the view: learning iterations that it comes from
    view: Leaves  # of a packet
    key: Array  # uint32 [2], the run's
    random: Which
    begin: Beginning | None = None


class Fragment(NamedTuple):
    """A trajectory of a worker's own rows, `[T, b, ...]`, and where it has left them, `[b, ...]`."""

    serial: int
    version: int
    steps: Leaves  # of (Transition, Episodes)
    rows: Leaves  # of `Rows`, without what the learner carries along them
    seconds: dict[str, float]
    health: Health
    told: Sequence[Told] = ()


class Arrival(NamedTuple):
    """What came of a worker: an answer or an error. One that was `lost` begins anew, unless there is an error."""

    worker: int
    serial: int = 0
    fragment: Any = None  # of a `Collector` a `Fragment`
    error: Exception | None = None
    lost: bool = False


class Worker(Protocol):
    """What answers tasks where a worker runs: a `Collector`, or what plays the episodes of evaluations."""

    source: Source

    def collect(self, task: Any) -> Any:
        """The answer, which has the task's serial and the health of its environments."""
        ...

    def close(self) -> None: ...


class Workers(Protocol):
    """Workers by number, wherever they run."""

    count: int

    def start(self) -> None:
        """Have all of them ready. Raises what keeps one from it."""
        ...

    def ask(self, worker: int, task: Any) -> None:
        """Send a task, of a `serial`, and do not wait. A worker that is not there is begun."""
        ...

    def next(self) -> Arrival:
        """Wait for what comes first, from whichever worker. Whoever waits while they are closed is given an error."""
        ...

    @property
    def health(self) -> Health: ...

    def close(self) -> None:
        """End all of them. May be called twice."""
        ...


class Collector:
    """What a worker is: its rows, and the agent that acts in them. `make_source` makes them, told its number.

    One that is `alone` acts for its own rows only, and draws as if there were no others.
    """

    def __init__(self, agent: Agent, make_source: Callable[[int], Source], length: int, alone: bool, worker: int):
        set_up()
        self.agent: Agent = jax.tree.map(on_device, agent)
        self._made = make_source(worker)
        self.source = OnlyHere(self._made) if alone else self._made
        self.length = length
        self._here = slice(None) if self.source.here is None else np.flatnonzero(self.source.here)
        self._rows: Rows | None = None
        self._carry = _carry_structure(self.agent)
        self._layout = view_layout(self.agent)
        self._rates = alone and self.agent.memory.rated  # else the learner does, as without workers

    def collect(self, task: Task) -> Fragment:
        """The trajectory. Raises what the environments raise; the next task must then begin new episodes."""
        view = jax.device_put(Packet(self._layout, task.view[0], tuple(task.view[1:])))
        if task.begin is not None:
            carry = self._carry_of(task.begin, view)
            self._rows = host_rows(self.agent, self.source.reset(task.begin.key), carry, (), self.source.rows)
        assert self._rows is not None
        rows, self._rows = self._rows, None
        keys = Keys(*map(np.asarray, _trajectory_keys(task.key, self.length, self.source.rows)))
        self._rows, trajectory, episodes, seconds = collect_hosted(
            self.agent, self.source, view, keys, rows, task.random
        )
        if self._rates:
            trajectory = _rated(self.agent, view, trajectory)
        steps = [leaf[:, self._here] for leaf in jax.tree.leaves((trajectory, episodes))]
        left = [np.asarray(leaf)[self._here] for leaf in jax.tree.leaves(self._rows)]
        told = self._made.take() if isinstance(self._made, WatchedSource) else ()
        return Fragment(task.serial, task.version, steps, left, seconds, self.source.health, told)

    def _carry_of(self, begin: Beginning, view: Packet) -> Tree:
        if begin.carry is not None:
            return jax.tree.unflatten(self._carry, begin.carry)
        carry = _fresh_carry(self.agent, view, begin.key, self._made.rows)  # of all rows, which may not be alike
        if not isinstance(self.source, OnlyHere):
            return carry
        places = self.source.places
        return jax.tree.map(lambda leaf: np.asarray(leaf)[places], carry)

    def close(self) -> None:
        self.source.close()


class OnlyHere(SourceWrapper):
    """The rows of a source that are here, `[b, ...]`, as all there are."""

    def __init__(self, source: Source):
        super().__init__(source)
        assert source.here is not None
        self.places, self._all = np.flatnonzero(source.here), source.rows
        self.rows, self.here = len(self.places), None

    @property
    def faulty(self) -> Array | None:  # type: ignore[override]
        return None if self.source.faulty is None else self.source.faulty[self.places]

    def reset(self, key: Key) -> Tree:
        return self._own(self.source.reset(key))

    def step(self, action: Tree, key: Key) -> Step:
        step = self.source.step(self._widened(action), self._widened(key))
        own = self._own(step._replace(info=()))
        return own._replace(info=[step.info[place] for place in self.places.tolist()])

    def reset_where(self, done: Array, obs: Tree, key: Key) -> Tree:
        return self._own(self.source.reset_where(*map(self._widened, (done, obs, key))))

    def _own(self, tree: Tree) -> Tree:
        return jax.tree.map(lambda leaf: leaf[self.places], tree)

    def _widened(self, tree: Tree) -> Tree:
        """With zeros in the rows that are elsewhere."""

        def widen(leaf: Array) -> Array:
            whole = np.zeros((self._all, *leaf.shape[1:]), leaf.dtype)
            whole[self.places] = leaf
            return whole

        return jax.tree.map(widen, tree)


@functools.partial(jax.jit, static_argnames=("length", "rows"), compiler_options=COMPILER_OPTIONS)
def _trajectory_keys(run_key: Array, length: int, rows: int) -> tuple[Array, ...]:
    """The keys of a trajectory, as `host.plan` draws them."""
    _, collect_key, _ = jax.random.split(wrap(run_key), 3)
    return tuple(unwrap(part) for part in draw_keys(collect_key, length, rows))


def _rated(agent: Agent, view: Packet, trajectory: Transition) -> Transition:
    """A trajectory with the TD errors of its windows by what acted in it."""
    errors = _td_errors(agent, view, trajectory._replace(carry=(), extras={}))
    return trajectory._replace(extras={**trajectory.extras, "td_error": np.asarray(errors)})


@functools.partial(jax.jit, compiler_options=COMPILER_OPTIONS)
def _td_errors(agent: Agent, view: Packet, trajectory: Transition) -> Array:
    return agent.td_errors(from_packet(view), trajectory)


@functools.partial(jax.jit, static_argnames=("rows",), compiler_options=RUN_ONCE_OPTIONS)
def _fresh_carry(agent: Agent, view: Packet, key: Array, rows: int) -> Tree:
    return agent.start(from_packet(view), rows, wrap(key))


def _first_view(agent: Agent) -> Tree:
    return agent.view(agent.init(wrap(np.zeros(2, np.uint32))), 0.0)


def _carry_structure(agent: Agent) -> Any:
    """The structure of the carry; computes nothing."""
    start = functools.partial(agent.start, rows=1, key=wrap(np.zeros(2, np.uint32)))
    return jax.tree.structure(jax.eval_shape(lambda: start(_first_view(agent))))


def view_layout(agent: Agent) -> Any:
    """How the packet of an agent's view is laid out; computes nothing."""
    return jax.eval_shape(lambda: to_packet(_first_view(agent))).layout


def view_leaves(view: Packet) -> Leaves:
    """What of a view travels."""
    return [np.asarray(leaf) for leaf in (view.vector, *view.wide)]


class Form:
    """What fragments are made of: the structures that both sides know."""

    def __init__(self, example: Transition, rows: Rows):
        episodes = Episodes(rows.first, rows.episode_return, rows.episode_length)
        self._steps = jax.tree.structure((example, episodes))
        self._rows = jax.tree.structure(rows._replace(accumulators=()))

    def join(self, fragments: Sequence[Fragment]) -> tuple[Transition, Episodes, Rows]:
        """Fragments side by side: trajectory and episodes `[T, B, ...]`, and the rows as they were left."""
        steps = [np.concatenate(leaves, axis=1) for leaves in zip(*(part.steps for part in fragments), strict=True)]
        rows = [np.concatenate(leaves) for leaves in zip(*(part.rows for part in fragments), strict=True)]
        trajectory, episodes = jax.tree.unflatten(self._steps, steps)
        return trajectory, episodes, jax.tree.unflatten(self._rows, rows)
