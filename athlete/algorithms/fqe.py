"""Fitted Q evaluation (Le et al. 2019, arXiv:1903.08738, algorithm 3): the values of a policy that does not change.

Q(s, a) learns towards r + gamma E_{a' ~ pi} Q'(s', a') on recorded steps, with a target network that follows. The mean
over discrete actions is exact, that over continuous ones is of `num_samples` draws; a policy without chance has its one
action. Where the policy does what the data do not hold, Q' may be anything, and a target stays within what rewards can
add up to. Behind `DirectMethod` and `DoublyRobust` of `off_policy_estimation_methods`; it acts in no environment.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Agent, Array, Key, Memory, Model, Spec, Transition, Tree, hyper
from athlete.core.ranges import Fraction, NonNegativeFloat, PositiveInt
from athlete.distributions import Categorical, flat_action
from athlete.memory.replay import Replay
from athlete.models.critics import critic_values, init_critics
from athlete.models.forward import forward
from athlete.models.mlp import MLP
from athlete.ops.features import features
from athlete.ops.gradient import Adam, AdamState, adam_init
from athlete.ops.values import batched_index, half_square, polyak_update
from athlete.spaces import Discrete, require_kind


class FQEState(NamedTuple):
    """The state of an `FQE`."""

    params: Tree
    target: Tree  # in the shapes of the parameters
    optimizer: AdamState


@hyper
class FQE(Agent):
    """How the values are learned of what `policy` does. Observations are seen as (obs - mean) / std."""

    serves = ("continuous", "discrete")

    policy: Agent
    policy_view: jax.Array  # the tree that it acts by
    mean: jax.Array  # of features, [n]
    std: jax.Array
    least: float = -jnp.inf  # of what a target is taken for: no value lies below what rewards can add up to
    most: float = jnp.inf
    lr: NonNegativeFloat = 1e-3
    gamma: Fraction = 0.99
    tau: Fraction = 0.01  # how far the target network moves at each update
    num_samples: PositiveInt = 4  # of the policy's actions, where these are continuous
    model: Model = MLP((64, 64), "relu")
    memory: Memory = Replay()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> FQE:
        require_kind(type(self).__name__, self.serves, spec.action)
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> FQEState:
        (params,) = init_critics(self.model, key, self.spec.obs, self.spec.action, 1)
        return FQEState(params, jax.tree.map(jnp.copy, params), adam_init(params))

    def update(self, state: FQEState, batch: Transition, key: Key, progress: Array) -> tuple[FQEState, dict]:
        """The key is for the policy's next actions. A step counts `extras["weight"]`, where there is one."""
        obs, next_obs = (jax.tree.map(lambda leaf: leaf[0], each) for each in (batch.obs, batch.next_obs))
        action = flat_action(self.spec.action, jax.tree.map(lambda leaf: leaf[0], batch.action))
        next_value = self.state_values(state.target, next_obs, key)
        target = batch.reward[0] + self.gamma * jnp.where(batch.terminated[0], 0.0, next_value)
        target = jnp.clip(target, self.least, self.most)

        def losses_of(params: Tree) -> tuple[Array, Array]:
            value = self.values(params, obs, action)
            return half_square(value - target), value

        weight = batch.extras["weight"][0] if "weight" in batch.extras else None
        learned = Adam(None).minimize(losses_of, state.params, state.optimizer, self.lr, weight)
        moved = polyak_update(state.target, learned.params, self.tau)
        return FQEState(learned.params, moved, learned.state), {"loss": learned.loss, "mean_q": jnp.mean(learned.aux)}

    def values(self, params: Tree, obs: Tree, action: Tree) -> Array:
        """Q of flat canonical actions `[B, ...]` at observations `[B, ...]`, `[B]`."""
        seen = self._seen(obs)
        if isinstance(self.spec.action, Discrete):
            return batched_index(forward(self.model, params, seen)["q"], action)
        return critic_values(self.model, [params], seen, action)[0, :, 0]

    def state_values(self, params: Tree, obs: Tree, key: Key) -> Array:
        """E_{a ~ pi} Q(s, a), `[B]`, at observations `[B, ...]`."""
        first = jnp.ones(jax.tree.leaves(obs)[0].shape[0], bool)
        carry = self.policy.start(self.policy_view, first.shape[0], key)
        drawn_from: Any = self.policy.distribution(self.policy_view, carry, obs, first)
        if drawn_from is None:
            action, _, _ = self.policy.act(self.policy_view, carry, obs, first, key, explore=False)
            return self.values(params, obs, flat_action(self.spec.action, action))
        if isinstance(drawn_from, Categorical):
            values = forward(self.model, params, self._seen(obs))["q"]
            return jnp.sum(jax.nn.softmax(drawn_from.logits) * values, axis=-1)
        keys = jax.random.split(key, self.num_samples)
        drawn = [jnp.clip(drawn_from.sample(each), -1.0, 1.0) for each in keys]
        return jnp.mean(jnp.stack([self.values(params, obs, action) for action in drawn]), axis=0)

    def _seen(self, obs: Tree) -> Array:
        return (features(self.spec.obs, obs) - self.mean) / self.std
