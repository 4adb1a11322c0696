"""Games of the package pgx (Koyamada et al. 2023, arXiv:2303.17503): `.environment("pgx/connect_four")`."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from athlete.core import Array, Env, Group, Key, MultiEnv, MultiStep, Step, Tree, hyper
from athlete.env.adapters.jax_packages import (
    Adapted,
    Settings,
    as_settings,
    form_of,
    import_package,
    like,
    make_env,
    misfit,
    require_known,
    space_of_arrays,
    with_keys,
    without_keys,
)
from athlete.env.masks import OBSERVATIONS
from athlete.spaces import ACTION_MASK, Dict, Discrete, MultiBinary


@hyper
class PgxGame(MultiEnv):
    """A game of pgx in which players take turns: `player_0`, `player_1`, ..., numbered as in pgx.

    Observations are `{"observations": what pgx shows to the player, "action_mask": [num_actions]}`. The mask is that of
    the player whose turn it is. Who of them begins is drawn by pgx. An action that is not legal loses the game: masks
    prevent it. `settings` are pairs of an argument of the game's class and a value.
    """

    name: str
    settings: Settings = ()

    @property
    def groups(self) -> dict[str, Group]:
        game = _made(self.name, self.settings)
        form = _form(self.name, self.settings)
        num_actions = form.legal_action_mask.shape[0]
        shown = space_of_arrays(form.observation)
        obs = Dict({OBSERVATIONS: shown, ACTION_MASK: MultiBinary((num_actions,))})
        return {"player": Group(game.num_players, obs, Discrete(num_actions))}

    def reset(self, key: Key) -> tuple[Tree, Tree, Tree]:
        game = _made(self.name, self.settings)
        state = game.init(key)
        asked = jnp.arange(game.num_players) == state.current_player
        return without_keys(state), self._observe(state), {"player": asked}

    def step(self, state: Tree, action: Tree, key: Key) -> tuple[Tree, MultiStep]:
        game = _made(self.name, self.settings)
        before = with_keys(state, _form(self.name, self.settings), key)
        after = game.step(before, action["player"][before.current_player], key)
        players = jnp.arange(game.num_players)
        over = after.terminated | after.truncated
        everybody = jnp.ones_like(players, bool)
        return like(without_keys(after), state), MultiStep(
            obs=self._observe(after),
            reward={"player": jnp.asarray(after.rewards, jnp.float32)},
            all_terminated=after.terminated,
            all_truncated=after.truncated & ~after.terminated,
            acting={"player": (players == after.current_player) & ~over},
            terminated={"player": everybody & after.terminated},
            truncated={"player": everybody & after.truncated & ~after.terminated},
        )

    def _observe(self, state: Any) -> Tree:
        game = _made(self.name, self.settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of `player_id`: all players' views are wanted here
            shown = jax.vmap(functools.partial(game.observe, state))(jnp.arange(game.num_players))
        legal = jnp.broadcast_to(state.legal_action_mask, (game.num_players, *state.legal_action_mask.shape))
        space = self.groups["player"].obs
        assert isinstance(space, Dict)
        dtype = dict(space.items)[OBSERVATIONS].dtype
        return {"player": {OBSERVATIONS: shown.astype(dtype), ACTION_MASK: legal.astype(jnp.int8)}}


def make_pgx(env_id: str, env_config: Mapping[str, Any] | None = None) -> PgxGame | Env:
    """The game of an id such as `"pgx/connect_four"`: with many agents, or with one (`"pgx/2048"`).

    Args:
        env_id: `"pgx/"` and pgx's name.
        env_config: arguments of the game's class, which few have.

    Raises:
        ValueError: pgx is not installed, it has no game of that name, or the class takes no such argument.
    """
    name, settings = env_id.removeprefix("pgx/"), as_settings(env_config)
    if _made(name, settings).num_players > 1:
        return PgxGame(name, settings)
    return make_env("pgx", env_id, env_config)


@functools.lru_cache(maxsize=64)
def _made(name: str, settings: Settings) -> Any:
    pgx = import_package("pgx", name, "pgx")
    require_known("pgx", name, pgx.available_envs())
    with jax.ensure_compile_time_eval():  # it may first be asked for while a program is traced
        game = pgx.make(name)
        if not settings:
            return game
        try:
            return type(game)(**dict(settings))
        except TypeError as error:
            known = ", ".join(inspect.signature(type(game)).parameters) or "none"
            raise misfit("pgx", name, settings, f"the arguments of its class are {known}") from error


@functools.lru_cache(maxsize=64)
def _form(name: str, settings: Settings) -> Any:
    return form_of(_made(name, settings).init)


def adapt(name: str, settings: Settings) -> Adapted:
    """A game of one player. pgx has no limits of time."""
    game = _made(name, settings)
    form = _form(name, settings)
    num_actions = form.legal_action_mask.shape[0]
    space = Dict({OBSERVATIONS: space_of_arrays(form.observation), ACTION_MASK: MultiBinary((num_actions,))})

    def shown(state: Any) -> Tree:
        return {OBSERVATIONS: state.observation, ACTION_MASK: state.legal_action_mask}

    def reset(key: Key) -> tuple[Tree, Tree]:
        state = game.init(key)
        return state, shown(state)

    def step(state: Any, action: Array, key: Key) -> tuple[Tree, Step]:
        state = game.step(state, action, key)
        return state, Step(shown(state), state.rewards[0], state.terminated, state.truncated & ~state.terminated, {})

    return Adapted(space, Discrete(num_actions), reset, step)
