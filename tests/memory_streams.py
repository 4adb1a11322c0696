"""Streams of transitions whose every number tells step and row, and what may be sampled of them."""

from __future__ import annotations

import jax
import numpy as np

from athlete.core import Transition
from athlete.ops.tree import NARROW


def stream(steps: int, rows: int, seed: int = 0, ends: float = 0.3) -> Transition:
    """`[steps, rows, ...]` of all kinds of leaves, narrow and wide; a share `ends` of the steps end episodes."""
    random = np.random.default_rng(seed)
    number = np.arange(steps * rows, dtype=np.int32).reshape(steps, rows)
    terminated, truncated = random.random((2, steps, rows)) < ends / 2
    done = terminated | truncated
    first = np.concatenate([np.ones((1, rows), bool), done[:-1]])
    return Transition(
        obs={"wide": _wide(number), "narrow": np.stack([number, -number], -1).astype(np.float32)},
        first=first,
        action=number + 2**24,  # not a float32 any more
        reward=number.astype(np.float32) / 3,
        next_obs={"wide": _wide(number + 1), "narrow": np.stack([number + 1, number], -1).astype(np.float32)},
        terminated=terminated,
        truncated=truncated,
        carry=np.stack([number] * 3, -1).astype(np.float32),
        extras={"mask": random.random((steps, rows, 2)) < 0.5, "byte": (number % 256).astype(np.uint8)},
    )


def _wide(number: np.ndarray) -> np.ndarray:
    return (number[..., None] + np.arange(NARROW + 3)).astype(np.uint8)


def example_of(transitions: Transition) -> Transition:
    """One transition of one row, of zeros."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape[2:], leaf.dtype), transitions)


def trajectories(transitions: Transition, length: int):
    """The stream cut into trajectories of `length` steps."""
    for start in range(0, transitions.reward.shape[0] - length + 1, length):
        yield jax.tree.map(lambda leaf, start=start: leaf[start : start + length], transitions)


def windows(transitions: Transition, start: np.ndarray, row: np.ndarray, length: int) -> Transition:
    """The windows `[length, N, ...]` that begin at steps `start` `[N]` of rows `row` `[N]`."""
    return jax.tree.map(lambda leaf: leaf[start + np.arange(length)[:, None], row], transitions)


def assert_same_bits(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
