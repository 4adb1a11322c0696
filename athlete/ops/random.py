"""The library's random numbers: a counter-based generator that compiles to one fused loop."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.extend.random import define_prng_impl

from athlete.core import Array, Key


def _hash(counter: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Two words of noise from a counter and the two words of a key, all uint32.

    pcg3d of Jarzynski & Olano, "Hash Functions for GPU Rendering" (JCGT 9(3), 2020), which their tests recommend for
    quality at this cost, with one round more. JAX's own Threefry is a loop of its own on CPUs at every draw: slow to
    compile, and slow beside a small network's step. The tests hold this one to uniformity and independence.
    """
    x = counter * jnp.uint32(1664525) + jnp.uint32(1013904223)
    y = low * jnp.uint32(1664525) + jnp.uint32(1013904223)
    z = high * jnp.uint32(1664525) + jnp.uint32(1013904223)
    for _ in range(2):
        x = x + y * z
        y = y + z * x
        z = z + x * y
        x, y, z = x ^ (x >> 16), y ^ (y >> 16), z ^ (z >> 16)
    x = x + y * z
    y = y + z * x
    return x, y


def _counters(shape: tuple[int, ...]) -> Array:
    return jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape)


def _seed(seed: Array) -> Array:
    return jnp.stack([jnp.zeros((), jnp.uint32), jnp.asarray(seed).astype(jnp.uint32)])


def _split(key: Array, shape: tuple[int, ...]) -> Array:
    return jnp.stack(_hash(_counters(shape), key[0] ^ jnp.uint32(0x9E3779B9), key[1]), axis=-1)


def _fold_in(key: Array, data: Array) -> Array:
    return jnp.stack(_hash(jnp.asarray(data).astype(jnp.uint32), key[0], key[1] ^ jnp.uint32(0x85EBCA6B)), axis=-1)


def _random_bits(key: Array, width: int, shape: tuple[int, ...]) -> Array:
    bits, more = _hash(_counters(shape), key[0], key[1])
    if width == 64:
        return (bits.astype(jnp.uint64) << 32) | more.astype(jnp.uint64)
    return bits.astype(f"uint{width}")


GENERATOR = define_prng_impl(
    key_shape=(2,), seed=_seed, split=_split, random_bits=_random_bits, fold_in=_fold_in, name="pcg3d", tag="pcg"
)


def wrap(data: Array) -> Key:
    """A key for `jax.random` from its data, uint32 `[..., 2]`: what is stored, sent and given by users is data."""
    return jax.random.wrap_key_data(data, impl=GENERATOR)


def unwrap(key: Key) -> Array:
    """The inverse of `wrap`."""
    return jax.random.key_data(key)
