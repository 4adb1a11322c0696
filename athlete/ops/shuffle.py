"""Random orders without sorting."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from athlete.core import Array, Key


def _mix(bits: Array) -> Array:
    """A 32-bit integer hash (multiply, shift, exclusive or), `uint32` to `uint32`."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x846CA68B)
    return bits ^ (bits >> 16)


def _factors(size: int) -> tuple[int, int]:
    """The most nearly square pair of factors of `size`."""
    small = next(factor for factor in range(int(size**0.5), 0, -1) if size % factor == 0)
    return size // small, small


def random_orders(key: Key, orders: int, size: int) -> Array:
    """`[orders, size]` int32, each row an independent pseudorandom order of 0 ... size - 1.

    A keyed bijection of the indices (a Feistel network over the two factors of `size`: each round adds a hash of one
    digit to the other, modulo its base, so every round can be undone). A sort of random numbers uses
    every sample as well, and is dear to compile and to run on a CPU.
    A low digit of few values mixes badly (with a base of 2, a high digit moves in one of two ways a round, so
    neighbours stay neighbours): the excess of neighbours in half an order was measured as 0.3 high_base / low_base^2.
    A sort it is where that is above 8%, and where a size has no two digits.
    """
    high_base, low_base = _factors(size)
    if 4 * high_base > low_base**2:
        return jnp.argsort(jax.random.bits(key, (orders, size)), axis=1).astype(jnp.int32)
    rounds = 6
    keys = jax.random.bits(key, (rounds, orders, 1))
    index = jnp.arange(size, dtype=jnp.uint32)[None]
    high, low = index // low_base, index % low_base
    for i in range(0, rounds, 2):
        high = (high + _mix(low ^ keys[i]) % high_base) % high_base
        low = (low + _mix(high ^ keys[i + 1]) % low_base) % low_base
    return (high * low_base + low).astype(jnp.int32)
