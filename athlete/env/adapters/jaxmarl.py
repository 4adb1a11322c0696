"""Environments of the package JaxMARL (Rutherford et al. 2023, arXiv:2311.10090): `"jaxmarl/MPE_simple_spread_v3"`."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Group, Key, MultiEnv, MultiStep, Tree, hyper
from athlete.env.masks import OBSERVATIONS
from athlete.ops.random import wrap
from athlete.spaces import ACTION_MASK, Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space

JAXMARL = "jaxmarl/"  # before the names of its environments


class JaxMARLState(NamedTuple):
    env_state: Tree
    there: Tree  # bool {group: [n]}: whose life has not ended; () where all stay


class Team(NamedTuple):
    """JaxMARL's agents of one kind, and their spaces without a mask."""

    agents: tuple[Any, ...]
    obs: Space
    action: Space
    masked: bool

    @property
    def group(self) -> Group:
        size = len(self.agents)
        if not self.masked:
            return Group(size, self.obs, self.action)
        assert isinstance(self.action, Discrete)
        return Group(size, Dict({OBSERVATIONS: self.obs, ACTION_MASK: MultiBinary((self.action.n,))}), self.action)


@hyper
class JaxMARL(MultiEnv):
    """An environment of JaxMARL by its name, such as `"HeuristicEnemySMAX"`.

    Its agents of one kind, `ally_0`, `ally_1`, ..., are a group. Where the environment tells which actions are legal
    they are in the entry `"action_mask"` of observations. `settings` are pairs of an argument of its class and a value;
    they are part of the compiled program. Where `always_acting` is False, agents leave when the environment says that
    they are done, else they stay to the end, as in JaxMARL's own scripts.
    JaxMARL does not tell truncated from terminated: an episode's end is a termination, at time limits too.
    """

    name: str
    settings: tuple[tuple[str, Any], ...] = ()
    always_acting: bool = True

    @property
    def groups(self) -> dict[str, Group]:
        return {name: team.group for name, team in _teams(self.name, self.settings).items()}

    def reset(self, key: Key) -> tuple[JaxMARLState, Tree, Tree]:
        obs, env_state = _made(self.name, self.settings).reset(key)
        env_state = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), env_state)  # no weak dtypes
        there = () if self.always_acting else {name: jnp.ones(g.size, bool) for name, g in self.groups.items()}
        return JaxMARLState(env_state, there), self._observe(env_state, obs), there

    def step(self, state: JaxMARLState, action: Tree, key: Key) -> tuple[JaxMARLState, MultiStep]:
        env = _made(self.name, self.settings)
        teams = _teams(self.name, self.settings)
        actions = {agent: action[name][i] for name, team in teams.items() for i, agent in enumerate(team.agents)}
        obs, env_state, reward, done, _ = env.step_env(key, state.env_state, actions)
        env_state = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), env_state, state.env_state)
        over = jnp.asarray(done["__all__"], bool)
        step = MultiStep(
            obs=self._observe(env_state, obs),
            reward={name: _stacked(reward, team.agents, np.float32) for name, team in teams.items()},
            all_terminated=over,
            all_truncated=jnp.asarray(False),
        )
        if self.always_acting:
            return JaxMARLState(env_state, ()), step
        ended = {name: state.there[name] & _stacked(done, team.agents, bool) for name, team in teams.items()}
        there = {name: state.there[name] & ~ended[name] for name in teams}
        acting = {name: there[name] & ~over for name in teams}
        nobody = {name: jnp.zeros_like(there[name]) for name in teams}
        return JaxMARLState(env_state, there), step._replace(acting=acting, terminated=ended, truncated=nobody)

    def _observe(self, env_state: Tree, obs: Tree) -> Tree:
        env, teams = _made(self.name, self.settings), _teams(self.name, self.settings)
        shown = {name: _stacked(obs, team.agents, team.obs.dtype) for name, team in teams.items()}
        if not any(team.masked for team in teams.values()):
            return shown
        masks = _legal(env)(env_state)
        return {
            name: {OBSERVATIONS: shown[name], ACTION_MASK: _stacked(masks, team.agents, np.int8)}
            if team.masked
            else shown[name]
            for name, team in teams.items()
        }


