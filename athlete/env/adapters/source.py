"""Gymnasium's environments as a `Source`: rows of NumPy arrays that the loop steps and resets."""

from __future__ import annotations

import contextlib
import multiprocessing.connection
import traceback
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from athlete import spaces
from athlete.core import Array, Key, Source, Spec, Step, Tree
from athlete.env.adapters.gymnasium import (
    FAILURE,
    SingleVector,
    VectorEnv,
    describe_row,
    make_vector,
    require_no_autoreset,
    to_space,
)
from athlete.env.errors import EnvError
from athlete.log import logger
from athlete.ops.masks import check_mask, without_action
from athlete.spaces import ACTION_MASK, has_mask


class GymnasiumSource(Source):
    """Rows of a Gymnasium environment, in this process or in worker processes over shared memory.

    Args:
        env: whatever `make_gymnasium` takes, or a ready-made vector environment with autoreset disabled.
        env_config: what the environment is made with.
        num_workers: 0 steps all rows in this process; else every row has a process of its own.
        num_envs_per_worker: there are `max(num_workers, 1) * num_envs_per_worker` rows.
        seeded_resets: seed every reset from its key and row, so that a run can be repeated exactly (evaluation). Else
            only `reset` seeds and `reset_where` goes on with the environment's own random numbers (training).

    Observations have the dtypes of `spec.obs` (never 64 bits), rewards are float32, flags bool; `info` is the
    dictionary of Gymnasium's vector environments.

    Raises:
        ValueError: as `make_gymnasium` and `make_vector`; a ready-made vector that resets its rows by itself.
        EnvError: from any method, if an environment raises or a worker process dies. `close` still works then.
    """

    def __init__(
        self,
        env: Any,
        env_config: Mapping[str, Any] | None = None,
        *,
        num_workers: int = 0,
        num_envs_per_worker: int = 1,
        seeded_resets: bool = False,
    ):
        if isinstance(env, VectorEnv):
            require_no_autoreset(env)
        self._is_foreign = isinstance(env, VectorEnv)
        self.vector: Any = env if self._is_foreign else make_vector(env, env_config, num_workers, num_envs_per_worker)
        self.rows: int = self.vector.num_envs
        self._processes = getattr(self.vector, "processes", [])
        self.any_thread = bool(self._processes) or (not self._is_foreign and all(map(_any_thread, self._own_rows())))
        self._lost_process = False
        try:
            self.spec = Spec(
                to_space(self.vector.single_observation_space, "observation_space"),
                to_space(self.vector.single_action_space, "action_space"),
            )
        except ValueError:
            self.close()
            raise
        self._seeded_resets = seeded_resets
        self._masked = has_mask(self.spec.obs)
        if self._masked:
            check_mask(self.spec)
        self._own_obs = copier(self.spec.obs)
        self._fit_action = action_fitter(self.vector.single_action_space)
        # For the message if a worker dies, which cannot tell any more where it was.
        self._seeds: list[int | None] = [None] * self.rows
        self._resets = np.zeros(self.rows, int)
        self._steps = 0  # vector steps taken, and how many when each row's episode began
        self._started = np.zeros(self.rows, int)
        self._call = "reset"

    def reset(self, key: Key) -> Tree:
        seed = seed_of(key)
        self._call = "reset"
        self._seeds = [seed + row for row in range(self.rows)]
        self._resets[:] = 0
        self._started[:] = self._steps
        obs, info = self._run(lambda: self.vector.reset(seed=seed))
        if ACTION_MASK in info and not self._masked:
            logger.warning(
                "%r tells legal actions in info['action_mask'], which nobody reads: wrap the environment in "
                "athlete.env.adapters.gymnasium.ActionMaskObservation to have it honoured",
                self.vector,
            )
        return self._checked(self._own_obs(obs), np.ones(self.rows, bool))

    def step(self, action: Tree, key: Key) -> Step:
        taken = self._fit_action(spaces.to_environment(self.spec.action, _to_numpy(action)))
        self._call = taken
        self._steps += 1
        obs, reward, terminated, truncated, info = self._run(lambda: self.vector.step(taken))
        obs = self._checked(self._own_obs(obs), ~terminated)
        return Step(obs, reward.astype(np.float32), terminated, truncated, info)

    def reset_where(self, done: Array, obs: Tree, key: Key) -> Tree:
        done = np.array(done, bool)
        if not done.any():
            return obs
        seed = seed_of(key) if self._seeded_resets else None
        self._call = "reset"
        self._started[done] = self._steps
        self._resets[done] += 1
        if seed is not None:
            self._resets[done] = 0
            self._seeds = [seed + row if done[row] else old for row, old in enumerate(self._seeds)]
        fresh, _ = self._run(lambda: self.vector.reset(seed=seed, options={"reset_mask": done.copy()}))
        fresh = self._own_obs(fresh)
        if self._is_foreign:
            self._require_untouched(fresh, obs, ~done)
        return self._checked(fresh, done)

    def _checked(self, obs: Tree, goes_on: np.ndarray) -> Tree:
        """`obs`, unless a mask leaves no action in a row `[B]` whose episode goes on: that is an EnvError."""
        if self._masked and (stuck := without_action(self.spec, obs) & goes_on).any():
            row = int(stuck.argmax())
            raise EnvError(
                f"the observation's {ACTION_MASK!r} leaves no legal action: {obs[ACTION_MASK][row].tolist()}. End the "
                "episode where nothing can be done (terminated=True). " + self._life_of(row, self._told_call(row))
            )
        return obs

    def _own_rows(self) -> list[Any]:
        return [self.vector.row] if isinstance(self.vector, SingleVector) else self.vector.envs

    def close(self) -> None:
        if self.vector.closed:
            return
        if not self._lost_process:
            with warnings.catch_warnings(), contextlib.suppress(Exception):
                warnings.simplefilter("ignore")  # that a step is pending: so it is after Ctrl-C
                self.vector.close(**({"timeout": 2.0} if self._processes else {}))
                return
        # Gymnasium's way of closing talks to every process and does not survive the loss of one.
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(2.0)
            if process.is_alive():
                process.kill()
        self.vector.closed = True

    def _run(self, call: Callable[[], tuple]) -> tuple:
        """What a call of the vector returns; EnvError with the whole story if something failed in it."""
        try:
            result = call()
        except (EOFError, ConnectionError) as error:
            self._lost_process = True
            raise EnvError(self._obituary()) from error
        except Exception as error:
            raise EnvError(f"{traceback.format_exc()}{self.vector!r} failed in {self._told_call()}") from error
        if FAILURE in result[-1]:
            raise EnvError("\n\n".join(failure for failure in result[-1][FAILURE] if failure))
        return result

    def _obituary(self) -> str:
        """Which worker processes died and what each was doing."""
        multiprocessing.connection.wait([process.sentinel for process in self._processes], timeout=2.0)
        lines = []
        for row, process in enumerate(self._processes):
            if process.exitcode is not None:
                killed = " (killed; is the memory full?)" if process.exitcode == -9 else ""
                lines.append(
                    f"worker process {row} died with exit code {process.exitcode}{killed}. "
                    + self._life_of(row, self._told_call(row))
                )
        return "\n".join(lines) or f"the connection to a worker process broke in {self._told_call()}"

    def _life_of(self, row: int, call: str) -> str:
        steps = int(self._steps - self._started[row])
        return describe_row(row, self._seeds[row], int(self._resets[row]), steps, call)

    def _told_call(self, row: int | None = None) -> str:
        if isinstance(self._call, str):
            return self._call
        return f"step({self._call if row is None else map_arrays(lambda leaf: leaf[row], self._call)!r})"

    def _require_untouched(self, fresh: Tree, obs: Tree, kept: np.ndarray) -> None:
        """Catch a vector environment that resets more rows than `reset_mask` names, whatever its metadata say."""
        same = map_arrays(
            lambda new, old: np.array_equal(new[kept], np.asarray(old)[kept], equal_nan=new.dtype.kind == "f"),
            fresh,
            obs,
        )
        if not all(_leaves(same)):
            raise EnvError(
                f"{self.vector!r} ignores options['reset_mask']: rows that it was not asked to reset have changed. "
                "Pass the id, the class or a factory of one row, so that Athlete makes the vector"
            )


