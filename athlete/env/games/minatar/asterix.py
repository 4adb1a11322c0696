"""MinAtar's Asterix in JAX."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Key, hyper
from athlete.env.games.minatar.game import DOWN, LEFT, NOOP, RIGHT, UP, MinAtar, cell, in_rows, stack

_RAMP_INTERVAL = 100  # where the timer starts that runs to -1, so that a ramp comes every 102 steps


class AsterixState(NamedTuple):
    player_y: Array  # int32, 1 ... 8
    player_x: Array
    present: Array  # bool [8]: something moves through this row, of rows 1 ... 8; the next three tell what
    x: Array  # int32 [8]
    to_right: Array  # bool [8]: heading right
    gold: Array  # bool [8]: gold, else an enemy
    spawn_speed: Array  # int32: steps between two that appear
    spawn_timer: Array
    move_speed: Array  # int32: steps between two moves of all that is there
    move_timer: Array
    ramp_timer: Array
    ramp_index: Array  # int32: how often it has become harder


class Spawn(NamedTuple):
    to_right: Array
    gold: Array
    preference: Array  # float32 [8]: of the free rows the one with the most is taken


@hyper
class Asterix(MinAtar):
    """Move freely and collect gold, 1 a piece, that passes through eight rows, until an enemy touches you.

    What appears is gold one time in three, from either side, in a free row. With `difficulty_ramping` all comes and
    moves faster with time.
    """

    difficulty_ramping: bool = True

    channels: ClassVar[dict[str, tuple[int, int, int]]] = {
        "player": (90, 170, 255),
        "enemy": (230, 80, 80),
        "trail": (100, 100, 100),
        "gold": (255, 210, 70),
    }
    used_actions: ClassVar[tuple[int, ...]] = (NOOP, LEFT, UP, RIGHT, DOWN)

    def _begin(self, key: Key) -> AsterixState:
        nothing = jnp.zeros(8, bool)
        number = jnp.int32
        return AsterixState(
            player_y=number(5),
            player_x=number(5),
            present=nothing,
            x=jnp.zeros(8, jnp.int32),
            to_right=nothing,
            gold=nothing,
            spawn_speed=number(10),
            spawn_timer=number(10),
            move_speed=number(5),
            move_timer=number(5),
            ramp_timer=number(_RAMP_INTERVAL),
            ramp_index=number(0),
        )

    def _draw(self, key: Key) -> Spawn:
        uniform = jax.random.uniform(key, (10,))
        return Spawn(uniform[0] < 1 / 2, uniform[1] < 1 / 3, uniform[2:])

    def _advance(self, game: AsterixState, action: Array, chance: Spawn) -> tuple[AsterixState, Array, Array]:
        spawns = game.spawn_timer == 0
        row = jnp.argmax(jnp.where(game.present, -1, chance.preference))
        new = (np.arange(8) == row) & ~game.present & spawns
        present = game.present | new
        x = jnp.where(new, jnp.where(chance.to_right, 0, 9), game.x)
        to_right = jnp.where(new, chance.to_right, game.to_right)
        gold = jnp.where(new, chance.gold, game.gold)

        player_y = jnp.clip(game.player_y - (action == UP) + (action == DOWN), 1, 8)
        player_x = jnp.clip(game.player_x - (action == LEFT) + (action == RIGHT), 0, 9)
        player_row = np.arange(1, 9) == player_y
        met = present & player_row & (x == player_x)
        present = present & ~(met & gold)

        moves = game.move_timer == 0
        x = x + jnp.where(to_right, 1, -1) * moves
        present = present & (x >= 0) & (x <= 9)
        met_moving = present & player_row & (x == player_x)
        present = present & ~(met_moving & gold)
        met = met | met_moving

        advanced = game._replace(
            player_y=player_y,
            player_x=player_x,
            present=present,
            x=x,
            to_right=to_right,
            gold=gold,
            spawn_timer=jnp.where(spawns, game.spawn_speed, game.spawn_timer) - 1,
            move_timer=jnp.where(moves, game.move_speed, game.move_timer) - 1,
        )
        if self.difficulty_ramping:
            advanced = _ramp(advanced)
        return advanced, (met & gold).any(), (met & ~gold).any()

    def _observe(self, game: AsterixState) -> Array:
        behind = game.x - jnp.where(game.to_right, 1, -1)
        return stack(
            cell(game.player_y, game.player_x),
            in_rows(game.x, game.present & ~game.gold),
            in_rows(behind, game.present),
            in_rows(game.x, game.present & game.gold),
        )


def _ramp(game: AsterixState) -> AsterixState:
    """Make it harder where it is time and still possible: faster spawning each time, faster moves every other time."""
    can = (game.spawn_speed > 1) | (game.move_speed > 1)
    due = can & (game.ramp_timer < 0)
    return game._replace(
        spawn_speed=game.spawn_speed - (due & (game.spawn_speed > 1)),
        move_speed=game.move_speed - (due & (game.move_speed > 1) & (game.ramp_index % 2 == 1)),
        ramp_timer=jnp.where(due, _RAMP_INTERVAL, game.ramp_timer - can),
        ramp_index=game.ramp_index + due,
    )
