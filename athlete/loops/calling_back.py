"""Whole iterations as one program that calls back into Python for every step of the environments.

For environments that may be stepped from any thread: such a call costs a fraction of what entering a program costs.
"""

from __future__ import annotations

import functools
import itertools
import weakref
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.buffer_callback import buffer_callback

from athlete.core import Array
from athlete.loops.compiling import ONE_BY_ONE_OPTIONS
from athlete.loops.stepwise import APART, Live, Order, take_in_step
from athlete.loops.transport import Layout, Packet, from_packet, to_packet


class Caller(Protocol):
    """Who steps the environments of such a program."""

    def called_back(self, order: Order, ended: Ended, outcome: Packet) -> bool:
        """Take the step that a program orders and write its `outcome`: whether the program is to stop."""


class Ended(NamedTuple):
    """What ended with the step before this one."""

    iteration: bool
    learned: bool  # it was one with updates: the order has their metrics


# Programs know their caller by a number, so that one program serves all that have its shapes.
_callers: weakref.WeakValueDictionary[int, Caller] = weakref.WeakValueDictionary()
_numbers = itertools.count()


def register(caller: Caller) -> int:
    """The number under which `run_iterations` calls back."""
    number = next(_numbers)
    _callers[number] = caller
    return number


@functools.partial(
    jax.jit,
    static_argnames=("length", "learning", "random"),
    donate_argnames=("live",),
    compiler_options=ONE_BY_ONE_OPTIONS,
)
def run_iterations(
    agent: Packet,
    live: Packet,
    outcome: Packet,
    caller: Array,
    iterations: Array,
    length: int,
    learning: bool,
    random: bool,
) -> tuple[Packet, Packet]:
    """Iterations of `length` steps until there are so many or one wants to stop; `caller` is a registered number.

    Returns what is live after them and the outcome of the last step, which is not taken in yet.
    """
    results = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (outcome, jnp.int32(0)))

    def take_in(live: Live, came: Packet, last: bool) -> tuple[Live, Packet, Array]:
        after, order = take_in_step(agent, live, came, length, last, last and learning, random)
        packet = to_packet(order)
        step_of = functools.partial(_call_back, packet.layout, Ended(last, last and learning))
        came, stop = buffer_callback(step_of, results, has_side_effect=True)(caller, packet.vector)
        return after, came, stop

    def iterate(carry: tuple[Array, Live, Packet, Array]) -> tuple[Array, Live, Packet, Array]:
        done, live, came, stop = carry
        if length > 1:
            live, came = jax.lax.fori_loop(
                0, length - 1, lambda _, held: take_in(held[0], held[1], False)[:2], (live, came)
            )
        live, came, stop = take_in(live, came, True)
        return done + 1, live, came, stop

    # Within the program live is a tree: packing it at every step would cost a tenth of a small network's update.
    start = (jnp.int32(0), from_packet(live), outcome, jnp.int32(0))
    _, after, came, _ = jax.lax.while_loop(lambda carry: (carry[0] < iterations) & (carry[3] == 0), iterate, start)
    return to_packet(after, APART), came


def _call_back(layout: Layout, ended: Ended, _: Any, results: tuple[Packet, Any], caller: Any, order: Any) -> None:
    """Writes a step's outcome and whether to stop into `results`."""
    outcome, stop = results
    # The buffer is the program's: what is kept of it is a copy.
    order = from_packet(Packet(layout, np.asarray(order).copy(), ()))
    np.asarray(stop)[...] = _callers[int(np.asarray(caller))].called_back(order, ended, outcome)
