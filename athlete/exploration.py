"""How agents that have no random policy of their own try things: RLlib's exploration types.

Each has a `rate` that may follow a schedule (epsilon, a temperature, a scale) and travels with what acts, and a carry
of its own where it remembers: `()` if it does not. Uniformly random steps before all of it are the loop's
(`random_timesteps`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import ActingCarry, Array, Key, Tree, hyper
from athlete.ops.masks import masked
from athlete.ops.noisy import of_layers
from athlete.ops.random import wrap
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.tree import flatten, unflatten, where
from athlete.ops.values import greedy
from athlete.spaces import Discrete, Space

__all__ = [
    "ActingCarry",
    "ActingView",
    "EpsilonGreedy",
    "Exploration",
    "GaussianNoise",
    "OrnsteinUhlenbeckNoise",
    "ParameterNoise",
    "PerWorkerEpsilonGreedy",
    "PerWorkerGaussianNoise",
    "PerWorkerOrnsteinUhlenbeckNoise",
    "SoftQ",
    "StochasticSampling",
    "acting_outputs",
    "action_distance",
    "explored_action",
    "greedy",
    "ladder",
    "perturbed",
    "require_fitting_noise",
    "softmax_distance",
]


class Exploration:
    """The contract. Discrete actions are chosen by their values `[B, n]`; continuous ones `[B, n]` get noise."""

    __hyper__ = True

    def initial(self) -> Array:
        """The standard deviation of parameter noise at the start."""
        return jnp.zeros(())

    def adapt(
        self,
        forward: Callable[[Tree, Tree], Array],
        params: Tree,
        stddev: Array,
        obs: Tree,
        progress: Array,
        key: Key,
        distance: Callable[[Array, Array], Array],
    ) -> Array:
        """The standard deviation of parameter noise after an update on `obs` `[B, ...]`."""
        return stddev

    def rate(self, progress: Array) -> Array:
        """The exploration rate at this progress of the training: epsilon, a temperature, the noise's scale."""
        raise NotImplementedError

    def start(self, rows: int, size: int, key: Key) -> Tree:
        """The carry of `rows` rows whose actions have `size` numbers."""
        return ()

    def rate_of_rows(self, rate: Array, carry: Tree) -> Array:
        """The rate that each row acts with, a scalar or `[B]`."""
        return rate

    def choose(self, values: Array, rate: Array, key: Key, mask: Array | None = None) -> Array:
        """Actions `[B]` int32 for action values `[B, n]`, among those that `mask` `[B, n]` allows.

        Raises TypeError where it is for continuous actions only.
        """
        raise TypeError(f"{type(self).__name__} is for continuous actions; EpsilonGreedy and SoftQ choose among values")

    def logits(self, values: Array, rate: Array, mask: Array | None = None) -> Array | None:
        """Of the distribution that `choose` draws from, `[B, n]`; None where it draws from none."""
        return None

    def add_noise(self, action: Array, rate: Array, carry: Tree, first: Array, key: Key) -> tuple[Array, Tree]:
        """Actions `[B, n]` near `action`, within [-1, 1], and the carry. Raises TypeError where it is for Discrete."""
        raise TypeError(
            f"{type(self).__name__} chooses among values; GaussianNoise and OrnsteinUhlenbeckNoise are for continuous "
            "actions"
        )


@hyper
class EpsilonGreedy(Exploration):
    """With probability epsilon a uniformly random action, else the best (Watkins 1989)."""

    epsilon: float | Schedule = 0.1

    def rate(self, progress: Array) -> Array:
        return value_at(self.epsilon, progress)

    def choose(self, values: Array, rate: Array, key: Key, mask: Array | None = None) -> Array:
        bits = jax.random.bits(key, (2, *values.shape[:-1]), jnp.uint32)
        uniform = (bits[0] >> 8).astype(jnp.float32) / 2**24
        random = (bits[1] % values.shape[-1]).astype(jnp.int32) if mask is None else nth_legal(mask, bits[1])
        return jnp.where(uniform < rate, random, greedy(values, mask))

    def logits(self, values: Array, rate: Array, mask: Array | None = None) -> Array:
        legal = jnp.ones(values.shape, bool) if mask is None else mask
        best = jnp.arange(values.shape[-1]) == greedy(values, mask)[..., None]
        share = rate * legal / jnp.sum(legal, axis=-1, keepdims=True)
        return jnp.log(jnp.maximum(share + (1.0 - rate) * best, 1e-30))


@hyper
class PerWorkerEpsilonGreedy(EpsilonGreedy):
    """A ladder of epsilons, of which each row keeps its own (Horgan et al. 2018, arXiv:1803.00933, section 4.1).

    Row i of N has epsilon^(1 + exponent i / (N - 1)). The carry is each row's.
    """

    epsilon: float | Schedule = 0.4
    exponent: float = 7.0  # alpha

    def start(self, rows: int, size: int, key: Key) -> Array:
        return ladder(value_at(self.epsilon, 0.0), self.exponent, rows)

    def rate_of_rows(self, rate: Array, carry: Tree) -> Array:
        return carry


