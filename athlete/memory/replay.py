"""Experience replay (Lin 1992): the last transitions, sampled uniformly."""

from __future__ import annotations

from athlete.core import Array, Key, Memory, Transition, hyper
from athlete.memory.ring import Ring, ring_add, ring_draw, ring_init, ring_take, slots_of


@hyper
class Replay(Memory):
    """Samples windows of `window` consecutive steps uniformly from the last `capacity` timesteps.

    A window may run across the end of an episode: whoever reads it stops there (`ops.returns.n_step_return`). It is
    consecutive in its row and never joins the newest step to the oldest. Each row must have added `window` steps
    before the first sample; until then there is no window to give, and what comes is made of zeros.

    Where observations are stacks of frames, `stack_axis` says which of their axes is the stack, and each frame is
    stored once (`memory.frames`): Gymnasium's FrameStackObservation has it at 0, others at -1. It must be a true
    stack, of which every step of an episode drops the first frame and adds one at the end.
    """

    capacity: int = 50_000  # timesteps of all rows together
    batch_size: int = 32  # timesteps that a sample is learned from: `sequence` of each window
    window: int = 1
    unroll: int = 1  # steps that each row adds at once
    sequence: int = 1
    keep_carry: bool = False  # store recurrent states too, one for each timestep: 2 kB of an LSTM of 256
    stack_axis: int | None = None  # the axis of observations that is a stack of frames
    apart: bool = False  # windows lie within one trajectory, of `unroll` steps

    def init(self, example: Transition, rows: int) -> Ring:
        slots = slots_of(self.capacity, rows, self.unroll, self.window)
        return ring_init(self._kept(example), slots, rows, self.stack_axis, self.window + self.unroll)

    def add(self, store: Ring, trajectory: Transition) -> Ring:
        return ring_add(store, self._kept(trajectory), self.stack_axis)

    def sample(self, store: Ring, trajectory: Transition, key: Key, progress: Array) -> Transition:
        unroll = self.unroll if self.apart else None
        slot, row = ring_draw(store, key, self.batch_size // self.sequence, self.window, unroll)
        return ring_take(store, slot, row, self.window, self.stack_axis)

    def ready(self, store: Ring) -> Array:
        return (store.filled >= self.window).any()

    def _kept(self, trajectory: Transition) -> Transition:
        return trajectory if self.keep_carry else trajectory._replace(carry=())
