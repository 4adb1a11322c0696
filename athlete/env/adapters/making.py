"""Rows made from whatever names an environment. No JAX here: worker processes import it, and Gymnasium with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from athlete.env.adapters.buffers import Buffers, Members
from athlete.env.adapters.conversion import to_space
from athlete.env.adapters.gymnasium import make_gymnasium, named_spec
from athlete.env.adapters.processes import Group, ProcessRows
from athlete.env.adapters.rows import LocalRows, OwnRows, Row, Rows
from athlete.env.adapters.stepped import forget, note, require_unstepped
from athlete.env.randomness import seed_global_generators
from athlete.env.registry import EnvContext, resolve, told_config
from athlete.env.supervision import UNSUPERVISED, Supervision
from athlete.spaces import Space


class Shown(NamedTuple):
    """What rows of an environment show and take."""

    space: Space  # of observations
    action_space: Any  # Gymnasium's
    agents: tuple[Members, ...] = ()  # where the environment has many


@dataclass
class RowMaker:
    """Makes one row, here or in a worker process, where it is sent to by cloudpickle."""

    env: Any  # resolved: a specification of Gymnasium's, a class, a factory or an instance
    env_config: dict[str, Any]
    index: int
    num_workers: int
    num_envs_per_worker: int
    created: Callable[[Any, Any, int], None] | None = None  # see `Supervision`

    def make(self) -> Any:
        """The environment of the row."""
        worker, vector_index = self._place()
        env = make_gymnasium(
            self.env, self.env_config, worker_index=worker, vector_index=vector_index, num_workers=self.num_workers
        )
        if not hasattr(self.env, "step") or isinstance(self.env, type):
            require_unstepped(env)
        return env

    def shown(self, env: Any) -> Shown:
        """What an environment that `make` made shows and takes. Raises ValueError where agents cannot serve it."""
        to_space(env.action_space, "action_space")
        return Shown(to_space(env.observation_space, "observation_space"), env.action_space)

    def require_like(self, env: Any, buffers: Buffers) -> None:
        """Raise ValueError where an environment shows something else than the first row."""
        seen = to_space(env.observation_space, "observation_space")
        if seen != buffers.space:
            raise ValueError(
                f"row {self.index} has the observation_space {seen}, and the first row {buffers.space}; rows learn "
                "side by side and must show the same"
            )

    def row(self, env: Any, buffers: Buffers) -> Row:
        """The row of such an environment."""
        note(env)
        return Row(env, self.index, buffers)

    def tell_created(self, env: Any) -> None:
        """Call `created` with an environment that is to be stepped."""
        if self.created is not None:
            self.created(env, EnvContext(self.env_config, *self._place(), self.num_workers), self.index)

    def _place(self) -> tuple[int, int]:
        worker, vector_index = divmod(self.index, self.num_envs_per_worker)
        return (worker + 1 if self.num_workers else 0), vector_index

    def __call__(self, buffers: Buffers) -> Row:
        env = self.make()
        self.tell_created(env)
        self.require_like(env, buffers)
        return self.row(env, buffers)


def make_rows(
    env: Any,
    env_config: Mapping[str, Any] | None,
    num_workers: int,
    num_envs_per_worker: int,
    supervision: Supervision = UNSUPERVISED,
    row_maker: type[RowMaker] = RowMaker,
    seed: int | None = None,
) -> Rows:
    """`max(num_workers, 1) * num_envs_per_worker` rows of an environment: in this process, or in `num_workers` others.

    With a seed the global generators are seeded before: environments may draw while they are made.

    Raises:
        ValueError: as `make_gymnasium`; an instance for more than one row; something that cannot be sent to processes;
            spaces that agents cannot serve, or that differ from row to row.
        EnvError: a worker process failed to make its environments.
    """
    makers = _makers(env, env_config, num_workers, num_envs_per_worker, supervision, row_maker)
    if num_workers:
        require_picklable(makers[0])
    if seed is not None:
        seed_global_generators(seed)
    first = makers[0].make()
    try:
        shown = makers[0].shown(first)
        if not num_workers:
            return _local_rows(first, makers, makers, shown, supervision)
    except BaseException:
        first.close()
        raise
    first.close()
    size, count = num_envs_per_worker, len(makers)
    again = supervision.restart_rows
    groups = [
        Group(
            makers[i : i + size],
            i,
            count,
            shown.space,
            shown.action_space,
            again,
            shown.agents,
            None if seed is None else seed + i,
        )
        for i in range(0, count, size)
    ]
    return ProcessRows(groups, supervision)


def make_own_rows(
    env: Any,
    env_config: Mapping[str, Any] | None,
    num_workers: int,
    num_envs_per_worker: int,
    worker: int,
    supervision: Supervision = UNSUPERVISED,
    row_maker: type[RowMaker] = RowMaker,
    seed: int | None = None,
    most_rows: int | None = None,
) -> OwnRows:
    """Those of `num_workers * num_envs_per_worker` rows, `most_rows` at most, that are the worker's of that number,
    from 0, in this process.

    Raises as `make_rows`.
    """
    makers = _makers(env, env_config, num_workers, num_envs_per_worker, supervision, row_maker)[:most_rows]
    begin = worker * num_envs_per_worker
    own = makers[begin : begin + num_envs_per_worker]
    if seed is not None:
        seed_global_generators(seed + begin)
    first = own[0].make()
    try:
        return OwnRows(_local_rows(first, own, makers, own[0].shown(first), supervision), begin)
    except BaseException:
        first.close()
        raise


def _makers(
    env: Any,
    env_config: Mapping[str, Any] | None,
    num_workers: int,
    num_envs_per_worker: int,
    supervision: Supervision,
    row_maker: type[RowMaker],
) -> list[RowMaker]:
    """What makes each of the rows. Raises ValueError where an instance cannot be all of them."""
    count = max(num_workers, 1) * num_envs_per_worker
    env = named_spec(resolve(env))
    if hasattr(env, "step") and not isinstance(env, type) and (count > 1 or num_workers):
        raise ValueError(
            f"{env!r} is one instance, but {count} rows in {num_workers} worker processes were asked for; "
            "pass its class, its id or a factory, or say rollouts(num_envs_per_worker=1, num_rollout_workers=0)"
        )
    if supervision.restart_rows and hasattr(env, "step") and not isinstance(env, type):
        raise ValueError(
            f"{env!r} is one instance, and fault_tolerance(restart_failed_sub_environments=True) makes environments "
            "anew; pass its class, its id or a factory"
        )
    return [
        row_maker(env, dict(env_config or {}), row, num_workers, num_envs_per_worker, supervision.created)
        for row in range(count)
    ]


def _local_rows(
    first: Any, makers: list[RowMaker], everywhere: list[RowMaker], shown: Shown, supervision: Supervision
) -> LocalRows:
    """The rows of `makers`, among those of `everywhere`; the environment of the first one is made already."""
    buffers = Buffers(shown.space, len(everywhere), groups=shown.agents)
    rows = [makers[0].row(first, buffers)]
    makers[0].tell_created(first)
    try:
        for maker in makers[1:]:
            rows.append(maker(buffers))
    except BaseException:
        for row in rows[1:]:
            row.close()
        forget(first)
        raise
    return LocalRows(rows, buffers, shown.action_space, makers if supervision.restart_rows else ())


def require_picklable(maker: RowMaker) -> None:
    """Raise ValueError where a row's environment cannot be made in another process."""
    import cloudpickle  # a dependency of Gymnasium, for this

    try:
        cloudpickle.dumps(maker)
    except Exception as error:
        raise ValueError(
            f"{maker.env!r} with env_config={told_config(maker.env_config)} cannot be sent to workers ({error}); "
            "make what cannot be pickled inside the environment, or train without workers (num_rollout_workers=0)"
        ) from error
