"""An environment in which everything may happen to agents, and a plain interpreter that says what each of them saw."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Group, Key, MultiEnv, MultiStep, Tree, hyper
from athlete.spaces import Box, Dict, Discrete, MultiBinary, Space


class RosterState(NamedTuple):
    here: Tree  # bool {group: [n]}
    steps: Array


@hyper
class Roster(MultiEnv):
    """Agents join and leave, are asked at random and paid at any time; their numbers are taken again by others.

    Observations are noise, so that no two are alike.
    """

    first_size: int = 4
    second_size: int = 2
    limit: int = 17
    continuous: bool = False
    masked: bool = False

    @property
    def groups(self) -> dict[str, Group]:
        action: Space = Box(-2.0, 2.0, (2,)) if self.continuous else Discrete(3)
        obs: Space = Box(-np.inf, np.inf, (3,))
        if self.masked:
            obs = Dict({"action_mask": MultiBinary((3,)), "observations": obs})
        mixed = Dict({"number": Box(-np.inf, np.inf, (2,)), "kind": Discrete(4)})
        return {"a": Group(self.first_size, obs, action), "b": Group(self.second_size, mixed, action)}

    def reset(self, key: Key) -> tuple[RosterState, Tree, Tree]:
        obs_key, here_key, ask_key = jax.random.split(key, 3)
        here = {
            "a": jax.random.uniform(here_key, (self.first_size,)) < 0.6,
            "b": jnp.ones(self.second_size, bool),
        }
        acting = {name: here[name] & asked for name, asked in self._asked(ask_key).items()}
        return RosterState(here, jnp.int32(0)), self._obs(obs_key), acting

    def step(self, state: RosterState, action: Tree, key: Key) -> tuple[RosterState, MultiStep]:
        steps = state.steps + 1
        end_key, obs_key, ask_key, key = jax.random.split(key, 4)
        over = jax.random.uniform(end_key) < 0.05
        cut = (steps >= self.limit) & ~over
        asked = self._asked(ask_key)
        acting, reward, terminated, truncated, stays = {}, {}, {}, {}, {}
        for i, (name, here) in enumerate(sorted(state.here.items())):
            chance = jax.random.uniform(jax.random.fold_in(key, i), (5, *here.shape))
            terminated[name] = here & (chance[0] < 0.1)
            truncated[name] = here & ~terminated[name] & (chance[1] < 0.05)
            paid = jnp.round(chance[3] * 8) + jnp.sum(action[name].reshape(*here.shape, -1), axis=-1)
            reward[name] = jnp.where(here & (chance[2] < 0.5), paid, 0.0).astype(jnp.float32)
            stays[name] = (here & ~terminated[name] & ~truncated[name]) | (~here & (chance[4] < 0.2))
            acting[name] = stays[name] & asked[name] & ~over & ~cut
        step = MultiStep(self._obs(obs_key), reward, over, cut, acting, terminated, truncated)
        return RosterState(stays, steps), step

    def _asked(self, key: Key) -> Tree:
        first, second = jax.random.split(key)
        return {
            "a": jax.random.uniform(first, (self.first_size,)) < 0.6,
            "b": jax.random.uniform(second, (self.second_size,)) < 0.6,
        }

    def _obs(self, key: Key) -> Tree:
        first, second, third, fourth = jax.random.split(key, 4)
        shown: Tree = jax.random.normal(first, (self.first_size, 3))
        if self.masked:
            mask = (jax.random.uniform(fourth, (self.first_size, 3)) < 0.5).at[:, 0].set(True)
            shown = {"action_mask": mask.astype(jnp.int8), "observations": shown}
        mixed = {
            "number": jax.random.normal(second, (self.second_size, 2)),
            "kind": jax.random.randint(third, (self.second_size,), 0, 4),
        }
        return {"a": shown, "b": mixed}


class Lived(NamedTuple):
    """A transition as an agent lived it."""

    obs: Any
    first: bool
    action: Any
    reward: float
    next_obs: Any
    terminated: bool
    truncated: bool


def interpret(trajectory: Any, row: int, group: str, number: int, column: int) -> list[Lived]:
    """What agent `number` of `group` lived through in a row of a joint trajectory `[T, B, ...]`.

    Its rewards stand in `column`. One step after the other, as one would play it with paper and pencil.
    """
    lived: list[Lived] = []
    waiting, reward, fresh = None, 0.0, True

    def of_agent(tree: Any, t: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[t, row, number], tree[group])

    for t in range(len(trajectory.terminated)):
        if trajectory.first[t, row]:
            assert waiting is None
            fresh = True
        if of_agent(trajectory.obs["acting"], t):
            assert waiting is None
            waiting = of_agent(trajectory.obs["obs"], t), fresh, of_agent(trajectory.action, t)
            reward, fresh = 0.0, False
        if waiting is not None:
            reward += float(trajectory.reward[t, row, column])
        ended, left = (bool(of_agent(trajectory.next_obs[flag], t)) for flag in ("terminated", "truncated"))
        over, cut = bool(trajectory.terminated[t, row]), bool(trajectory.truncated[t, row])
        gone = ended or left or over or cut
        if waiting is not None and (gone or of_agent(trajectory.next_obs["acting"], t)):
            terminated, truncated = ended or (over and not left), left or (cut and not ended)
            lived.append(Lived(*waiting, reward, of_agent(trajectory.next_obs["obs"], t), terminated, truncated))
            waiting = None
        if gone:
            fresh = True
    return lived
