"""What MinAtar's games share: a grid of 10 by 10 cells, six actions that may stick, and a picture."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete import spaces
from athlete.core import Array, Env, Key, Step, Tree, hyper

NOOP, LEFT, UP, RIGHT, DOWN, FIRE = range(6)
SIZE = 10  # cells along each side
CELL = 16  # pixels along a cell's side, in pictures


class MinAtarState(NamedTuple):
    game: Tree
    last_action: Array  # int32, one of the six: the one played last, which a sticky action repeats


@hyper
class MinAtar(Env):
    """The frame of a game. Subclasses are the games: `_begin`, `_advance`, `_observe`, and `_draw` if chance plays.

    With probability `sticky_action_prob` a step repeats the action played last instead of taking the given one, as in
    MinAtar, whose default this is; gymnax has no sticky actions, which is 0.0 here. An episode begins with no-op as the
    action played last, where MinAtar keeps that of the episode before. With `minimal_actions` the action space counts
    the game's `used_actions`, else all six: no-op, left, up, right, down, fire.
    Observations are MinAtar's, `[10, 10, channels]` of zeros and ones: float32 instead of bool, which is what networks
    take. There is no time limit here; `athlete.env.games.minatar.make_minatar` adds one.
    """

    sticky_action_prob: float = 0.1
    minimal_actions: bool = True

    channels: ClassVar[dict[str, tuple[int, int, int]]]  # in order, with their colours in pictures
    used_actions: ClassVar[tuple[int, ...]]
    render_fps: ClassVar[int] = 15

    @property
    def observation_space(self) -> spaces.Box:
        return spaces.Box(0, 1, (SIZE, SIZE, len(self.channels)))

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(len(self.used_actions) if self.minimal_actions else 6)

    def reset(self, key: Key) -> tuple[MinAtarState, Array]:
        game = self._begin(key)
        return MinAtarState(game, jnp.int32(NOOP)), self._observe(game)

    def step(self, state: MinAtarState, action: Array, key: Key) -> tuple[MinAtarState, Step]:
        sticky_key, chance_key = jax.random.split(key)
        chosen = jnp.array(self.used_actions)[action] if self.minimal_actions else jnp.asarray(action)
        sticks = jax.random.uniform(sticky_key) < self.sticky_action_prob
        played = jnp.where(sticks, state.last_action, chosen.astype(jnp.int32))
        game, reward, terminated = self._advance(state.game, played, self._draw(chance_key))
        step = Step(self._observe(game), reward.astype(jnp.float32), terminated, jnp.asarray(False), {})
        return MinAtarState(game, played), step

    def render(self, state: MinAtarState) -> np.ndarray:
        """A picture, uint8 `[160, 160, 3]`: each cell in the colour of the first channel that is on there."""
        obs = np.asarray(_observe(self, state.game))
        picture = np.zeros((SIZE, SIZE, 3), np.uint8)
        for channel, colour in reversed(list(enumerate(self.channels.values()))):
            picture[obs[:, :, channel] == 1] = colour
        return picture.repeat(CELL, axis=0).repeat(CELL, axis=1)

    def _begin(self, key: Key) -> Tree:
        """The game's state at the start of an episode."""
        raise NotImplementedError

    def _draw(self, key: Key) -> Tree:
        """What chance holds ready for one step."""
        return ()

    def _advance(self, game: Tree, action: Array, chance: Tree) -> tuple[Tree, Array, Array]:
        """One step with one of the six actions: the state, the reward, whether the episode terminated."""
        raise NotImplementedError

    def _observe(self, game: Tree) -> Array:
        """The observation, float32 `[10, 10, channels]`."""
        raise NotImplementedError


@jax.jit
def _observe(env: MinAtar, game: Tree) -> Array:
    return env._observe(game)


def cell(y: Array, x: Array) -> Array:
    """A grid, bool `[10, 10]`, that is on at row `y` and column `x` alone, and nowhere if these lie outside."""
    return (np.arange(SIZE)[:, None] == y) & (np.arange(SIZE) == x)


def in_rows(x: Array, present: Array) -> Array:
    """A grid, bool `[10, 10]`, that is on at columns `x` `[8]` of rows 1 to 8 where `present` `[8]`."""
    return jnp.pad((np.arange(SIZE) == x[:, None]) & present[:, None], [(1, 1), (0, 0)])


def stack(*grids: Array) -> Array:
    """Channels `[10, 10]` as an observation, float32 `[10, 10, channels]`."""
    return jnp.stack(grids, axis=-1).astype(jnp.float32)
