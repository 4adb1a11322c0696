"""MinAtar's SpaceInvaders in JAX."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Key, hyper
from athlete.env.games.minatar.game import FIRE, LEFT, NOOP, RIGHT, SIZE, MinAtar, cell, stack

_FLEET = np.zeros((SIZE, SIZE), bool)
_FLEET[0:4, 2:8] = True
_COLUMNS = np.arange(SIZE)


class SpaceInvadersState(NamedTuple):
    cannon: Array  # int32: its column in row 9
    reload: Array  # int32: steps until it can fire
    bullets: Array  # bool [10, 10]: the cannon's
    alien_bullets: Array  # bool [10, 10]
    aliens: Array  # bool [10, 10]
    alien_move: Array  # int32, -1 or 1: where they are heading
    alien_move_interval: Array  # int32: steps between two of their moves while they are many
    alien_move_timer: Array
    alien_shot_timer: Array


@hyper
class SpaceInvaders(MinAtar):
    """Shoot aliens from a cannon in the bottom row, 1 each, until one of them, or a bullet of theirs, reaches it.

    They move sideways, turn and come a row nearer at the edges, and are faster the fewer they are; every ten steps the
    nearest shoots. When all are gone, 24 new ones appear, faster with `difficulty_ramping`. Chance plays no part.
    """

    difficulty_ramping: bool = True

    channels: ClassVar[dict[str, tuple[int, int, int]]] = {
        "cannon": (90, 170, 255),
        "alien": (120, 220, 110),
        "alien_left": (120, 220, 110),
        "alien_right": (120, 220, 110),
        "friendly_bullet": (255, 255, 255),
        "enemy_bullet": (230, 80, 80),
    }
    used_actions: ClassVar[tuple[int, ...]] = (NOOP, LEFT, RIGHT, FIRE)

    def _begin(self, key: Key) -> SpaceInvadersState:
        nothing = jnp.zeros((SIZE, SIZE), bool)
        number = jnp.int32
        return SpaceInvadersState(
            cannon=number(5),
            reload=number(0),
            bullets=nothing,
            alien_bullets=nothing,
            aliens=jnp.asarray(_FLEET),
            alien_move=number(-1),
            alien_move_interval=number(12),
            alien_move_timer=number(12),
            alien_shot_timer=number(10),
        )

    def _advance(
        self, game: SpaceInvadersState, action: Array, chance: tuple
    ) -> tuple[SpaceInvadersState, Array, Array]:
        fires = (action == FIRE) & (game.reload == 0)
        reload = jnp.where(fires, 5, game.reload)
        cannon = jnp.clip(game.cannon - (action == LEFT) + (action == RIGHT), 0, 9)
        here = cell(9, cannon)
        # A new bullet begins in row 9 and flies in the same step.
        bullets = jnp.roll(game.bullets, -1, 0).at[9].set(False) | (cell(8, cannon) & fires)
        alien_bullets = jnp.roll(game.alien_bullets, 1, 0).at[0].set(False)

        aliens, alien_move, alien_move_timer, landed = _move_aliens(game)
        dead = (here & (alien_bullets | game.aliens | aliens)).any() | landed
        shoots = game.alien_shot_timer == 0
        alien_bullets = alien_bullets | (_nearest(aliens, cannon) & shoots)

        killed = aliens & bullets
        aliens = aliens & ~killed
        cleared = ~aliens.any()
        interval = game.alien_move_interval
        if self.difficulty_ramping:
            interval = interval - (cleared & (interval > 6))
        advanced = SpaceInvadersState(
            cannon=cannon,
            reload=reload - (reload > 0),
            bullets=bullets & ~killed,
            alien_bullets=alien_bullets,
            aliens=aliens | (_FLEET & cleared),
            alien_move=alien_move,
            alien_move_interval=interval,
            alien_move_timer=alien_move_timer - 1,
            alien_shot_timer=jnp.where(shoots, 10, game.alien_shot_timer) - 1,
        )
        return advanced, killed.sum(), dead

    def _observe(self, game: SpaceInvadersState) -> Array:
        to_left = game.alien_move < 0
        return stack(
            cell(9, game.cannon),
            game.aliens,
            game.aliens & to_left,
            game.aliens & ~to_left,
            game.bullets,
            game.alien_bullets,
        )


def _move_aliens(game: SpaceInvadersState) -> tuple[Array, Array, Array, Array]:
    """Where they are if it is their turn, their heading, their timer, and whether one had landed when they turned."""
    aliens, heading = game.aliens, game.alien_move
    moves = game.alien_move_timer == 0
    timer = jnp.where(moves, jnp.minimum(aliens.sum(), game.alien_move_interval), game.alien_move_timer)
    at_edge = jnp.where(heading < 0, aliens[:, 0].any(), aliens[:, 9].any())
    turns = moves & at_edge
    sideways = jnp.where(heading < 0, jnp.roll(aliens, -1, 1), jnp.roll(aliens, 1, 1))
    moved = jnp.where(turns, jnp.roll(aliens, 1, 0), jnp.where(moves, sideways, aliens))
    return moved, jnp.where(turns, -heading, heading), timer, turns & aliens[9].any()


def _nearest(aliens: Array, cannon: Array) -> Array:
    """The lowest alien of the column nearest to the cannon, the left one of two: a grid that is on there alone."""
    order = jnp.where(aliens.any(0), abs(_COLUMNS - cannon) * SIZE + _COLUMNS, SIZE * SIZE)
    column = aliens & (jnp.argmin(order) == _COLUMNS)
    return cell(jnp.where(column.any(1), np.arange(SIZE), -1).max(), jnp.argmin(order))
