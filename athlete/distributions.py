"""Distributions over actions, read from a network's outputs. Actions are canonical: Box unbounded or in [-1, 1]."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Key
from athlete.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space

LOG_STD_RANGE = (-20.0, 2.0)  # beyond these a float32 Gaussian overflows or never moves


class Categorical(NamedTuple):
    """One of n values; `logits` `[..., n]` need not be normalised."""

    logits: Array

    def sample(self, key: Key) -> Array:
        """`[...]` int32, by the Gumbel trick."""
        return jax.random.categorical(key, self.logits).astype(jnp.int32)

    def mode(self) -> Array:
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    def log_prob(self, action: Array) -> Array:
        log_probs = jax.nn.log_softmax(self.logits)
        chosen = action[..., None] == jnp.arange(self.logits.shape[-1])  # a product: its gradient needs no scatter
        return jnp.sum(jnp.where(chosen, log_probs, 0.0), axis=-1)

    def entropy(self) -> Array:
        log_probs = jax.nn.log_softmax(self.logits)
        return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)

    def kl(self, other: Any) -> Array:
        """KL(self || other)."""
        log_probs = jax.nn.log_softmax(self.logits)
        return jnp.sum(jnp.exp(log_probs) * (log_probs - jax.nn.log_softmax(other.logits)), axis=-1)


class MultiCategorical(NamedTuple):
    """Independent categoricals, a vector of integers `[..., k]`."""

    parts: tuple[Categorical, ...]

    def sample(self, key: Key) -> Array:
        keys = jax.random.split(key, len(self.parts))
        return jnp.stack([part.sample(keys[i]) for i, part in enumerate(self.parts)], axis=-1)

    def mode(self) -> Array:
        return jnp.stack([part.mode() for part in self.parts], axis=-1)

    def log_prob(self, action: Array) -> Array:
        return sum((part.log_prob(action[..., i]) for i, part in enumerate(self.parts)), jnp.float32(0))

    def entropy(self) -> Array:
        return sum((part.entropy() for part in self.parts), jnp.float32(0))

    def kl(self, other: Any) -> Array:
        return sum((a.kl(b) for a, b in zip(self.parts, other.parts, strict=True)), jnp.float32(0))


class DiagonalGaussian(NamedTuple):
    """Independent normal distributions, `mean` and `log_std` `[..., n]`."""

    mean: Array
    log_std: Array

    def sample(self, key: Key) -> Array:
        return self.mean + jnp.exp(self.log_std) * jax.random.normal(key, self.mean.shape)

    def mode(self) -> Array:
        return self.mean

    def log_prob(self, action: Array) -> Array:
        standard = (action - self.mean) * jnp.exp(-self.log_std)
        return -jnp.sum(0.5 * standard * standard + self.log_std + 0.5 * math.log(2 * math.pi), axis=-1)

    def entropy(self) -> Array:
        return jnp.sum(self.log_std + 0.5 * math.log(2 * math.pi * math.e), axis=-1)

    def kl(self, other: Any) -> Array:
        """KL(self || other)."""
        ratio = jnp.exp(2.0 * (self.log_std - other.log_std))
        shift = (self.mean - other.mean) * jnp.exp(-other.log_std)
        return jnp.sum(other.log_std - self.log_std + 0.5 * (ratio + shift * shift - 1.0), axis=-1)


class SquashedGaussian(NamedTuple):
    """tanh of a diagonal Gaussian: actions in (-1, 1) (Haarnoja et al. 2018, arXiv:1812.05905, appendix C)."""

    base: DiagonalGaussian

    def sample_and_log_prob(self, key: Key) -> tuple[Array, Array]:
        """An action and its log probability, from the unsquashed sample: exact where tanh saturates."""
        raw = self.base.sample(key)
        return jnp.tanh(raw), self.base.log_prob(raw) - _log_tanh_slope(raw)

    def sample(self, key: Key) -> Array:
        return jnp.tanh(self.base.sample(key))

    def mode(self) -> Array:
        return jnp.tanh(self.base.mean)

    def log_prob(self, action: Array) -> Array:
        raw = jnp.arctanh(jnp.clip(action, -1.0 + 1e-6, 1.0 - 1e-6))
        return self.base.log_prob(raw) - _log_tanh_slope(raw)


def _log_tanh_slope(raw: Array) -> Array:
    """sum log(1 - tanh(raw)^2), in a form that does not underflow."""
    return jnp.sum(2.0 * (math.log(2.0) - raw - jax.nn.softplus(-2.0 * raw)), axis=-1)


Distribution = Categorical | MultiCategorical | DiagonalGaussian


def output_size(space: Space) -> int:
    """How many numbers `distribution` reads for this action space. Raises ValueError where there is none."""
    if isinstance(space, Discrete):
        return space.n
    if isinstance(space, MultiDiscrete):
        return sum(space.nvec)
    if isinstance(space, MultiBinary):
        return 2 * math.prod(space.size)
    if isinstance(space, Box) and space.dtype.kind == "f":
        return 2 * math.prod(space.shape)
    raise ValueError(
        f"no distribution over actions of {space}; "
        "there is one for Discrete, MultiDiscrete, MultiBinary and float Box. "
        "Wrap the environment so that it takes one of these: an integer Box as MultiDiscrete, Tuple and Dict flattened"
    )


def distribution(space: Space, outputs: Array) -> Distribution:
    """The distribution over canonical actions of `space`, from `outputs` `[..., output_size(space)]`.

    A Box takes its mean from the first half and its log standard deviation from the second.
    """
    if isinstance(space, Discrete):
        return Categorical(outputs)
    if isinstance(space, MultiDiscrete | MultiBinary):
        sizes = space.nvec if isinstance(space, MultiDiscrete) else (2,) * math.prod(space.size)
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        parts = tuple(Categorical(outputs[..., end - size : end]) for size, end in zip(sizes, ends, strict=True))
        return MultiCategorical(parts)
    mean, log_std = jnp.split(outputs, 2, axis=-1)
    return DiagonalGaussian(mean, jnp.clip(log_std, *LOG_STD_RANGE))


def shape_action(space: Space, action: Array) -> Array:
    """A distribution's action `[..., k]` in the shape of `space`: Box and MultiBinary of any rank are flat inside."""
    if isinstance(space, Box | MultiBinary) and len(space.shape) != 1:
        return action.reshape((*action.shape[:-1], *space.shape))
    return action


def flat_action(space: Space, action: Array) -> Array:
    """The inverse of `shape_action`."""
    if isinstance(space, Box | MultiBinary) and len(space.shape) != 1:
        return action.reshape((*action.shape[: action.ndim - len(space.shape)], -1))
    return action
