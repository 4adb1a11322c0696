"""Experience replay (Lin 1992): the last transitions, sampled uniformly."""

from __future__ import annotations

import jax

from athlete.core import Array, Key, Memory, Transition, hyper
from athlete.memory.ring import Ring, ring_add, ring_init, ring_take, slots_of


@hyper
class Replay(Memory):
    """Samples windows of `window` consecutive steps uniformly from the last `capacity` timesteps.

    A window may run across the end of an episode: whoever reads it stops there (`ops.returns.n_step_return`). It is
    consecutive in its row and never joins the newest step to the oldest. Each row must have added `window` steps
    before the first sample; until then there is no window to give, and what comes is made of zeros.
    """

    capacity: int = 50_000  # timesteps of all rows together
    batch_size: int = 32  # windows
    window: int = 1
    unroll: int = 1  # steps that each row adds at once
    keep_carry: bool = False  # store recurrent states too

    def init(self, example: Transition, rows: int) -> Ring:
        return ring_init(self._kept(example), slots_of(self.capacity, rows, self.unroll, self.window), rows)

    def add(self, store: Ring, trajectory: Transition) -> Ring:
        return ring_add(store, self._kept(trajectory))

    def sample(self, store: Ring, trajectory: Transition, key: Key, progress: Array) -> Transition:
        slots, rows = store.packed.table.shape[:2]
        windows = (store.filled - self.window + 1) * rows
        drawn = jax.random.randint(key, (self.batch_size,), 0, windows)  # in the order of age, the oldest first
        slot = (store.cursor - store.filled + drawn // rows) % slots
        return ring_take(store, slot, drawn % rows, self.window)

    def _kept(self, trajectory: Transition) -> Transition:
        return trajectory if self.keep_carry else trajectory._replace(carry=())
