"""EnvPool's environments as a `Source`: all rows in one batch, stepped by threads in C++. Needs the extra `envpool`.

EnvPool resets a row by itself in the step AFTER its episode ended, and returns a step that nobody took. Here that never
comes to pass: the loop asks for the reset of every row that is done before it takes the next step, and EnvPool resets
the rows it is asked to. So `next_obs` is what the last step led to, and termination and truncation stay apart.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from athlete import spaces
from athlete.core import Array, Key, Source, Spec, Step, Tree
from athlete.env.adapters.buffers import Buffers, MisfitError
from athlete.env.adapters.conversion import to_space
from athlete.env.adapters.lives import Lives
from athlete.env.adapters.rows import VectorInfos
from athlete.env.adapters.source import action_fitter, checked_obs, map_arrays, seed_of
from athlete.env.errors import EnvError
from athlete.env.registry import told_config
from athlete.ops.features import are_channels_first
from athlete.spaces import Box


def require_envpool() -> ModuleType:
    """The package. Raises ValueError with what to install where it is missing."""
    try:
        import envpool
    except ModuleNotFoundError as error:
        raise ValueError("backend='envpool' needs EnvPool: pip install envpool") from error
    return envpool


_SET_ELSEWHERE = {
    "num_envs": "num_envs_per_worker",
    "batch_size": "num_envs_per_worker",
    "seed": ".debugging(seed=...)",
    "env_type": "backend='envpool'",
}


def pool_name(env_id: str) -> str:
    """EnvPool's name of an id: `"Pong-v5"` of `"ALE/Pong-v5"`."""
    return env_id.removeprefix("ALE/")


def pool_spec(env_id: str, env_config: Mapping[str, Any]) -> Any:
    """EnvPool's specification of an id; `"ALE/Pong-v5"` is its `"Pong-v5"`.

    Raises ValueError for an id that it does not have, and for an `env_config` that it does not take.
    """
    envpool, name = require_envpool(), pool_name(env_id)
    known = envpool.list_all_envs()
    for entry, instead in _SET_ELSEWHERE.items():
        if entry in env_config:
            raise ValueError(f"env_config={{{entry!r}: {env_config[entry]!r}}}: {instead} says that of an EnvPool")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=2)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise ValueError(f"environment {env_id!r}, backend='envpool': EnvPool has no {name!r}; {hint}".rstrip("; "))
    try:
        return envpool.make_spec(name, **env_config)
    except (TypeError, KeyError, RuntimeError) as error:
        raise ValueError(f"env_config={told_config(env_config)} does not fit EnvPool's {name!r}: {error}") from error


class EnvPoolSource(Source):
    """`rows` environments of EnvPool, which makes and preprocesses them as its own settings (`env_config`) say.

    Pictures come with their channels last, `[height, width, frames]`: EnvPool's Atari has its frames first.
    `reset` makes the pool again from a seed of its key: an EnvPool is seeded when it is made and not later.

    Raises:
        ValueError: EnvPool is not installed, or has no such environment or setting, or a space that is not of
            `athlete.spaces`.
        EnvError: from `reset`, `step` and `reset_where`, if EnvPool raises, or gives NaN or infinity.
    """

    any_thread = True

    def __init__(self, env_id: str, env_config: Mapping[str, Any] | None = None, *, rows: int):
        self.rows = rows
        self._env_id, self._env_config = env_id, dict(env_config or {})
        made = pool_spec(env_id, self._env_config)
        shown = to_space(made.gymnasium_observation_space, "observation_space")
        self._channels_first = False
        if isinstance(shown, Box) and shown.dtype == np.uint8 and are_channels_first(shown.shape):
            self._channels_first = True
            shown = Box(np.moveaxis(shown.low, 0, -1), np.moveaxis(shown.high, 0, -1), dtype=np.uint8)
        self.spec = Spec(shown, to_space(made.gymnasium_action_space, "action_space"))
        self._fit_action = action_fitter(made.gymnasium_action_space)
        self._buffers, self._lives = Buffers(shown, rows), Lives(rows)
        self._pool: Any = None

    def reset(self, key: Key) -> Tree:
        self.close()
        name, seed = pool_name(self._env_id), seed_of(key)
        self._pool = require_envpool().make(
            name, env_type="gymnasium", num_envs=self.rows, seed=seed, **self._env_config
        )
        everywhere = np.ones(self.rows, bool)
        self._lives.reset(everywhere, seed)  # of which EnvPool too makes a row by its number
        self._write(self._run(self._pool.reset)[0])
        return checked_obs(self._buffers, self._lives)

    def step(self, action: Tree, key: Key) -> Step:
        taken = self._fit_action(spaces.to_environment(self.spec.action, map_arrays(np.asarray, action)))
        self._lives.step(taken)
        obs, *rest, info = self._run(self._pool.step, taken)
        self._write(obs, *rest)
        came = self._buffers
        terminated, truncated = came.terminated.copy(), came.truncated & ~came.terminated
        infos = VectorInfos(info, self.rows)
        return Step(checked_obs(came, self._lives), came.reward.copy(), terminated, truncated, infos)

    def reset_where(self, done: Array, obs: Tree, key: Key) -> Tree:
        ended = np.flatnonzero(done).astype(np.int32)
        if not ended.size:
            return obs
        self._lives.reset(np.asarray(done), None)
        fresh, info = self._run(self._pool.reset, ended)
        where = info["env_id"]
        whole = map_arrays(lambda old, new: _replaced(old, where, new), self._buffers.obs, self._shown(fresh))
        self._buffers.write_all_obs(whole)
        return checked_obs(self._buffers, self._lives)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _shown(self, obs: Tree) -> Tree:
        return np.moveaxis(obs, 1, -1) if self._channels_first else obs

    def _write(self, obs: Tree, *rest: Array) -> None:
        try:
            if rest:
                self._buffers.write_all(self._shown(obs), *rest)
            else:
                self._buffers.write_all_obs(self._shown(obs))
        except MisfitError as error:
            told = self._lives.told_call()
            raise EnvError(f"EnvPool's {self._env_id!r} returned what does not fit in {told}: {error}") from error

    def _run(self, call: Any, *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except Exception as error:
            raise EnvError(f"EnvPool's {self._env_id!r} failed in {call.__name__}{arguments}: {error}") from error


def is_atari_of_pool(env_id: str) -> bool:
    """Whether an id of EnvPool's is a game of Atari."""
    return "use_fire_reset" in pool_spec(env_id, {}).config._fields


def as_ale_config(env_config: Mapping[str, Any]) -> dict[str, Any]:
    """EnvPool's settings of Atari as those of Gymnasium's preprocessing, for films."""
    names = {
        "stack_num": "stack_size",
        "frame_skip": "frame_skip",
        "noop_max": "noop_max",
        "gray_scale": "grayscale_obs",
        "episodic_life": "terminal_on_life_loss",
    }
    sizes = tuple(env_config.get(side, 84) for side in ("img_width", "img_height"))
    stickiness = env_config.get("repeat_action_probability", 0.0)
    translated = {names[name]: value for name, value in env_config.items() if name in names}
    return {**translated, "screen_size": sizes, "repeat_action_probability": stickiness}


def _replaced(old: Array, where: Array, new: Array) -> Array:
    """`old` `[B, ...]` with the rows `where` replaced by `new`, in an array of its own."""
    copy = np.array(old)
    copy[where] = new
    return copy
