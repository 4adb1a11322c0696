"""From gradients to new parameters. The only place that clips gradients or averages them over devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from athlete.core import Array, Tree
from athlete.ops.tree import flatten, unflatten

LARGE = 1 << 14  # numbers, from which a leaf stands alone: see `to_parts`


class AdamState(NamedTuple):
    """Moments of the gradient, in the form of `to_parts`, and the number of steps taken."""

    mean: list[Array]  # of the gradient
    square: list[Array]  # of its square, in the same shapes
    count: Array  # int32 scalar


class Optimizer(Protocol):
    """What takes Adam's place: an `optax.GradientTransformation`. Nothing of optax is imported for it."""

    def init(self, params: Tree, /) -> Tree: ...

    def update(self, gradients: Tree, state: Tree, params: Tree, /) -> tuple[Tree, Tree]: ...


class OptimizerState(NamedTuple):
    """The state of an `Optimizer`, and the number of steps taken."""

    inner: Tree
    count: Array  # int32 scalar


def to_parts(tree: Tree) -> list[Array]:
    """All small leaves as one vector, then each large leaf as it is.

    One fused loop over many small arrays compiles and runs faster than a loop for each. A large array has nothing to
    gain from it, and where XLA may use several cores it splits a long concatenation among them, element by element:
    that took longer on a layer of 256 x 256 than all of its products.
    """
    leaves = jax.tree.leaves(tree)
    return [flatten([leaf for leaf in leaves if leaf.size < LARGE]), *[leaf for leaf in leaves if leaf.size >= LARGE]]


def from_parts(parts: list[Array], like: Tree) -> Tree:
    """The inverse of `to_parts`, into the structure and shapes of `like`."""
    leaves, structure = jax.tree.flatten(like)
    small = iter(unflatten(parts[0], [leaf for leaf in leaves if leaf.size < LARGE]))
    large = iter(parts[1:])
    return jax.tree.unflatten(structure, [next(small if leaf.size < LARGE else large) for leaf in leaves])


def adam_init(params: Tree, instead: Optimizer | None = None) -> Any:
    """An `AdamState` of zeros for `params`, or the `OptimizerState` of what takes Adam's place."""
    if instead is not None:
        return OptimizerState(instead.init(params), jnp.zeros((), jnp.int32))
    zeros = [jnp.zeros(part.shape) for part in to_parts(params)]
    return AdamState(zeros, jax.tree.map(jnp.copy, zeros), jnp.zeros((), jnp.int32))


def clipped(parts: list[Array], grad_clip: Array | float | None) -> tuple[list[Array], Array]:
    """A gradient's parts, scaled down to the global norm `grad_clip` where it is larger, and its norm before."""
    norm = jnp.sqrt(sum(jnp.sum(part * part) for part in parts))
    if grad_clip is not None:
        scale = jnp.minimum(1.0, grad_clip / (norm + 1e-6))
        parts = [scale * part for part in parts]
    return parts, norm


def adam(
    params: Tree,
    gradients: Tree,
    state: AdamState,
    learning_rate: Array,
    grad_clip: float | None,
    epsilon: float = 1e-8,
    axis_name: str | None = None,
    beta1: float = 0.9,
) -> tuple[Tree, AdamState, Array]:
    """One step of Adam (Kingma & Ba 2015, arXiv:1412.6980, algorithm 1): new parameters, state, gradient norm.

    The norm is the global one, before clipping; gradients with a larger norm than `grad_clip` are scaled down to it.
    With `axis_name` the gradients are first averaged over that mapped axis (devices). `beta1` is the momentum.
    """
    gradient = to_parts(gradients)
    if axis_name is not None:
        gradient = jax.lax.pmean(gradient, axis_name)
    gradient, norm = clipped(gradient, grad_clip)
    mean = [beta1 * old + (1.0 - beta1) * new for old, new in zip(state.mean, gradient, strict=True)]
    square = [0.999 * old + 0.001 * new * new for old, new in zip(state.square, gradient, strict=True)]
    count = state.count + 1
    steps = count.astype(jnp.float32)
    # Both moments' biases as factors of scalars, the form at the end of the paper's section 2: fewer divisions.
    root = jnp.sqrt(1.0 - 0.999**steps)
    rate, least = learning_rate * root / (1.0 - beta1**steps), epsilon * root

    def moved(part: Array, mean: Array, square: Array) -> Array:
        return part - rate * mean / (jnp.sqrt(square) + least)

    parts = [moved(*each) for each in zip(to_parts(params), mean, square, strict=True)]
    return from_parts(parts, params), AdamState(mean, square, count), norm