@hyper
class SoftQ(Exploration):
    """Boltzmann: an action with probability proportional to exp(value / temperature)."""

    temperature: float | Schedule = 1.0

    def rate(self, progress: Array) -> Array:
        return value_at(self.temperature, progress)

    def choose(self, values: Array, rate: Array, key: Key, mask: Array | None = None) -> Array:
        return jax.random.categorical(key, self.logits(values, rate, mask)).astype(jnp.int32)

    def logits(self, values: Array, rate: Array, mask: Array | None = None) -> Array:
        return masked(values / jnp.maximum(rate, 1e-6), mask)


@hyper
class StochasticSampling(Exploration):
    """As the policy itself samples: nothing is added."""

    def rate(self, progress: Array) -> Array:
        return jnp.zeros(())

    def add_noise(self, action: Array, rate: Array, carry: Tree, first: Array, key: Key) -> tuple[Array, Tree]:
        return action, carry


@hyper
class GaussianNoise(Exploration):
    """Independent normal noise at every step: `stddev` times a scale, on actions in [-1, 1]."""

    stddev: float = 0.1
    scale: float | Schedule = 1.0

    def rate(self, progress: Array) -> Array:
        return self.stddev * value_at(self.scale, progress)

    def add_noise(self, action: Array, rate: Array, carry: Tree, first: Array, key: Key) -> tuple[Array, Tree]:
        return jnp.clip(action + rate * jax.random.normal(key, action.shape), -1.0, 1.0), carry


@hyper
class OrnsteinUhlenbeckNoise(Exploration):
    """Noise that drifts (Uhlenbeck & Ornstein 1930; Lillicrap et al. 2016, arXiv:1509.02971, section 7).

    x <- x - theta x + sigma N(0, 1), from 0 at each episode's start; what is added is `base_scale` times a scale
    times x of the action's whole range, as in RLlib.
    """

    theta: float = 0.15
    sigma: float = 0.2
    base_scale: float = 0.1
    scale: float | Schedule = 1.0

    def rate(self, progress: Array) -> Array:
        return self.base_scale * value_at(self.scale, progress)

    def start(self, rows: int, size: int, key: Key) -> Array:
        return jnp.zeros((rows, size))

    def add_noise(self, action: Array, rate: Array, carry: Array, first: Array, key: Key) -> tuple[Array, Array]:
        drift = where(first, jnp.zeros_like(carry), carry)
        drift = drift - self.theta * drift + self.sigma * jax.random.normal(key, action.shape)
        return jnp.clip(action + 2.0 * rate * drift, -1.0, 1.0), drift  # actions range over 2


@hyper
class PerWorkerGaussianNoise(GaussianNoise):
    """Normal noise on a ladder of scales, of which each row keeps its own, as `PerWorkerEpsilonGreedy` has of epsilons.

    The carry is each row's.
    """

    scale: float | Schedule = 0.4
    exponent: float = 7.0

    def start(self, rows: int, size: int, key: Key) -> Array:
        return ladder(value_at(self.scale, 0.0), self.exponent, rows)

    def add_noise(self, action: Array, rate: Array, carry: Array, first: Array, key: Key) -> tuple[Array, Array]:
        noisy, _ = super().add_noise(action, self.stddev * carry[:, None], (), first, key)
        return noisy, carry


@hyper
class PerWorkerOrnsteinUhlenbeckNoise(OrnsteinUhlenbeckNoise):
    """Drifting noise on a ladder of scales, of which each row keeps its own: the carry is its (scale, drift)."""

    scale: float | Schedule = 0.4
    exponent: float = 7.0

    def start(self, rows: int, size: int, key: Key) -> tuple[Array, Array]:
        return ladder(value_at(self.scale, 0.0), self.exponent, rows), super().start(rows, size, key)

    def add_noise(self, action: Array, rate: Array, carry: Tree, first: Array, key: Key) -> tuple[Array, Tree]:
        scale, drift = carry
        noisy, drift = super().add_noise(action, self.base_scale * scale[:, None], drift, first, key)
        return noisy, (scale, drift)


def ladder(top: Array, exponent: float, rows: int) -> Array:
    """`[rows]`: row i of N has top^(1 + exponent i / (N - 1)), as Ape-X's actors (Horgan et al. 2018, section 4.1)."""
    step = jnp.arange(rows, dtype=jnp.float32) / max(1, rows - 1)
    return top ** (1.0 + exponent * step)


