"""Environments side by side: each a row, all in this process, in processes of their own, or in a ready-made vector.

Whatever it is has the methods of `Rows`. A row that fails does not raise, which would lose the others: it is named with
what went wrong, and what the buffers hold of it then means nothing.

No JAX here, since worker processes import it.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from athlete import spaces
from athlete.env.adapters.buffers import Buffers, MisfitError
from athlete.env.adapters.old_gym import todays_reset, todays_step
from athlete.env.adapters.stepped import forget
from athlete.env.masks import lift, lift_space, mask_method, mask_path, say_masks_are_read, told_path
from athlete.env.randomness import seed_global_generators, seed_spaces
from athlete.log import logger

Info = Mapping[str, Any]


class Answer(NamedTuple):
    """What a call brought besides what stands in the buffers."""

    infos: Sequence[Info]  # of each row; empty where the call did not concern it
    failures: dict[int, str]  # by row: a traceback, or a sentence
    renewed: Mapping[int, str] | None = None  # rows that failed so, whose environments were made anew


class Rows(Protocol):
    """Rows of one environment, which never reset themselves."""

    buffers: Buffers
    action_space: Any  # Gymnasium's, of one row
    any_thread: bool

    def reset(self, seed: int | None, where: np.ndarray) -> Answer:
        """Begin an episode in the rows `where` `[B]`; with a seed, row i is seeded with `seed + i`."""
        ...

    def step(self, actions: Any) -> Answer:
        """Take a step in every row with `actions` `[B, ...]` in the dtypes of `action_space`."""
        ...

    def close(self) -> None: ...


class Row:
    """One environment, whose answers are written into a row of buffers."""

    def __init__(self, env: Any, index: int, buffers: Buffers):
        self.env, self.index = env, index
        self._buffers = buffers

    def reset(self, seed: int | None) -> Info:
        self._buffers.under_way[self.index] = True
        if seed is not None:
            seed_spaces(self.env, seed)
        result = self.env.reset(seed=seed)
        self._buffers.under_way[self.index] = False
        obs, info = todays_reset(self.env, result)
        self._buffers.write_obs(self.index, obs)
        return _checked_info(info)

    def step(self, action: Any) -> Info:
        self._buffers.under_way[self.index] = True
        result = self.env.step(action)
        self._buffers.under_way[self.index] = False
        if type(result) is not tuple or len(result) != 5:
            result = todays_step(self.env, result)
        obs, reward, terminated, truncated, info = result
        self._buffers.write_step(self.index, obs, reward, terminated, truncated)
        return _checked_info(info)

    def close(self) -> None:
        forget(self.env)
        try:
            self.env.close()
        except Exception:
            logger.warning("row %d: its environment failed to close:\n%s", self.index, traceback.format_exc())


def _checked_info(info: Any) -> Info:
    if type(info) is not dict and not isinstance(info, Mapping):
        raise MisfitError(f"info is of type {type(info).__name__}; expected a dict")
    return info


Maker = Callable[[Buffers], Row]


class LocalRows:
    """Rows of this process, one after another."""

    def __init__(self, rows: list[Row], buffers: Buffers, action_space: Any, makers: Sequence[Maker] = ()):
        """With `makers` of the rows, one that fails is made anew."""
        self.rows, self.buffers, self.action_space = rows, buffers, action_space
        self.any_thread = all(_any_thread(row.env) for row in rows)
        self._makers = makers
        self._calls = 0
        self._per_row = per_row(action_space)
        self._closed = False

    def reset(self, seed: int | None, where: np.ndarray) -> Answer:
        self._calls += 1
        infos: list[Info] = [{} for _ in self.rows]
        failures: dict[int, str] = {}
        renewed: dict[int, str] = {}
        if seed is not None and where.all():
            seed_global_generators(seed)
        for i in np.flatnonzero(where).tolist():
            own = None if seed is None else seed + i
            try:
                infos[i] = self.rows[i].reset(own)
            except Exception as error:
                self._renew(i, told(error), failures, renewed)
                if i in renewed:
                    infos[i] = self._reset_renewed(i, own, failures)
        return Answer(infos, failures, renewed)

    def _reset_renewed(self, i: int, seed: int | None, failures: dict[int, str]) -> Info:
        """The first reset of an environment that replaces another; where it fails too there is no third."""
        try:
            return self.rows[i].reset(seed)
        except Exception as error:
            failures[i] = told(error)
            return {}

    def _renew(self, i: int, text: str, failures: dict[int, str], renewed: dict[int, str]) -> None:
        """Make a row anew that failed so, where that was asked for and is possible; else it is a failure."""
        self.buffers.under_way[self.rows[i].index] = False
        if not self._makers:
            failures[i] = text
            return
        self.rows[i].close()
        try:
            self.rows[i] = self._makers[i](self.buffers)
            renewed[i] = text
        except Exception as error:
            failures[i] = f"{text}\nand it could not be made anew: {told(error)}"

    def at_work(self) -> tuple[int, int] | None:
        """The number of the call and the row that is at work in it; None between calls."""
        row = next((row.index for row in self.rows if self.buffers.under_way[row.index]), None)
        return None if row is None else (self._calls, row)

    def step(self, actions: Any) -> Answer:
        return self.step_each(self._per_row(actions))

    def step_each(self, actions: Sequence[Any]) -> Answer:
        """`step` with the rows' own actions."""
        self._calls += 1
        infos: list[Info] = []
        failures: dict[int, str] = {}
        renewed: dict[int, str] = {}
        for i, action in enumerate(actions):
            try:
                infos.append(self.rows[i].step(action))
            except Exception as error:
                self._renew(i, told(error), failures, renewed)
                infos.append({})
        return Answer(infos, failures, renewed)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            for row in self.rows:
                row.close()

    def __repr__(self) -> str:
        return f"{len(self.rows)} rows of {self.rows[0].env}"


