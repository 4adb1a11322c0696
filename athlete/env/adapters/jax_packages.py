"""What the adapters of other people's JAX packages share: brax, Playground, Jumanji, Navix, Craftax and pgx.

The module of a package has `adapt(name, settings) -> Adapted`, and `make_<package>`, which the registry finds. The
names of its environments stand behind its own: `.environment("navix/Navix-Empty-5x5-v0")`.
"""

from __future__ import annotations

import difflib
import functools
import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Env, Key, Step, Tree, hyper
from athlete.env.wrappers.reset_pool import draw_pool
from athlete.ops.random import wrap
from athlete.spaces import Box, Dict, Space, Tuple

Settings = tuple[tuple[str, Any], ...]


class Adapted(NamedTuple):
    """An environment of a package in the form of `Env`. Its states may hold keys, and numbers of Python's."""

    observation_space: Space
    action_space: Space
    reset: Callable[[Key], tuple[Tree, Tree]]
    step: Callable[[Tree, Array, Key], tuple[Tree, Step]]


@hyper
class PackageEnv(Env):
    """An environment of a package, by the name that it has there.

    `settings` are pairs of a name and a value, which the package's adapter explains; they are part of the compiled
    program.
    """

    package: str
    name: str
    settings: Settings = ()

    @property
    def observation_space(self) -> Space:
        return _adapted(self.package, self.name, self.settings).observation_space

    @property
    def action_space(self) -> Space:
        return _adapted(self.package, self.name, self.settings).action_space

    def reset(self, key: Key) -> tuple[Tree, Tree]:
        state, obs = _adapted(self.package, self.name, self.settings).reset(key)
        return without_keys(state), as_elements(self.observation_space, obs)

    def step(self, state: Tree, action: Array, key: Key) -> tuple[Tree, Step]:
        adapted = _adapted(self.package, self.name, self.settings)
        form = _state_form(self.package, self.name, self.settings)
        new_state, step = adapted.step(with_keys(state, form, key), action, key)
        return like(without_keys(new_state), state), Step(
            as_elements(adapted.observation_space, step.obs),
            jnp.asarray(step.reward, jnp.float32).reshape(()),
            jnp.asarray(step.terminated, bool).reshape(()),
            jnp.asarray(step.truncated, bool).reshape(()),
            {},
        )


@functools.lru_cache(maxsize=64)
def _adapted(package: str, name: str, settings: Settings) -> Adapted:
    with jax.ensure_compile_time_eval():  # it may first be asked for while a program is traced
        return importlib.import_module(f"athlete.env.adapters.{package}").adapt(name, settings)


@functools.lru_cache(maxsize=64)
def _state_form(package: str, name: str, settings: Settings) -> Tree:
    return form_of(lambda key: _adapted(package, name, settings).reset(key)[0])


def make_env(package: str, env_id: str, env_config: Mapping[str, Any] | None) -> Env:
    """The environment of an id `"package/name"`, looked up once so that what is wrong with it is an error now.

    `reset_pool` in `env_config` draws that many start states, in one of which every episode begins.
    """
    config = dict(env_config or {})
    pool = config.pop("reset_pool", None)
    env = PackageEnv(package, env_id.removeprefix(f"{package}/"), as_settings(config))
    _adapted(env.package, env.name, env.settings)
    return env if pool is None else draw_pool(env, pool, wrap(np.zeros(2, np.uint32)))


def as_settings(env_config: Mapping[str, Any] | None) -> Settings:
    """Pairs that can be hashed: lists and dictionaries, which files have, are tuples."""
    return tuple((key, _hashable(value)) for key, value in (env_config or {}).items())


def _hashable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return as_settings(value)
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


def import_package(package: str, name: str, module: str) -> Any:
    """A module of a package, which is the extra of the same name. Raises ValueError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"environment({f'{package}/{name}'!r}): {error.name or module} is missing; pip install {package} (the "
            f"extra {package!r})"
        ) from error


def require_known(package: str, name: str, known: Iterable[str]) -> None:
    """Raise ValueError, with the nearest, for a name that the package does not have."""
    names = sorted(known)
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {f'{package}/{near[0]}'!r}?" if near else f"there are {', '.join(names)}"
    raise ValueError(f"environment({f'{package}/{name}'!r}): {package} has no {name!r}; {hint}")


def misfit(package: str, name: str, settings: Settings, reason: object) -> ValueError:
    """The error for settings that an environment does not take."""
    return ValueError(f"environment({f'{package}/{name}'!r}, env_config={dict(settings)}): {reason}")


def form_of(function: Callable[[Key], Tree]) -> Tree:
    """Shapes and dtypes of what a function of a key gives, without running it."""
    return jax.eval_shape(lambda: function(wrap(np.zeros(2, np.uint32))))


def without_keys(state: Tree) -> Tree:
    """A state as arrays: keys as their data, numbers of Python's with dtypes that stay through a loop."""
    return jax.tree.map(
        lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else jnp.asarray(leaf, jnp.result_type(leaf)), state
    )


def with_keys(state: Tree, form: Tree, key: Key) -> Tree:
    """The inverse: keys where `form` has some, of the kind of `key`."""
    return jax.tree.map(
        lambda leaf, was: jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(key)) if _is_key(was) else leaf,
        state,
        form,
    )


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def like(new: Tree, old: Tree) -> Tree:
    """A state in the structure and the dtypes of the one before, since a scan carries one form."""
    pairs = zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True)
    return jax.tree.unflatten(jax.tree.structure(old), [jnp.asarray(leaf, was.dtype) for leaf, was in pairs])


def as_elements(space: Space, obs: Tree) -> Tree:
    """Observations in the dtypes and shapes of their space. Named tuples and the like are dictionaries there."""
    if isinstance(space, Tuple):
        return tuple(as_elements(part, obs[i]) for i, part in enumerate(space.spaces))
    if isinstance(space, Dict):
        entries = obs if isinstance(obs, Mapping) else {name: getattr(obs, name) for name, _ in space.items}
        return {name: as_elements(part, entries[name]) for name, part in space.items}
    return jnp.asarray(obs, space.dtype).reshape(space.shape)


def space_of_arrays(shown: Any) -> Space:
    """A space for arrays of which only form is known: bools are 0 and 1, integers all of their dtype."""
    if isinstance(shown, Mapping):
        return Dict({name: space_of_arrays(part) for name, part in shown.items()})
    shape, dtype = tuple(shown.shape), np.dtype(shown.dtype)
    if dtype == np.bool_:
        return Box(0.0, 1.0, shape)
    if np.issubdtype(dtype, np.integer):
        return Box(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype)
    return Box(-np.inf, np.inf, shape)
