"""Who sits where is drawn anew in every episode: so that one policy learns both sides of a game."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Key, MultiEnvWrapper, MultiStep, Source, SourceWrapper, Step, Tree, hyper


class ShuffledSeatsState(NamedTuple):
    env_state: Tree
    seat: Tree  # {group: int32 [n]}: the seat in `env` of each agent


@hyper
class ShuffledSeats(MultiEnvWrapper):
    """`env` whose agents take random seats, each group among its own, at the start of every episode.

    An agent keeps its name, and with it its policy; what it sees, does and gets is that of its seat: `player_0` of
    tic-tac-toe moves first in half of the episodes.
    """

    def reset(self, key: Key) -> tuple[ShuffledSeatsState, Tree, Tree]:
        env_key, *seat_keys = jax.random.split(key, 1 + len(self.groups))
        env_state, obs, acting = self.env.reset(env_key)
        sizes = ((name, group.size) for name, group in sorted(self.groups.items()))
        seat = {name: _order(seat_key, size) for (name, size), seat_key in zip(sizes, seat_keys, strict=True)}
        return ShuffledSeatsState(env_state, seat), _taken(obs, seat), _taken(acting, seat)

    def step(self, state: ShuffledSeatsState, action: Tree, key: Key) -> tuple[ShuffledSeatsState, MultiStep]:
        seat = state.seat
        agent = {name: jnp.argmax(order[:, None] == jnp.arange(len(order)), axis=0) for name, order in seat.items()}
        env_state, step = self.env.step(state.env_state, _taken(action, agent), key)
        shown = ("obs", "reward", "acting", "terminated", "truncated")
        step = step._replace(**{field: _taken(getattr(step, field), seat) for field in shown})
        return ShuffledSeatsState(env_state, seat), step

    def render(self, state: ShuffledSeatsState) -> Array:
        """The picture of `env`, where it draws one."""
        return self.env.render(state.env_state)  # type: ignore[attr-defined]


def _order(key: Key, size: int) -> Array:
    """A random order of 0 ... size - 1: the ranks of random numbers, since a sort is a loop of its own on CPUs."""
    drawn, index = jax.random.bits(key, (size,)), jnp.arange(size)
    before = (drawn[None] < drawn[:, None]) | ((drawn[None] == drawn[:, None]) & (index[None] < index[:, None]))
    return jnp.sum(before, axis=1, dtype=jnp.int32)


def _taken(tree: Tree, order: Tree) -> Tree:
    """`{group: [n, ...]}` in another order of the agents of each group; `()` stays."""
    if tree == ():
        return ()
    return {name: jax.tree.map(lambda leaf, at=order[name]: leaf[at], part) for name, part in tree.items()}


class ShuffledSeatsSource(SourceWrapper):
    """Rows of environments with many agents outside JAX whose agents take random seats: as `ShuffledSeats`."""

    def __init__(self, source: Source):
        super().__init__(source)
        # Of each agent, [B, n].
        self._seat = {name: np.tile(np.arange(group.size), (self.rows, 1)) for name, group in self.spec.groups}

    def reset(self, key: Key) -> Tree:
        keys = np.random.default_rng(np.asarray(key)).integers(0, 2**32, (self.rows, 2), np.uint32)
        self._draw(np.ones(self.rows, bool), keys)
        return self._seen(self.source.reset(key))

    def step(self, action: Tree, key: Key) -> Step:
        step = self.source.step(_in_order(action, self._agents()), key)
        starts = np.cumsum([0, *(group.size for _, group in self.spec.groups)])
        seats = [self._seat[name] + start for (name, _), start in zip(self.spec.groups, starts, strict=False)]
        columns = np.concatenate(seats, axis=1)
        reward = np.take_along_axis(step.reward, columns, axis=1)
        info = [self._told(row, columns[i]) if row else row for i, row in enumerate(step.info)]
        return step._replace(obs=self._seen(step.obs), reward=reward, info=info)

    def reset_where(self, done: Array, obs: Tree, key: Key) -> Tree:
        shown = {part: _in_order(groups, self._agents()) for part, groups in obs.items()}
        fresh = self.source.reset_where(done, shown, key)
        self._draw(done, np.asarray(key))
        return self._seen(fresh)

    def _draw(self, rows: np.ndarray, keys: np.ndarray) -> None:
        """New seats in `rows`, from the keys `[B, 2]`."""
        for row in np.flatnonzero(rows):
            generator = np.random.default_rng(keys[row])
            for seat in self._seat.values():
                seat[row] = generator.permutation(seat.shape[1])

    def _seen(self, obs: Tree) -> Tree:
        """What agents see of what is shown at the seats: of each part of a joint observation."""
        return {part: _in_order(groups, self._seat) for part, groups in obs.items()}

    def _told(self, info: Mapping[Any, Any], seats: np.ndarray) -> dict[Any, Any]:
        """What a row tells by agent id of who sits where; entries that speak of no agent stay."""
        told = {agent: entry for agent, entry in info.items() if agent not in self.agent_ids}
        at = {agent: self.agent_ids[seat] for agent, seat in zip(self.agent_ids, seats, strict=True)}
        return told | {agent: info[other] for agent, other in at.items() if other in info}

    def _agents(self) -> dict[str, np.ndarray]:
        """Who sits on each seat, `{group: [B, n]}`."""
        return {name: np.argsort(seat, axis=1) for name, seat in self._seat.items()}


def _in_order(groups: Tree, order: dict[str, np.ndarray]) -> Tree:
    """Leaves `{group: [B, n, ...]}` in each row's own order `[B, n]` of the agents."""
    rows = np.arange(len(next(iter(order.values()))))[:, None]
    return {
        name: jax.tree.map(lambda leaf, at=order[name]: np.asarray(leaf)[rows, at], part)
        for name, part in groups.items()
    }