class OwnRows:
    """The rows of one worker as `Rows` of all workers' rows: the others are not here, show zeros and take no step.

    Seeds, keys and messages so mean what they mean where all rows are in one place.
    """

    def __init__(self, rows: LocalRows, first: int):
        """`rows` stand in their buffers from `first` on."""
        self.rows, self.buffers, self.action_space, self.any_thread = (
            rows,
            rows.buffers,
            rows.action_space,
            rows.any_thread,
        )
        self._first = first
        self.here = np.zeros(self.buffers.rows, bool)
        self.here[first : first + len(rows.rows)] = True
        self._split = per_row(self.action_space)

    def reset(self, seed: int | None, where: np.ndarray) -> Answer:
        return self._of_all(self.rows.reset(None if seed is None else seed + self._first, where[self.here]))

    def step(self, actions: Any) -> Answer:
        taken = self._split(actions)
        return self._of_all(self.rows.step_each(taken[self._first : self._first + len(self.rows.rows)]))

    def _of_all(self, answer: Answer) -> Answer:
        """What the own rows answered, in its place among all."""
        infos: list[Info] = [{}] * self.buffers.rows
        infos[self._first : self._first + len(answer.infos)] = answer.infos
        failures, renewed = (
            {self._first + row: text for row, text in (part or {}).items()}
            for part in (answer.failures, answer.renewed)
        )
        return Answer(infos, failures, renewed)

    def close(self) -> None:
        self.rows.close()

    def __repr__(self) -> str:
        return f"rows {self._first} to {self._first + len(self.rows.rows) - 1}"


def told(error: Exception) -> str:
    """What went wrong in a row: a sentence, or the environment's own traceback without the frames of the adapters."""
    if isinstance(error, MisfitError):
        return str(error)
    frames = error.__traceback__
    while frames is not None and os.path.dirname(frames.tb_frame.f_code.co_filename) == os.path.dirname(__file__):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames or error.__traceback__)).rstrip()


