"""Environments of the package gymnax (Lange 2022), compiled as ours are: `.environment("gymnax/Breakout-MinAtar")`."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Env, Key, Step, Tree, hyper
from athlete.spaces import Box, Dict, Discrete, Space, Tuple

GYMNAX = "gymnax/"  # before the names of its environments


@hyper
class Gymnax(Env):
    """An environment of gymnax by its name, such as `"Breakout-MinAtar"`.

    `settings` are pairs of a name and a value: fields of its parameters (`max_steps_in_episode`, `gravity`, ...), or
    else arguments of its class. They are part of the compiled program.
    """

    name: str
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def observation_space(self) -> Space:
        return _spaces(self.name, self.settings)[0]

    @property
    def action_space(self) -> Space:
        return _spaces(self.name, self.settings)[1]

    def reset(self, key: Key) -> tuple[Tree, Tree]:
        env, params = _made(self.name, self.settings)
        obs, state = env.reset_env(key, params)
        return _strong(state), _as_elements(self.observation_space, obs)

    def step(self, state: Tree, action: Array, key: Key) -> tuple[Tree, Step]:
        env, params = _made(self.name, self.settings)
        obs, new_state, reward, terminated, _ = env.step_env(key, state, action, params)
        new_state = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), new_state, state)
        return new_state, Step(
            _as_elements(self.observation_space, obs),
            jnp.asarray(reward, jnp.float32).reshape(()),
            jnp.asarray(terminated, bool),
            jnp.asarray(env.is_truncated(new_state, params), bool),
            {},
        )


def make_gymnax(env_id: str, env_config: Mapping[str, Any] | None = None) -> Gymnax:
    """The environment of an id such as `"gymnax/Breakout-MinAtar"`; `env_config` are its `settings`.

    Raises:
        ValueError: gymnax is not installed or too old, it has no environment of that name, or the environment has no
            such setting.
    """
    env = Gymnax(
        env_id.removeprefix(GYMNAX), tuple((key, _hashable(value)) for key, value in (env_config or {}).items())
    )
    _made(env.name, env.settings)
    return env


def _hashable(value: Any) -> Any:
    """Lists, which files have, as tuples."""
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


@functools.lru_cache(maxsize=64)
def _made(name: str, settings: tuple[tuple[str, Any], ...]) -> tuple[Any, Any]:
    """gymnax's environment and its parameters."""
    try:
        import gymnax
    except ImportError as error:
        raise ValueError(f"environment({GYMNAX + name!r}): gymnax is missing; pip install gymnax six") from error
    if name not in gymnax.registered_envs:
        known = sorted(gymnax.registered_envs)
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {GYMNAX + near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise ValueError(f"environment({GYMNAX + name!r}): gymnax has no {name!r}; {hint}")
    _, params = gymnax.make(name)
    fields = {key: value for key, value in settings if hasattr(params, key)}
    arguments = {key: value for key, value in settings if key not in fields}
    try:
        env, params = gymnax.make(name, **arguments)
    except TypeError as error:
        names = ", ".join(vars(params))
        raise ValueError(
            f"environment({GYMNAX + name!r}, env_config={dict(settings)}): {', '.join(arguments)} is neither one of "
            f"its parameters ({names}) nor an argument of its class"
        ) from error
    if not hasattr(env, "is_truncated"):
        raise ValueError("this gymnax does not tell truncated from terminated; install gymnax 1.0 or newer")
    return env, params.replace(**fields)


@functools.lru_cache(maxsize=64)
def _spaces(name: str, settings: tuple[tuple[str, Any], ...]) -> tuple[Space, Space]:
    """Of observations and of actions. gymnax computes bounds in JAX; here they are known while a program is traced."""
    env, params = _made(name, settings)
    with jax.ensure_compile_time_eval():
        return _space(env.observation_space(params)), _space(env.action_space(params))


def _space(space: Any) -> Space:
    from gymnax.environments import spaces

    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n))
    if isinstance(space, spaces.Box):
        dtype = np.dtype(space.dtype)
        return Box(np.asarray(space.low), np.asarray(space.high), tuple(space.shape), dtype)
    if isinstance(space, spaces.Tuple):
        return Tuple(tuple(_space(part) for part in space.spaces))
    if isinstance(space, spaces.Dict):
        return Dict({name: _space(part) for name, part in space.spaces.items()})
    raise ValueError(f"gymnax's space {space!r} has no counterpart among Athlete's spaces")


def _as_elements(space: Space, obs: Tree) -> Tree:
    """Observations in the dtypes and shapes of their space: gymnax's are not always."""
    if isinstance(space, Tuple):
        return tuple(_as_elements(part, obs[i]) for i, part in enumerate(space.spaces))
    if isinstance(space, Dict):
        return {name: _as_elements(part, obs[name]) for name, part in space.items}
    return jnp.asarray(obs, space.dtype).reshape(space.shape)


def _strong(state: Tree) -> Tree:
    """Python's numbers in a state as arrays, whose dtypes stay through a loop."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), state)