def transformed(
    optimizer: Optimizer,
    params: Tree,
    gradients: Tree,
    state: OptimizerState,
    learning_rate: Array,
    grad_clip: Array | None,
) -> tuple[Tree, OptimizerState, Array]:
    """One step of an optimiser whose updates are multiplied by the rate: new parameters, state, gradient norm.

    Gradients are clipped before, as Adam's are.
    """
    leaves, structure = jax.tree.flatten(gradients)
    leaves, norm = clipped(leaves, grad_clip)
    updates, inner = optimizer.update(jax.tree.unflatten(structure, leaves), state.inner, params)
    params = jax.tree.map(lambda leaf, update: leaf + learning_rate * update, params, updates)
    return params, OptimizerState(inner, state.count + 1), norm


def l2_penalized(gradients: Tree, params: Tree, coefficient: Array | None) -> Tree:
    """The gradients with that of `coefficient` times half the squared weights of all matrices; None: as they are."""
    if coefficient is None:
        return gradients
    return jax.tree.map(lambda g, w: g + coefficient * w if w.ndim > 1 else g, gradients, params)


class Minimized(NamedTuple):
    """What one step of `Adam.minimize` gives."""

    params: Tree
    state: AdamState
    loss: Array  # scalar, weighted, before the step
    norm: Array  # scalar, the gradient's global norm before clipping
    aux: Any  # what the loss function gave beside its losses


@dataclasses.dataclass(frozen=True)
class Adam:
    """How an agent optimises a network: settings that hold for every step. `grad_clip` has no default on purpose."""

    grad_clip: Array | None  # of the global norm; None: gradients are not clipped
    epsilon: Array = 1e-8
    beta1: Array = 0.9  # momentum
    l2: Array | None = None  # penalty on half the squared weights of all matrices; None: no penalty
    instead: Optimizer | None = None  # of the user's, which takes its place

    def minimize(
        self,
        losses_of: Callable[[Tree], tuple[Array, Any]],
        params: Tree,
        state: AdamState,
        learning_rate: Array,
        weight: Array | None,
    ) -> Minimized:
        """One step down the mean of the losses of all samples, weighted.

        `losses_of(params)` gives the losses `[..., B]` and anything else. `weight` `[B]` is what samples count for, as
        a prioritised memory says (`ops.td.importance_weight`); None: all the same.
        """

        def mean_loss(params: Tree) -> tuple[Array, Any]:
            losses, aux = losses_of(params)
            return jnp.mean(losses if weight is None else weight * losses), aux

        (loss, aux), gradients = jax.value_and_grad(mean_loss, has_aux=True)(params)
        params, state, norm = self.step(params, gradients, state, learning_rate)
        return Minimized(params, state, loss, norm, aux)

    def step(self, params: Tree, gradients: Tree, state: Any, learning_rate: Array) -> tuple[Tree, Any, Array]:
        """One step along `gradients` that were computed already: new parameters, state and the gradient's norm."""
        gradients = l2_penalized(gradients, params, self.l2)
        if self.instead is not None:
            return transformed(self.instead, params, gradients, state, learning_rate, self.grad_clip)
        return adam(params, gradients, state, learning_rate, self.grad_clip, epsilon=self.epsilon, beta1=self.beta1)
