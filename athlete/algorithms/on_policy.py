"""What on-policy algorithms share: settings, acting, and the batch of sequences that they learn from."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple, Self

import jax.numpy as jnp

from athlete.core import Agent, Array, Key, Memory, Model, Spec, Transition, Tree, hyper
from athlete.core.ranges import Fraction, NonNegativeFloat
from athlete.distributions import Distribution, flat_action, output_size, shape_action
from athlete.memory.rollout import Rollout
from athlete.models.actor_critic import policy_of, values_of_steps
from athlete.models.mlp import MLP
from athlete.models.separate import Separate
from athlete.ops.features import features
from athlete.ops.gradient import AdamState, Optimizer
from athlete.ops.masks import action_mask
from athlete.ops.returns import generalized_advantages
from athlete.ops.schedule import Schedule
from athlete.ops.sequences import in_shares, sequences_with_carry
from athlete.ops.statistics import valid_steps, weighted_mean


class ActorCriticState(NamedTuple):
    """The state of an agent whose policy and values are heads of one network, or networks of one tree."""

    params: Tree
    optimizer: AdamState


class Batch(NamedTuple):
    """What losses read, as sequences `[L, N, ...]`: L steps each, 1 for a network without memory."""

    obs: Array  # features [L, N, n]
    first: Array  # bool [L, N]
    carry: Tree  # at the start of each sequence, [N, ...]
    action: Tree  # flat and canonical
    advantage: Array  # [L, N]
    value: Array  # [L, N], of the parameters that acted
    target: Array  # [L, N], what values should be
    mask: Array | None = None  # bool [L, N, actions]: which were legal
    weight: Array | None = None  # [L, N], of each step; None where all count the same


@hyper
class OnPolicy(Agent):
    """The settings of on-policy algorithms under RLlib's names. An algorithm gives `init` and `update`."""

    serves: ClassVar[tuple[str, ...]] = ("discrete", "continuous", "other")

    lr: NonNegativeFloat | Schedule = 1e-3
    optimizer: Optimizer | None = None  # an optax transformation in the place of Adam, whose updates `lr` multiplies
    gamma: Fraction = 0.99
    max_seq_len: int = 1  # timesteps that gradients flow through; 1 for a network without memory
    free_log_std: bool = True  # Box: one log standard deviation an action, whatever the observation
    log_std_init: float = 0.0  # where it starts
    model: Model = Separate(MLP())
    memory: Memory = Rollout()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> Self:
        output_size(spec.action)
        return dataclasses.replace(self, spec=spec)

    def view(self, state: Any, progress: Array) -> Tree:
        return state.params

    def start(self, view: Tree, rows: int, key: Key) -> Tree:
        return self._network().start(rows)

    def act(self, view: Tree, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        """The key is for sampling actions."""
        policy, carry = policy_of(self._network(), self.spec, view, carry, obs, first)
        action = policy.sample(key) if explore else policy.mode()
        return shape_action(self.spec.action, action), carry, {}

    def distribution(self, view: Tree, carry: Tree, obs: Tree, first: Array) -> Distribution:
        return policy_of(self._network(), self.spec, view, carry, obs, first)[0]

    def _network(self) -> Model:
        """The network that has the policy's head, and that of values."""
        return self.model

    def _estimates(self, params: Tree, batch: Transition, lambda_: Array) -> tuple[Array, Array]:
        """Values and advantages `[T, B]` under the acting parameters; values are 0 without a head for them."""
        value, next_value = values_of_steps(self._network(), self.spec, params, batch)
        advantage = generalized_advantages(
            batch.reward, value, next_value, batch.terminated, batch.truncated, self.gamma, lambda_
        )
        return value, advantage

    def _sequences(self, params: Tree, batch: Transition, lambda_: Array, standardize: bool = False) -> Batch:
        """Advantages, standardised over the batch if so, and targets of a trajectory, cut into sequences."""
        value, advantage = self._estimates(params, batch, lambda_)
        target, weight = value + advantage, valid_steps(batch)
        whole = Batch(
            features(self.spec.obs, batch.obs),
            batch.first,
            batch.carry,
            flat_action(self.spec.action, batch.action),
            standardized(advantage, weight) if standardize else advantage,
            value,
            target,
            action_mask(self.spec, batch.obs),
            weight,
        )
        return in_shares(sequences_with_carry(whole, self.max_seq_len))


def standardized(advantage: Array, weight: Array | None = None) -> Array:
    """Advantages with a mean of 0 and a standard deviation of 1 over the batch."""
    if weight is None:
        return (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8)
    centred = advantage - weighted_mean(advantage, weight)
    return centred / (jnp.sqrt(weighted_mean(centred * centred, weight)) + 1e-8)