@hyper
class ParameterNoise(Exploration):
    """Noise on the network's parameters, drawn once an episode (Plappert et al. 2018, arXiv:1706.01905).

    Its standard deviation is adapted (equation 7) so that the perturbed policy stays `target` away from the plain one:
    in RMS of continuous actions, in KL of the softmax of values for discrete ones. The carry is a key for each row:
    the noise is drawn again from it at every step, so that no row keeps a network of its own; unlike in the paper the
    parameters under it go on learning within an episode. `acting_outputs` acts with it; discrete actions are then
    chosen by `sub_exploration`, continuous ones taken as they are.
    """

    initial_stddev: float = 0.1
    target: float | Schedule = 0.1
    factor: float = 1.01
    sub_exploration: EpsilonGreedy = EpsilonGreedy(0.0)

    def rate(self, progress: Array) -> Array:
        return self.sub_exploration.rate(progress)

    def start(self, rows: int, size: int, key: Key) -> Array:
        return jax.random.bits(key, (rows, 2), jnp.uint32)

    def choose(self, values: Array, rate: Array, key: Key, mask: Array | None = None) -> Array:
        return self.sub_exploration.choose(values, rate, key, mask)

    def add_noise(self, action: Array, rate: Array, carry: Tree, first: Array, key: Key) -> tuple[Array, Tree]:
        return jnp.clip(action, -1.0, 1.0), carry

    def initial(self) -> Array:
        return jnp.asarray(self.initial_stddev, jnp.float32)

    def adapt(
        self,
        forward: Callable[[Tree, Tree], Array],
        params: Tree,
        stddev: Array,
        obs: Tree,
        progress: Array,
        key: Key,
        distance: Callable[[Array, Array], Array],
    ) -> Array:
        """Equation 7: larger where the perturbed outputs are nearer to the plain ones than the target, else smaller."""
        found = distance(forward(params, obs), forward(perturbed(params, stddev, key), obs))
        return jnp.where(found <= value_at(self.target, progress), stddev * self.factor, stddev / self.factor)


def require_fitting_noise(exploration: Exploration, space: Space) -> None:
    """Raise ValueError where `exploration` is noise on continuous actions and the agent's actions are Discrete."""
    if isinstance(space, Discrete) and not isinstance(exploration, StochasticSampling):
        raise ValueError(
            f"{type(exploration).__name__} is noise on continuous actions, and these are {space}; "
            "take exploration_config={'type': 'StochasticSampling'}"
        )


def softmax_distance(plain: Array, noisy: Array) -> Array:
    """Mean KL divergence of the softmax of action values `[B, n]` (Plappert et al. 2018, appendix C.1)."""
    difference = jax.nn.log_softmax(plain) - jax.nn.log_softmax(noisy)
    return jnp.mean(jnp.sum(jax.nn.softmax(plain) * difference, axis=-1))


def action_distance(plain: Array, noisy: Array) -> Array:
    """Root of the mean squared difference of continuous actions `[B, n]` (Plappert et al. 2018, equation 8)."""
    return jnp.sqrt(jnp.mean(jnp.square(plain - noisy)))


def nth_legal(mask: Array, number: Array) -> Array:
    """The action `[B]` int32 that `number` `[B]` uint32, taken modulo their count, counts to among those allowed."""
    counted = jnp.cumsum(mask, axis=-1, dtype=jnp.uint32)
    return jnp.argmax(counted > (number % counted[..., -1])[..., None], axis=-1).astype(jnp.int32)


def perturbed(params: Tree, stddev: Array, key: Key) -> Tree:
    """Parameters with independent normal noise of `stddev` on each weight and bias of a layer.

    Normalisations keep their scale and shift (Plappert et al. 2018, section 3): they make layers alike that the same
    noise is added to.
    """
    vector = flatten(params)
    noisy = unflatten(vector + stddev * jax.random.normal(key, vector.shape), params)
    return jax.tree.map(lambda plain, drawn, noise: drawn if noise else plain, params, noisy, of_layers(params))


class ActingView(NamedTuple):
    """What acts: parameters, the exploration's rate, and the standard deviation of parameter noise, if there is.

    With them go the critics of an actor whose new steps are to be rated.
    """

    params: Tree
    rate: Array
    stddev: Tree = ()
    critics: Tree = ()


def acting_outputs(
    exploration: Exploration,
    forward: Callable[[Tree, Tree], Array],
    view: ActingView,
    carry: Tree,
    first: Array,
    obs: Tree,
    key: Key,
) -> tuple[Array, Tree]:
    """`forward(params, obs)` `[B, n]` as it explores, and the exploration's carry: with perturbed parameters where the
    exploration perturbs them, anew at each episode's start.
    """
    if not isinstance(exploration, ParameterNoise):
        return forward(view.params, obs), carry
    fresh = jax.random.bits(key, carry.shape, jnp.uint32)
    keys = where(first, fresh, carry)

    def one_row(key: Array, obs: Tree) -> Array:
        params = perturbed(view.params, view.stddev, wrap(key))
        return forward(params, jax.tree.map(lambda leaf: leaf[None], obs))[0]

    return jax.vmap(one_row)(keys, obs), keys


def explored_action(
    exploration: Exploration,
    policy: Callable[[Tree, Tree], Array],
    view: ActingView,
    carry: ActingCarry,
    first: Array,
    obs: Tree,
    key: Key,
) -> tuple[Array, ActingCarry]:
    """What a deterministic `policy(params, obs)` `[B, n]` in [-1, 1] becomes with noise on parameters or actions."""
    draw_key, noise_key = jax.random.split(key)
    action, noise = acting_outputs(exploration, policy, view, carry.exploration, first, obs, draw_key)
    action, noise = exploration.add_noise(action, view.rate, noise, first, noise_key)
    return action, ActingCarry((), noise)
