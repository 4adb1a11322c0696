"""MinAtar's Breakout in JAX."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Key, hyper
from athlete.env.games.minatar.game import LEFT, NOOP, RIGHT, SIZE, MinAtar, cell, stack

_WALL = np.zeros((SIZE, SIZE), bool)
_WALL[1:4] = True


class BreakoutState(NamedTuple):
    paddle: Array  # int32: its column in row 9
    ball_y: Array  # int32: row, 0 is the top
    ball_x: Array
    move_y: Array  # int32, -1 or 1: where the ball is heading
    move_x: Array
    last_y: Array  # int32: where the ball was a step ago, the trail
    last_x: Array
    in_brick: Array  # bool: the ball met a brick in the last step, and cannot break one in this
    bricks: Array  # bool [10, 10]


@hyper
class Breakout(MinAtar):
    """Keep a ball in play with a paddle in the bottom row; 1 for each brick broken, until the ball is lost.

    The ball moves diagonally, a cell a step, bounces off walls and breaks bricks, of which there are three rows of ten.
    When all are gone, new ones appear as the ball next reaches the bottom. Caught by the cell above which it was, it
    goes back up; caught by the cell that it was heading for, it goes back where it came from. It starts left or right.
    """

    channels: ClassVar[dict[str, tuple[int, int, int]]] = {
        "paddle": (90, 170, 255),
        "ball": (255, 255, 255),
        "trail": (100, 100, 100),
        "brick": (230, 110, 60),
    }
    used_actions: ClassVar[tuple[int, ...]] = (NOOP, LEFT, RIGHT)

    def _begin(self, key: Key) -> BreakoutState:
        right = jax.random.bernoulli(key).astype(jnp.int32)
        x, y, move = 9 * right, jnp.int32(3), jnp.int32(1)
        return BreakoutState(
            jnp.int32(4), y, x, move, 1 - 2 * right, y, x, in_brick=jnp.asarray(False), bricks=jnp.asarray(_WALL)
        )

    def _advance(self, game: BreakoutState, action: Array, chance: tuple) -> tuple[BreakoutState, Array, Array]:
        paddle = jnp.clip(game.paddle - (action == LEFT) + (action == RIGHT), 0, 9)
        y, x = game.ball_y + game.move_y, game.ball_x + game.move_x
        at_side, at_top, at_bottom = (x < 0) | (x > 9), y < 0, y == 9
        y, x = jnp.maximum(y, 0), jnp.clip(x, 0, 9)

        here = cell(y, x)
        in_brick = (game.bricks & here).any()
        breaks = in_brick & ~game.in_brick
        bricks = game.bricks & ~(here & breaks)
        bricks = bricks | (_WALL & (at_bottom & ~bricks.any()))

        caught_above = at_bottom & (game.ball_x == paddle)
        caught_ahead = at_bottom & ~caught_above & (x == paddle)
        returned = breaks | caught_above | caught_ahead
        advanced = BreakoutState(
            paddle=paddle,
            ball_y=jnp.where(returned, game.ball_y, y),
            ball_x=x,
            move_y=jnp.where(returned | at_top, -game.move_y, game.move_y),
            move_x=jnp.where(at_side | caught_ahead, -game.move_x, game.move_x),
            last_y=game.ball_y,
            last_x=game.ball_x,
            in_brick=in_brick,
            bricks=bricks,
        )
        return advanced, breaks, at_bottom & ~(caught_above | caught_ahead)

    def _observe(self, game: BreakoutState) -> Array:
        return stack(cell(9, game.paddle), cell(game.ball_y, game.ball_x), cell(game.last_y, game.last_x), game.bricks)
