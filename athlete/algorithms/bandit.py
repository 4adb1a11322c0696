"""Linear contextual bandits: BanditLinUCB (Li et al. 2010, arXiv:1003.0146, algorithm 1) and BanditLinTS (Agrawal and
Goyal 2013, arXiv:1209.3352, algorithm 1).

What an arm pays is taken to be linear in its context: E[r | x, a] = theta_a' x. Of each arm there is a regression with
a ridge, exact whatever batches come and in which order: A_a = lambda I + sum x x', b_a = sum r x, theta_a = A_a^-1 b_a.
LinUCB takes the arm with the largest theta_a' x + alpha sqrt(x' A_a^-1 x), LinTS the best one by parameters that are
drawn from N(theta_a, alpha^2 A_a^-1).

Where observations are a Dict with `item` `[n, d]`, each of the n arms has a context of its own, and one regression
serves all of them.

Departures:

- the ridge is `lambda_`, 1 in the papers, and alpha of LinTS, v of the paper, is 1 and does not grow with the horizon;
- contexts have no entry for a bias: give them one where arms differ by a constant;
- of two arms that are as good the first one is taken, where the papers draw one.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from athlete.core import Agent, Array, Key, Memory, Spec, Transition, Tree, hyper
from athlete.core.ranges import NonNegativeFloat, PositiveFloat
from athlete.distributions import Categorical
from athlete.memory.rollout import Rollout
from athlete.ops.features import feature_size, features
from athlete.ops.masks import FORBIDDEN, action_mask
from athlete.ops.statistics import valid_steps, weighted_mean
from athlete.ops.values import batched_index, greedy, half_square
from athlete.settings.config import AlgorithmConfig
from athlete.spaces import Box, Dict, Discrete, require_kind

ITEM = "item"  # the entry of observations with a context for each arm


class BanditState(NamedTuple):
    """The regressions: one for each arm, or one for all."""

    precision: Array  # A, [regressions, d, d]
    moment: Array  # b, [regressions, d]


class BanditView(NamedTuple):
    """What acts: of each regression its parameters and L^-1, where A = L L' is Cholesky's, so that A^-1 = L^-T L^-1."""

    theta: Array  # [regressions, d]
    whitening: Array  # [regressions, d, d]


@hyper
class LinearBandit(Agent):
    """Hyperparameters of linear bandits under RLlib's names. Floats are traced, the rest shapes the program."""

    serves: ClassVar[tuple[str, ...]] = ("discrete",)

    alpha: NonNegativeFloat = 1.0  # how much what is not known counts: 0 is greedy
    lambda_: PositiveFloat = 1.0  # the ridge
    thompson: bool = False  # parameters are drawn (LinTS); else arms are taken by their upper bounds (LinUCB)
    memory: Memory = Rollout()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> Self:
        """Raises ValueError for other than Discrete actions, and for items that are not a row for each arm."""
        require_kind(type(self).__name__, self.serves, spec.action)
        bound = dataclasses.replace(self, spec=spec)
        item = bound._item()
        if item is not None and (not isinstance(item, Box) or item.shape[:-1] != (bound._arms(),)):
            raise ValueError(
                f"observation_space[{ITEM!r}] is {item}, and there are {bound._arms()} arms: it must be a Box of shape "
                f"({bound._arms()}, d), the context of each arm"
            )
        return bound

    def init(self, key: Key) -> BanditState:
        """The key is not used: all begin with what is known of nothing."""
        item = self._item()
        regressions, size = (self._arms(), feature_size(self.spec.obs)) if item is None else (1, item.shape[-1])
        precision = jnp.broadcast_to(self.lambda_ * jnp.eye(size), (regressions, size, size))
        return BanditState(precision, jnp.zeros((regressions, size)))

    def view(self, state: BanditState, progress: Array) -> BanditView:
        lower = jnp.linalg.cholesky(state.precision)
        identity = jnp.broadcast_to(jnp.eye(lower.shape[-1]), lower.shape)
        whitening = solve_triangular(lower, identity, lower=True)
        return BanditView(_transposed_product(whitening, _product(whitening, state.moment)), whitening)

    def act(self, view: BanditView, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        """Arms `[B]`; the key is for drawing parameters."""
        contexts, theta = self._contexts(obs), view.theta
        if explore and self.thompson:
            noise = jax.random.normal(key, (*first.shape, *theta.shape))
            theta = theta + self.alpha * _transposed_product(view.whitening, noise)
        score = jnp.sum(contexts * theta, axis=-1)
        if explore and not self.thompson:
            score = score + self.alpha * jnp.linalg.norm(_product(view.whitening, contexts), axis=-1)
        return greedy(jnp.broadcast_to(score, (*first.shape, self._arms())), action_mask(self.spec, obs)), carry, {}

    def distribution(self, view: BanditView, carry: Tree, obs: Tree, first: Array) -> Categorical | None:
        """LinUCB's whole probability is on the arm that it takes; that of LinTS's arms is not known."""
        if self.thompson:
            return None
        arm, _, _ = self.act(view, carry, obs, first, key=())
        return Categorical(jnp.where(arm[..., None] == jnp.arange(self._arms()), 0.0, FORBIDDEN))

    def update(self, state: BanditState, batch: Transition, key: Key, progress: Array) -> tuple[BanditState, dict]:
        """The regressions with the steps of `batch` `[T, B, ...]`; the key is not used."""
        weight, steps = valid_steps(batch), _folded(batch)
        arms, contexts = self._arms(), self._contexts(steps.obs)
        taken = batched_index(jnp.broadcast_to(contexts, (len(contexts), arms, contexts.shape[-1])), steps.action)
        which = jax.nn.one_hot(steps.action, arms) if self._item() is None else jnp.ones((len(taken), 1))
        if weight is not None:
            which = which * weight.reshape(-1, 1)
        predicted = jnp.sum(which * (taken @ self.view(state, progress).theta.T), axis=-1)
        loss = half_square(predicted - steps.reward).reshape(batch.reward.shape)
        precision = state.precision + jnp.einsum("nk,nd,ne->kde", which, taken, taken)
        moment = state.moment + jnp.einsum("nk,nd->kd", which, steps.reward[:, None] * taken)
        return BanditState(precision, moment), {"loss": weighted_mean(loss, weight)}

    def _contexts(self, obs: Tree) -> Array:
        """`[..., arms, d]`, or `[..., 1, d]` where all arms have the same."""
        return (
            features(self.spec.obs, obs)[..., None, :] if self._item() is None else jnp.asarray(obs[ITEM], jnp.float32)
        )

    def _item(self) -> Any:
        """The space of contexts that each arm has for itself; None where they have one in common."""
        return dict(self.spec.obs.items).get(ITEM) if isinstance(self.spec.obs, Dict) else None

    def _arms(self) -> int:
        assert isinstance(self.spec.action, Discrete)
        return self.spec.action.n


def _folded(batch: Transition) -> Transition:
    """The steps of `[T, B, ...]` as rows `[T * B, ...]`, without their extras."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch._replace(extras=()))


def _product(matrix: Array, vector: Array) -> Array:
    """M v for `[k, d, d]` and `[..., k, d]`, or one of either for all of the other."""
    return (matrix @ vector[..., None])[..., 0]


def _transposed_product(matrix: Array, vector: Array) -> Array:
    """M' v, likewise."""
    return (vector[..., None, :] @ matrix)[..., 0, :]


class BanditConfig(AlgorithmConfig):
    """What the configurations of linear bandits share: they have no network."""

    agent_class = LinearBandit
    fields_set_elsewhere = (*AlgorithmConfig.fields_set_elsewhere, "thompson")
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 1,
        "rollout_fragment_length": 1,
        "train_batch_size": 1,
        "min_sample_timesteps_per_iteration": 100,
    }

    def agent_parts(self) -> dict[str, Any]:
        return {"thompson": self.exploration_types[0] == "ThompsonSampling"}

    def validate(self) -> None:
        super().validate()
        if "model" in self.chosen():
            raise ValueError(
                f"{self._title()}: it has no network, only a linear regression of each arm; leave model out"
            )


class BanditLinUCBConfig(BanditConfig):
    """Configuration of BanditLinUCB: `BanditLinUCBConfig().environment("LinearBandit-v0").build()`."""

    algorithm_name = "BanditLinUCB"
    summary = "a linear regression of each arm, taken by the upper bound of what it may pay"
    paper = "Li et al. 2010, arXiv:1003.0146"
    exploration_types = ("UpperConfidenceBound",)


class BanditLinTSConfig(BanditConfig):
    """Configuration of BanditLinTS: `BanditLinTSConfig().environment("LinearBandit-v0").build()`."""

    algorithm_name = "BanditLinTS"
    summary = "a linear regression of each arm, taken by parameters drawn from what they may be"
    paper = "Agrawal & Goyal 2013, arXiv:1209.3352"
    exploration_types = ("ThompsonSampling",)