def make_jaxmarl(env_id: str, env_config: Mapping[str, Any] | None = None) -> JaxMARL:
    """The environment of an id such as `"jaxmarl/HeuristicEnemySMAX"`.

    Args:
        env_id: `"jaxmarl/"` and JaxMARL's name.
        env_config: arguments of its class, of SMAX also `scenario` as the name of a map, `"3m"`; and `always_acting`,
            which is False for the environments whose agents leave before the end.

    Raises:
        ValueError: JaxMARL is not installed, it has no environment of that name, which has no such argument, or it
            shows observations of another form than a dictionary of its agents.
    """
    name, config = env_id.removeprefix(JAXMARL), dict(env_config or {})
    always_acting = config.pop("always_acting", None)
    settings = tuple((key, _hashable(value)) for key, value in config.items())
    env = _made(name, settings)
    if always_acting is None:
        always_acting = "SMAX" not in name and not getattr(env, "evaporating", False)
    _teams(name, settings)
    return JaxMARL(name, settings, always_acting)


def _hashable(value: Any) -> Any:
    """Lists, which files have, as tuples."""
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


@functools.lru_cache(maxsize=64)
def _made(name: str, settings: tuple[tuple[str, Any], ...]) -> Any:
    try:
        import jaxmarl
    except ImportError as error:
        raise ValueError(f"environment({JAXMARL + name!r}): JaxMARL is missing; pip install jaxmarl six") from error
    known = jaxmarl.registered_envs
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {JAXMARL + near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise ValueError(f"environment({JAXMARL + name!r}): JaxMARL has no {name!r}; {hint}")
    arguments = dict(settings)
    if "SMAX" in name and isinstance(arguments.get("scenario"), str):
        from jaxmarl.environments.smax import map_name_to_scenario

        arguments["scenario"] = map_name_to_scenario(arguments["scenario"])
    try:
        with jax.ensure_compile_time_eval():  # some are first asked for while a program is traced
            return jaxmarl.make(name, **arguments)
    except (TypeError, ImportError) as error:
        raise ValueError(f"environment({JAXMARL + name!r}, env_config={arguments}): {error}") from error


@functools.lru_cache(maxsize=64)
def _teams(name: str, settings: tuple[tuple[str, Any], ...]) -> dict[str, Team]:
    """The agents by kind: what their names are without a number at the end."""
    env = _made(name, settings)
    shown, _ = jax.eval_shape(lambda: env.reset(wrap(np.zeros(2, np.uint32))))
    if not isinstance(shown, Mapping) or not set(env.agents) <= set(shown):
        raise ValueError(
            f"environment({JAXMARL + name!r}): it shows a {type(shown).__name__} without an entry for each of its "
            f"agents {env.agents}; expected a dictionary"
        )
    kinds: dict[str, list[Any]] = {}
    for agent in env.agents:
        kinds.setdefault(re.sub(r"_?\d+$", "", str(agent)) or "agent", []).append(agent)
    teams = {}
    for kind, agents in kinds.items():
        first = agents[0]
        obs, action = _obs_space(env.observation_space(first), shown[first]), _action_space(env.action_space(first))
        teams[kind] = Team(tuple(agents), obs, action, isinstance(action, Discrete) and _legal(env) is not None)
    return teams


def _legal(env: Any) -> Any:
    """The function of a state that says which actions are legal, where the environment has one."""
    if hasattr(env, "get_legal_moves"):
        return env.get_legal_moves
    from jaxmarl.environments.multi_agent_env import MultiAgentEnv

    own = type(env).get_avail_actions is not MultiAgentEnv.get_avail_actions
    return env.get_avail_actions if own else None


def _obs_space(space: Any, shown: Any) -> Space:
    """The space of what is shown; its shape is what comes, from which JaxMARL's own spaces differ at times."""
    if hasattr(space, "num_categories"):
        return MultiDiscrete(tuple(np.asarray(space.num_categories).tolist()))
    low, high = (np.asarray(bound, np.float64) for bound in (space.low, space.high))
    if low.shape != shown.shape:
        low, high = low.min(), high.max()
    return Box(low, high, shown.shape, np.dtype(space.dtype))


def _action_space(space: Any) -> Space:
    if hasattr(space, "n"):
        return Discrete(int(space.n))
    if hasattr(space, "num_categories"):
        return MultiDiscrete(tuple(np.asarray(space.num_categories).tolist()))
    return Box(np.asarray(space.low), np.asarray(space.high), tuple(space.shape))


def _stacked(by_agent: Mapping[Any, Array], agents: tuple[Any, ...], dtype: Any) -> Array:
    """What agents have by name, side by side: `[n, ...]`."""
    return jnp.stack([jnp.asarray(by_agent[agent], dtype) for agent in agents])
