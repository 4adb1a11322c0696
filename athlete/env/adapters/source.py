"""Gymnasium's environments as a `Source`: rows of NumPy arrays that the loop steps and resets."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from athlete import spaces
from athlete.core import Array, Health, Key, Source, Spec, Step, Tree
from athlete.env.adapters.buffers import Buffers, MisfitError
from athlete.env.adapters.gymnasium import VectorEnv, require_no_autoreset, to_space
from athlete.env.adapters.lives import Lives
from athlete.env.adapters.making import RowMaker, make_own_rows, make_rows
from athlete.env.adapters.processes import LostProcessError, ProcessRows
from athlete.env.adapters.rows import Answer, LocalRows, OwnRows, Rows, VectorRows
from athlete.env.adapters.watchdog import Watchdog
from athlete.env.errors import EnvError
from athlete.env.supervision import UNSUPERVISED, Supervision
from athlete.log import logger
from athlete.ops.masks import check_mask, without_action
from athlete.spaces import ACTION_MASK, has_mask


class GymnasiumSource(Source):
    """Rows of a Gymnasium environment, in this process or in worker processes over shared memory.

    Args:
        env: whatever `make_gymnasium` takes, or a ready-made vector environment with autoreset disabled.
        env_config: what the environment is made with.
        num_workers: how many processes the rows live in; 0 steps all in this one.
        num_envs_per_worker: there are `max(num_workers, 1) * num_envs_per_worker` rows.
        seeded_resets: seed every reset from its key and row, so that a run can be repeated exactly (evaluation). Else
            only `reset` seeds and `reset_where` goes on with the environment's own random numbers (training).
        seed: of the global generators while environments are made; those of this process are seeded too.
        worker: in this process are only the rows of the worker of that number, from 0; see `here`.
        most_rows: how many rows there are at most, where the last worker has fewer.

    Observations have the dtypes of `spec.obs` (never 64 bits), rewards are float32, flags bool, whatever numbers the
    environment returns. `info` is a sequence of the rows' own dictionaries.

    Raises:
        ValueError: as `make_gymnasium` and `make_rows`; a ready-made vector that resets its rows by itself.
        EnvError: from `reset`, `step` and `reset_where`, with row, seed, step and action: an environment raises,
            returns what does not fit its spaces, NaN or infinity, or its worker process dies. `close` still works then.
    """

    row_maker: type[RowMaker] = RowMaker

    def __init__(
        self,
        env: Any,
        env_config: Mapping[str, Any] | None = None,
        *,
        num_workers: int = 0,
        num_envs_per_worker: int = 1,
        seeded_resets: bool = False,
        supervision: Supervision = UNSUPERVISED,
        seed: int | None = None,
        worker: int | None = None,
        most_rows: int | None = None,
    ):
        self.vector: Rows
        if isinstance(env, VectorEnv):
            require_no_autoreset(env)
            self.vector = VectorRows(
                env,
                to_space(env.single_observation_space, "observation_space"),
                to_space(env.single_action_space, "action_space"),
            )
        elif worker is None:
            self.vector = make_rows(
                env, env_config, num_workers, num_envs_per_worker, supervision, self.row_maker, seed
            )
        else:
            own = make_own_rows(
                env, env_config, num_workers, num_envs_per_worker, worker, supervision, self.row_maker, seed, most_rows
            )
            self.vector, self.here = own, own.here
        self.rows, self.any_thread = self.vector.buffers.rows, self.vector.any_thread
        self.spec = self._seen_spec()
        self._seeded_resets = seeded_resets
        self._masked = has_mask(self.spec.obs)
        if self._masked:
            check_mask(self.spec)
        self._fit_action = action_fitter(self.vector.action_space)
        self._lives = Lives(self.rows)
        self._everywhere = np.ones(self.rows, bool) if self.here is None else self.here
        self._supervision = supervision
        self._renewals = 0
        self._unseeded = np.zeros(self.rows, bool)  # rows whose environment is new and was never seeded
        self._obs: Tree = ()
        self._watchdog: Watchdog | None = None
        local = self.vector.rows if isinstance(self.vector, OwnRows) else self.vector
        if isinstance(local, LocalRows) and supervision.env_timeout is not None:
            self._watchdog = Watchdog(local, supervision.env_timeout)

    def _seen_spec(self) -> Spec:
        return Spec(self.vector.buffers.space, to_space(self.vector.action_space, "action_space"))

    def reset(self, key: Key) -> Tree:
        seed = seed_of(key)
        self._lives.reset(self._everywhere, seed)
        infos = self._run(self.vector.reset, seed, self._everywhere)
        if not self._masked and any(ACTION_MASK in info for info in infos):
            logger.warning(
                "%r tells legal actions in info['action_mask'], which nobody reads: wrap the environment in "
                "athlete.env.adapters.gymnasium.ActionMaskObservation to have it honoured",
                self.vector,
            )
        self._unseeded[:] = False
        self._obs = self._checked_obs(self._everywhere)
        return self._obs

    def step(self, action: Tree, key: Key) -> Step:
        taken = self._fit_action(spaces.to_environment(self.spec.action, map_arrays(np.asarray, action)))
        self._lives.step(taken)
        self.faulty = None
        infos = self._run(self.vector.step, taken)
        came = self.vector.buffers
        if self.faulty is not None:
            self._cut_off(self.faulty)
        terminated = came.terminated.copy()
        self._obs = self._checked_obs(self._everywhere & ~terminated)
        return Step(self._obs, came.reward.copy(), terminated, came.truncated.copy(), infos)

    def _cut_off(self, rows: Array) -> None:
        """In the place of a step that failed: the rows stand where they stood, for no reward, and are truncated."""
        came = self.vector.buffers
        for buffer, before in zip(_leaves(came.obs), _leaves(self._obs), strict=True):
            buffer[rows] = before[rows]
        came.reward[rows], came.terminated[rows], came.truncated[rows] = 0.0, False, True
        self._unseeded |= rows

    def reset_where(self, done: Array, obs: Tree, key: Key) -> Tree:
        done = np.array(done, bool)
        if not done.any():
            return obs
        seeded = done if self._seeded_resets else done & self._unseeded
        if seeded.any():
            self._reset_rows(seeded, seed_of(key))
        if (others := done & ~seeded).any():
            self._reset_rows(others, None)
        self._unseeded &= ~done
        self._obs = self._checked_obs(done)
        return self._obs

    def _reset_rows(self, where: Array, seed: int | None) -> None:
        self._lives.reset(where, seed)
        self._run(self.vector.reset, seed, where)

    def _checked_obs(self, goes_on: np.ndarray) -> Tree:
        """The observations in arrays of their own.

        EnvError where a number is none, or where a mask leaves no action in a row `[B]` whose episode goes on.
        """
        buffers = self.vector.buffers
        self._require_actions(buffers.obs, goes_on)
        return checked_obs(buffers, self._lives)

    def _require_actions(self, obs: Tree, goes_on: np.ndarray) -> None:
        if self._masked and (stuck := without_action(self.spec, obs) & goes_on).any():
            row = int(stuck.argmax())
            raise EnvError(
                f"the observation's {ACTION_MASK!r} leaves no legal action: {obs[ACTION_MASK][row].tolist()}. "
                f"End the episode where nothing can be done (terminated=True). {self._lives.tell(row)}"
            )

    def _run(self, call: Callable[..., Answer], *arguments: Any) -> Sequence[Mapping[str, Any]]:
        """The rows' infos; EnvError with the whole story if something failed in a call of the rows."""
        try:
            answer = call(*arguments)
        except LostProcessError as error:
            raise EnvError(f"{error}. {self._lives.tell(error.row)}") from error
        except MisfitError as error:
            raise EnvError(
                f"{self.vector!r} returned what does not fit: {error}, in {self._lives.told_call()}"
            ) from error
        except Exception as error:
            failed = f"{self.vector!r} failed in {self._lives.told_call()}"
            raise EnvError(f"{traceback.format_exc()}{failed}") from error
        if answer.failures:
            raise EnvError(
                "\n\n".join(f"{text}\n{self._lives.tell(row)}" for row, text in sorted(answer.failures.items()))
            )
        if answer.renewed:
            self._note_renewed(answer.renewed)
        return answer.infos

    def _note_renewed(self, renewed: Mapping[int, str]) -> None:
        for row, text in renewed.items():
            logger.warning("%s\n%s. It begins anew", text, self._lives.tell(row))
        self._renewals += len(renewed)
        self.faulty = np.isin(np.arange(self.rows), list(renewed))
        if self._renewals > self._supervision.max_restarts:
            row, text = next(iter(renewed.items()))
            raise EnvError(
                f"{text}\n{self._lives.tell(row)}. No more is begun anew: fault_tolerance(max_num_worker_restarts="
                f"{self._supervision.max_restarts})"
            )

    @property
    def health(self) -> Health:
        if isinstance(self.vector, ProcessRows):
            return Health(self.vector.healthy(), self.vector.restarts, self._renewals)
        return Health(0, 0, self._renewals)

    def raise_if_hung(self) -> None:
        dog = self._watchdog
        if dog is not None and (row := dog.hung) is not None:
            raise EnvError(f"{dog.sentence()}. {self._lives.tell(row)}")

    def environments(self) -> list[Any]:
        return [row.env for row in self.vector.rows] if isinstance(self.vector, LocalRows) else []

    def close(self) -> None:
        if self._watchdog is not None:
            self._watchdog.end()
        self.vector.close()


def _leaves(tree: Tree) -> list[Array]:
    if isinstance(tree, tuple | dict):
        parts = tree.values() if isinstance(tree, dict) else tree
        return [leaf for part in parts for leaf in _leaves(part)]
    return [tree]


def checked_obs(buffers: Buffers, lives: Lives) -> Tree:
    """The observations in arrays of their own; EnvError where one of them, or a reward, is NaN or infinite."""
    if not buffers.all_finite():
        row, sentence = buffers.first_nonfinite()
        raise EnvError(f"{sentence}. {lives.tell(row)}")
    return buffers.copied_obs()


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
        return lambda action: action.astype(dtype)  # a copy: environments may write into their action
    low, high = space.low, space.high
    if dtype.kind == "f":
        return lambda action: np.minimum(np.maximum(action.astype(dtype, copy=False), low), high)
    return lambda action: np.rint(action.clip(low, high)).astype(dtype)
