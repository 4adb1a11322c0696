"""MinAtar's Freeway in JAX."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Key, hyper
from athlete.env.games.minatar.game import DOWN, NOOP, SIZE, UP, MinAtar, cell, in_rows, stack

_ROWS = np.arange(1, 9)  # of the cars
_COLUMN = 4  # of the chicken
_REST = 3  # steps from one move of the chicken to the next


class FreewayState(NamedTuple):
    chicken: Array  # int32: its row; it starts from 9
    rest: Array  # int32: steps until it can move
    x: Array  # int32 [8]: the cars, in rows 1 ... 8
    wait: Array  # int32 [8]: steps until a car moves
    speed: Array  # int32 [8]: 1 ... 5, negative to the left; a car moves every |speed| + 1 steps
    steps_left: Array


@hyper
class Freeway(MinAtar):
    """Lead a chicken up across eight lanes of cars, 1 for each crossing; a car that hits it puts it back.

    It moves once in three steps. After a crossing all cars get new speeds and directions. As in MinAtar the game
    terminates after 2501 steps; the limit that its ids have, gymnax's, truncates it one step before.
    """

    channels: ClassVar[dict[str, tuple[int, int, int]]] = {
        "chicken": (255, 210, 70),
        "car": (230, 80, 80),
        "speed1": (190, 190, 190),
        "speed2": (155, 155, 155),
        "speed3": (120, 120, 120),
        "speed4": (85, 85, 85),
        "speed5": (50, 50, 50),
    }
    used_actions: ClassVar[tuple[int, ...]] = (NOOP, UP, DOWN)

    def _begin(self, key: Key) -> FreewayState:
        speed = self._draw(key)
        zeros = jnp.zeros(8, jnp.int32)
        return FreewayState(jnp.int32(9), jnp.int32(_REST), zeros, abs(speed), speed, jnp.int32(2500))

    def _draw(self, key: Key) -> Array:
        """Speeds for all cars, `[8]`."""
        index = jax.random.randint(key, (8,), 0, 10)
        return jnp.where(index < 5, index - 5, index - 4)

    def _advance(self, game: FreewayState, action: Array, chance: Array) -> tuple[FreewayState, Array, Array]:
        rested = game.rest == 0
        up, down = rested & (action == UP), rested & (action == DOWN)
        chicken = jnp.clip(game.chicken - up + down, 0, 9)
        rest = jnp.where(up | down, _REST, game.rest)

        crossed = chicken == 0
        chicken = jnp.where(crossed, 9, chicken)
        speed = jnp.where(crossed, chance, game.speed)
        wait = jnp.where(crossed, abs(chance), game.wait)

        moves = wait == 0
        x = jnp.where(moves, (game.x + jnp.sign(speed)) % SIZE, game.x)
        hit = (chicken == _ROWS) & ((game.x == _COLUMN) | (x == _COLUMN))
        advanced = FreewayState(
            chicken=jnp.where(hit.any(), 9, chicken),
            rest=rest - (rest > 0),
            x=x,
            wait=jnp.where(moves, abs(speed), wait - 1),
            speed=speed,
            steps_left=game.steps_left - 1,
        )
        return advanced, crossed, advanced.steps_left < 0

    def _observe(self, game: FreewayState) -> Array:
        behind = (game.x - jnp.sign(game.speed)) % SIZE
        everywhere = np.ones(8, bool)
        trails = (in_rows(behind, abs(game.speed) == speed) for speed in range(1, 6))
        return stack(cell(game.chicken, _COLUMN), in_rows(game.x, everywhere), *trails)
