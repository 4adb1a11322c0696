"""Games of two players as one agent sees them: it moves for both, or against an opponent that does not learn."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from athlete.core import Array, Env, Key, Simulator, Step, Tree, TurnGame, hyper
from athlete.spaces import Space


def _actions(game: TurnGame, action: Array) -> Tree:
    """The same action for both: that of who is to move counts."""
    (name,) = game.groups
    return {name: jnp.stack([action, action])}


def _seen_by(obs: Tree, player: Array) -> Tree:
    (both,) = obs.values()
    return jax.tree.map(lambda leaf: leaf[player], both)


@hyper
class Turns(Simulator):
    """`game` for one agent that moves for both players: each step is a move of whose turn it is, who gets its reward.

    A move that ends the game may give something to the other too; as rewards add up to 0 that is the opposite.
    """

    game: TurnGame
    players: int = 2

    @property
    def observation_space(self) -> Space:
        (group,) = self.game.groups.values()
        return group.obs

    @property
    def action_space(self) -> Space:
        (group,) = self.game.groups.values()
        return group.action

    def reset(self, key: Key) -> tuple[Tree, Tree]:
        state, obs, _ = self.game.reset(key)
        return state, _seen_by(obs, self.game.mover(state))

    def step(self, state: Tree, action: Array, key: Key) -> tuple[Tree, Step]:
        mover = self.game.mover(state)
        state, step = self.game.step(state, _actions(self.game, action), key)
        (reward,) = step.reward.values()
        obs = _seen_by(step.obs, self.game.mover(state))
        return state, Step(obs, reward[mover], step.all_terminated, step.all_truncated, {})

    def state_of(self, obs: Tree) -> Tree:
        return self.game.state_of(obs)

    def render(self, state: Tree) -> Array:
        """The picture of `game`, where it draws one."""
        return self.game.render(state)  # type: ignore[attr-defined]

    @property
    def render_fps(self) -> int:
        return getattr(self.game, "render_fps", 1)


@hyper
class Against(Env):
    """`game` for one agent on a seat that is drawn in each episode; on the other one sits `opponent`.

    That is a player, as in `athlete.env.games.multi_agent.players`. A step is the agent's move and the opponent's
    answer. The return of an episode is what the agent got: 1 won, 0 drawn, -1 lost.
    """

    game: TurnGame
    opponent: Callable[[Tree, Key], Array]

    @property
    def observation_space(self) -> Space:
        return Turns(self.game).observation_space

    @property
    def action_space(self) -> Space:
        return Turns(self.game).action_space

    def reset(self, key: Key) -> tuple[Tree, Tree]:
        game_key, seat_key, answer_key = jax.random.split(key, 3)
        turns = Turns(self.game)
        state, obs = turns.reset(game_key)
        answered, step = turns.step(state, self.opponent(obs, answer_key), answer_key)
        second = jax.random.bernoulli(seat_key)
        return jax.tree.map(lambda now, then: jnp.where(second, now, then), (answered, step.obs), (state, obs))

    def step(self, state: Tree, action: Array, key: Key) -> tuple[Tree, Step]:
        move_key, answer_key, opponent_key = jax.random.split(key, 3)
        turns = Turns(self.game)
        moved, own = turns.step(state, action, move_key)
        answered, answer = turns.step(moved, self.opponent(own.obs, opponent_key), answer_key)
        answer = answer._replace(reward=-answer.reward)
        over = own.terminated | own.truncated
        return jax.tree.map(lambda first, both: jnp.where(over, first, both), (moved, own), (answered, answer))

    def render(self, state: Tree) -> Array:
        """The picture of `game`, where it draws one."""
        return self.game.render(state)  # type: ignore[attr-defined]

    @property
    def render_fps(self) -> int:
        return getattr(self.game, "render_fps", 1)
