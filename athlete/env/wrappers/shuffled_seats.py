"""Who sits where is drawn anew in every episode: so that one policy learns both sides of a game."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Group, Key, MultiEnv, MultiStep, Tree, hyper


class ShuffledSeatsState(NamedTuple):
    env_state: Tree
    seat: Tree  # {group: int32 [n]}: the seat in `env` of each agent


@hyper
class ShuffledSeats(MultiEnv):
    """`env` whose agents take random seats, each group among its own, at the start of every episode.

    An agent keeps its name, and with it its policy; what it sees, does and gets is that of its seat: `player_0` of
    tic-tac-toe moves first in half of the episodes.
    """

    env: MultiEnv

    @property
    def always_acting(self) -> bool:  # type: ignore[override]
        return self.env.always_acting

    @property
    def info_metrics(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.env.info_metrics

    @property
    def groups(self) -> dict[str, Group]:
        return self.env.groups

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
