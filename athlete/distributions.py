"""Distributions over actions, read from a network's outputs. Actions are canonical: Box unbounded or in [-1, 1]."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Key, Tree
from athlete.ops.masks import FORBIDDEN
from athlete.ops.tree import pieces
from athlete.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple, parts_of

MOST_LOGITS = 1 << 14  # of one space of integers; beyond, a layer of them fills memory before it learns anything
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
    """Independent categoricals, a vector of integers `[..., k]`: `logits` `[..., k, n]`, of which `FORBIDDEN` fill up
    the entries with fewer values."""

    logits: Array

    def sample(self, key: Key) -> Array:
        return Categorical(self.logits).sample(key)

    def mode(self) -> Array:
        return Categorical(self.logits).mode()

    def log_prob(self, action: Array) -> Array:
        return jnp.sum(Categorical(self.logits).log_prob(action), axis=-1)

    def entropy(self) -> Array:
        return jnp.sum(Categorical(self.logits).entropy(), axis=-1)

    def kl(self, other: Any) -> Array:
        """KL(self || other)."""
        return jnp.sum(Categorical(self.logits).kl(other), axis=-1)


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


class Joint(NamedTuple):
    """Independent distributions over the entries of a Tuple or Dict: actions are tuples, in the entries' order.

    The probability of a joint action is the product of its parts', discrete and continuous alike.
    """

    parts: tuple[Any, ...]

    def sample(self, key: Key) -> tuple:
        keys = jax.random.split(key, len(self.parts))
        return tuple(part.sample(keys[i]) for i, part in enumerate(self.parts))

    def mode(self) -> tuple:
        return tuple(part.mode() for part in self.parts)

    def log_prob(self, action: tuple) -> Array:
        return sum((part.log_prob(action[i]) for i, part in enumerate(self.parts)), jnp.float32(0))

    def entropy(self) -> Array:
        return sum((part.entropy() for part in self.parts), jnp.float32(0))

    def kl(self, other: Any) -> Array:
        """KL(self || other)."""
        return sum((a.kl(b) for a, b in zip(self.parts, other.parts, strict=True)), jnp.float32(0))


Distribution = Categorical | MultiCategorical | DiagonalGaussian | Joint


def output_size(space: Space) -> int:
    """How many numbers `distribution` reads for this action space.

    Raises:
        ValueError: a space, or the entry of a Tuple or Dict that is named, has no distribution.
    """
    return _head_size(space, "actions") + continuous_size(space)


def continuous_size(space: Space) -> int:
    """How many numbers of an action are drawn from Gaussians: all of a float Box, and of such entries."""
    if isinstance(space, Tuple | Dict):
        return sum(map(continuous_size, parts_of(space)))
    return math.prod(space.shape) if isinstance(space, Box) and not space.is_integer else 0


def _head_size(space: Space, name: str) -> int:
    """The logits and means among the outputs."""
    if isinstance(space, Tuple):
        return sum(_head_size(part, f"{name}[{i}]") for i, part in enumerate(space.spaces))
    if isinstance(space, Dict):
        return sum(_head_size(part, f"{name}[{key!r}]") for key, part in space.items)
    if isinstance(space, Discrete):
        return space.n
    if isinstance(space, Box) and not space.is_integer:
        return math.prod(space.shape)
    if isinstance(space, MultiDiscrete | MultiBinary | Box):
        size = sum(_counts(space))
        if size <= MOST_LOGITS:
            return size
        raise ValueError(
            f"{name} of {space} would need {size} logits, one for each value; at most {MOST_LOGITS} are served: "
            "take a Box of floats and round in the environment"
        )
    raise ValueError(
        f"no distribution over {name} of {space}; there is one for Discrete, MultiDiscrete, MultiBinary, Box and "
        "Tuple and Dict of these. Wrap the environment so that it takes one of them"
    )


def _counts(space: MultiDiscrete | MultiBinary | Box) -> tuple[int, ...]:
    """How many values each entry of a space of integers has, flat."""
    if isinstance(space, MultiDiscrete):
        return space.sizes
    if isinstance(space, MultiBinary):
        return (2,) * math.prod(space.size)
    return tuple((space.high.astype(np.int64) - space.low.astype(np.int64) + 1).ravel().tolist())


def distribution(space: Space, outputs: Array) -> Distribution:
    """The distribution over flat canonical actions of `space`, from `outputs` `[..., output_size(space)]`.

    First come the logits and means of all entries in their order, then `continuous_size(space)` log standard
    deviations. Every value of an integer space has a logit.
    """
    end = outputs.shape[-1] - continuous_size(space)
    return _distribution(space, outputs[..., :end], outputs[..., end:])


def _distribution(space: Space, head: Array, log_std: Array) -> Distribution:
    if isinstance(space, Tuple | Dict):
        parts = parts_of(space)
        heads = pieces(head, [_head_size(part, "actions") for part in parts])
        log_stds = pieces(log_std, [continuous_size(part) for part in parts])
        return Joint(tuple(map(_distribution, parts, heads, log_stds)))
    if isinstance(space, Discrete):
        return Categorical(head)
    if isinstance(space, MultiDiscrete | MultiBinary) or (isinstance(space, Box) and space.is_integer):
        return MultiCategorical(_in_rows(head, _counts(space)))
    return DiagonalGaussian(head, jnp.clip(log_std, *LOG_STD_RANGE))


def _in_rows(logits: Array, counts: tuple[int, ...]) -> Array:
    """The logits of entries with `counts` values, `[..., sum(counts)]`, in a row each: `[..., k, max(counts)]`."""
    most = max(counts)
    if min(counts) == most:
        return logits.reshape((*logits.shape[:-1], len(counts), most))
    before = [(0, 0)] * (logits.ndim - 1)
    rows = [
        jnp.pad(row, [*before, (0, most - row.shape[-1])], constant_values=FORBIDDEN) for row in pieces(logits, counts)
    ]
    return jnp.stack(rows, axis=-2)


def shape_action(space: Space, action: Tree) -> Tree:
    """A distribution's flat action in the structure and shapes of `space`: `[..., k]` becomes `[..., *space.shape]`."""
    if isinstance(space, Tuple):
        return tuple(map(shape_action, space.spaces, action))
    if isinstance(space, Dict):
        return {name: shape_action(part, action[i]) for i, (name, part) in enumerate(space.items)}
    if isinstance(space, Discrete) or len(space.shape) == 1:
        return action
    return action.reshape((*action.shape[:-1], *space.shape))


def flat_action(space: Space, action: Tree) -> Tree:
    """The inverse of `shape_action`."""
    if isinstance(space, Tuple):
        return tuple(map(flat_action, space.spaces, action))
    if isinstance(space, Dict):
        return tuple(flat_action(part, action[name]) for name, part in space.items)
    if isinstance(space, Discrete) or len(space.shape) == 1:
        return action
    return action.reshape((*action.shape[: action.ndim - len(space.shape)], -1))