def _any_thread(row: Any) -> bool:
    """Whether a row may be stepped from any thread: what draws may hold a context of the thread that first drew."""
    return row.render_mode is None and bool(row.metadata.get("any_thread", True))


def seed_of(key: Key) -> int:
    """A seed below 2**30 from the data of a key or of several; rows take it and its successors."""
    return int(np.random.SeedSequence(np.asarray(key).ravel().tolist()).generate_state(1)[0] >> 2)


def map_arrays(function: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """`function` over the arrays of nested tuples and dictionaries."""
    if isinstance(tree, tuple):
        return tuple(map_arrays(function, *parts) for parts in zip(tree, *others, strict=True))
    if isinstance(tree, dict):
        return {name: map_arrays(function, tree[name], *(other[name] for other in others)) for name in tree}
    return function(tree, *others)


def _leaves(tree: Tree) -> list:
    if isinstance(tree, tuple | dict):
        return [leaf for part in (tree.values() if isinstance(tree, dict) else tree) for leaf in _leaves(part)]
    return [tree]


def _to_numpy(tree: Tree) -> Tree:
    return map_arrays(np.asarray, tree)


def copier(space: spaces.Space) -> Callable[[Tree], Tree]:
    """A function that copies a vector's buffers into fresh arrays of the space's dtypes."""
    if isinstance(space, spaces.Tuple):
        copiers = [copier(part) for part in space.spaces]
        return lambda obs: tuple(copy(part) for copy, part in zip(copiers, obs, strict=True))
    if isinstance(space, spaces.Dict):
        named = {name: copier(part) for name, part in space.items}
        return lambda obs: {name: copy(obs[name]) for name, copy in named.items()}
    if isinstance(space, spaces.OneOf):  # of which vectors give a tuple with an element for each row
        return lambda rows: map_arrays(
            lambda *leaves: np.stack(leaves), *(spaces.fixed_form(space, row) for row in rows)
        )
    dtype = space.dtype
    return lambda obs: np.array(obs, dtype)


def action_fitter(space: Any) -> Callable[[Tree], Tree]:
    """A function that gives actions the exact dtypes and bounds of a Gymnasium space.

    Rescaling in float32 may end a rounding error outside the bounds, which environments that look refuse.
    """
    if hasattr(space, "spaces"):
        if isinstance(space.spaces, Mapping):
            named = {name: action_fitter(part) for name, part in space.spaces.items()}
            return lambda action: {name: fit(action[name]) for name, fit in named.items()}
        fitters = [action_fitter(part) for part in space.spaces]
        return lambda action: tuple(fit(part) for fit, part in zip(fitters, action, strict=True))
    dtype = space.dtype
    if not hasattr(space, "low"):
        return lambda action: action.astype(dtype, copy=False)
    low, high = space.low, space.high
    if dtype.kind == "f":
        return lambda action: np.minimum(np.maximum(action.astype(dtype, copy=False), low), high)
    return lambda action: np.rint(action.clip(low, high)).astype(dtype)
