"""A memory of recorded steps: a data set, or what is in memory of one."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from athlete.core import Array, Key, Memory, Transition, Tree, hyper
from athlete.memory.replay import Replay
from athlete.memory.ring import Ring, ring_draw, ring_init, ring_of, ring_take

_empty = jax.jit(ring_init, static_argnums=(1, 2))


@hyper
class Recorded(Memory):
    """Samples windows of consecutive steps uniformly from recorded ones, which it holds itself.

    They are an argument of the programs that learn: nothing copies them, seeds that are mapped share them, and a
    checkpoint does not hold them. Programs that learn change none of them; `loops.refill` does between these.
    """

    steps: Ring  # of one row
    batch_size: int = 32  # as `Replay`'s, and so are the others
    window: int = 1
    sequence: int = 1

    def init(self, example: Transition, rows: int) -> Tree:
        return ()

    def add(self, store: Tree, trajectory: Transition) -> Tree:
        return store

    def sample(self, store: Tree, trajectory: Transition, key: Key, progress: Array) -> Transition:
        slot, row = ring_draw(self.steps, key, self.batch_size // self.sequence, self.window)
        return ring_take(self.steps, slot, row, self.window)

    def ready(self, store: Tree) -> Array:
        return jnp.ones((), bool)


def recorded(replay: Replay, steps: Transition) -> Recorded:
    """The memory of `steps` `[N, 1, ...]` that samples as `replay` does.

    Raises ValueError where there are fewer steps than a window has, and for stacks of frames.
    """
    _require_whole(replay)
    if (number := len(steps.reward)) < replay.window:
        raise ValueError(f"the data have {number} steps, fewer than the {replay.window} that a sample is made of")
    return Recorded(jax.jit(ring_of)(steps), replay.batch_size, replay.window, replay.sequence)


def room_for_recorded(replay: Replay, example: Transition, slots: int) -> Recorded:
    """An empty memory with room for `slots` steps like `example`; see `recorded`."""
    _require_whole(replay)
    return Recorded(_empty(example, slots, 1), replay.batch_size, replay.window, replay.sequence)


def _require_whole(replay: Replay) -> None:
    if replay.stack_axis is not None:
        raise ValueError("replay_buffer_config: recorded steps hold whole observations; leave stack_axis out")