def per_row(space: Any) -> Callable[[Any], Sequence[Any]]:
    """A function that takes actions `[B, ...]` of a Gymnasium space apart into those of the rows."""
    if not hasattr(space, "spaces"):
        return list
    if isinstance(space.spaces, Mapping):
        named = {name: per_row(part) for name, part in space.spaces.items()}
        return lambda actions: [
            dict(zip(named, parts, strict=True))
            for parts in zip(*(split(actions[name]) for name, split in named.items()), strict=True)
        ]
    parts = [per_row(part) for part in space.spaces]
    return lambda actions: list(zip(*(split(actions[i]) for i, split in enumerate(parts)), strict=True))


def _any_thread(env: Any) -> bool:
    """Whether a row may be stepped from any thread: what draws may hold a context of the thread that first drew."""
    return env.render_mode is None and bool((env.metadata or {}).get("any_thread", True))


class VectorRows:
    """A ready-made vector environment of Gymnasium's, with autoreset disabled."""

    any_thread = False

    def __init__(self, vector: Any, obs_space: spaces.Space, action_space: spaces.Space):
        self.vector = vector
        self._path = mask_path(obs_space, action_space)
        if self._path is not None:
            say_masks_are_read(repr(vector), told_path(self._path))
            assert isinstance(obs_space, spaces.Dict)
            obs_space = lift_space(obs_space, self._path)
        elif mask_method(next(iter(getattr(vector, "envs", ())), None)) is not None:
            logger.warning(
                "%r: its environments tell legal actions by action_masks(), which nobody asks in a ready-made vector: "
                "pass the id, the class or a factory of one row",
                vector,
            )
        self.buffers = Buffers(obs_space, vector.num_envs)
        self.action_space = vector.single_action_space

    def reset(self, seed: int | None, where: np.ndarray) -> Answer:
        before = None if where.all() else self.buffers.copied_obs()
        obs, info = self.vector.reset(seed=seed, options=None if before is None else {"reset_mask": where.copy()})
        self.buffers.write_all_obs(self._shown(obs))
        if before is not None and not _equal(before, self.buffers.obs, ~where):
            raise MisfitError(
                "it ignores options['reset_mask']: rows that it was not asked to reset have changed. Pass the id, the "
                "class or a factory of one row, so that Athlete makes the rows"
            )
        return Answer(VectorInfos(info, self.buffers.rows), {})

    def step(self, actions: Any) -> Answer:
        obs, reward, terminated, truncated, info = self.vector.step(actions)
        self.buffers.write_all(self._shown(obs), reward, terminated, truncated)
        return Answer(VectorInfos(info, self.buffers.rows), {})

    def _shown(self, obs: Any) -> Any:
        return obs if self._path is None else lift(obs, self._path)

    def close(self) -> None:
        if not self.vector.closed:
            self.vector.close()

    def __repr__(self) -> str:
        return repr(self.vector)


class VectorInfos(Sequence[Info]):
    """What a vector's `info` says of each row: it has arrays `[B]`, and under `_name` which rows gave the entry."""

    def __init__(self, info: Info, rows: int):
        self._info, self._rows = info, rows

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(self._rows))]
        return _info_of_row(self._info, range(self._rows)[row])


def _info_of_row(info: Info, row: int) -> dict[str, Any]:
    found = {}
    for name, value in info.items():
        given = info.get(f"_{name}", None)
        if (name.startswith("_") and name[1:] in info) or (given is not None and not given[row]):
            continue
        found[name] = _info_of_row(value, row) if isinstance(value, Mapping) else value[row]
    return found


def _equal(before: Any, after: Any, kept: np.ndarray) -> bool:
    """Whether observations are the same in the rows `kept`."""
    if isinstance(before, tuple):
        return all(_equal(old, new, kept) for old, new in zip(before, after, strict=True))
    if isinstance(before, dict):
        return all(_equal(old, after[name], kept) for name, old in before.items())
    return np.array_equal(before[kept], after[kept], equal_nan=before.dtype.kind == "f")
