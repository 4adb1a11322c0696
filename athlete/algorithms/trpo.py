"""Trust region policy optimisation (Schulman et al. 2015, arXiv:1502.05477): the agent.

One step an iteration, as far up the surrogate objective as a bound on the policy's change allows (equation 14):

    maximise E[ratio A]  subject to  E[KL(old || new)] <= kl_target.

The direction is F^-1 g (appendix C): g the surrogate's gradient and F the Fisher information, the Hessian of the
mean KL at the old parameters. Conjugate gradients solve for it from products F v alone, each of which is the derivative
of the KL's gradient along v: exact, and as dear as a few gradients. Its length makes the quadratic model of the KL
`kl_target`; a line search then shortens it until the KL itself is within the bound and the surrogate has gained.
The value function is a network of its own, fitted to the lambda-returns by minibatches.

Departures:

- advantages are generalised advantage estimates (arXiv:1506.02438), standardised over the batch;
- values are fitted by Adam, as later codes do; a part of `damping` v is added to each F v;
- a truncated episode is bootstrapped from its true last observation, with the recurrent state of that moment.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Agent, Array, Key, Memory, Model, Spec, Transition, Tree, hyper
from athlete.core.ranges import Fraction, NonNegativeFloat, PositiveInt
from athlete.distributions import Distribution, flat_action, output_size, shape_action
from athlete.memory.latest import Latest
from athlete.models.actor_critic import (
    apply_actor_critic,
    init_actor_critic,
    legal_distribution,
    policy_of,
    values_of_steps,
)
from athlete.models.catalog import make_model
from athlete.models.mlp import MLP
from athlete.models.separate import Separate
from athlete.ops.features import features
from athlete.ops.gradient import AdamState, adam, adam_init
from athlete.ops.masks import action_mask
from athlete.ops.returns import generalized_advantages
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.sequences import cut_with_carry, minibatch_orders, take
from athlete.ops.statistics import explained_variance
from athlete.ops.tree import flatten, pack, unflatten
from athlete.ops.trust_region import line_search, natural_step
from athlete.settings.families import OnPolicyConfig


class TRPOState(NamedTuple):
    policy: Tree  # its network and, for a Box, its log standard deviations
    value: Tree  # the value function's network
    optimizer: AdamState  # of the value function


class Batch(NamedTuple):
    """What both losses read, as sequences `[L, N, ...]`: L steps each, 1 for a network without memory."""

    obs: Array
    first: Array
    carry: Tree  # at the start of each sequence, [N, ...]
    action: Tree
    advantage: Array
    value: Array
    target: Array
    mask: Array | None = None  # which actions were legal


@hyper
class TRPO(Agent):
    """Hyperparameters of TRPO under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    serves = ("discrete", "continuous", "other")

    kl_target: NonNegativeFloat = 0.01  # delta of equation 14: the largest mean KL of an update
    gamma: Fraction = 0.99
    lambda_: Fraction = 0.97
    conjugate_gradient_steps: PositiveInt = 10
    damping: NonNegativeFloat = 0.1
    line_search_steps: PositiveInt = 10  # attempts, the full step among them; then the policy stays as it was
    line_search_decay: Fraction = 0.8  # of the step from one attempt to the next
    lr: NonNegativeFloat | Schedule = 1e-3  # of the value function, as are the next two
    minibatch_size: PositiveInt = 128  # timesteps
    num_epochs: PositiveInt = 10
    max_seq_len: int = 1  # timesteps that gradients flow through; 1 for a network without memory
    free_log_std: bool = True  # Box: one log standard deviation an action, whatever the observation
    model: Model = MLP()  # of the policy, and of the value function
    memory: Memory = Latest()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> TRPO:
        output_size(spec.action)
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> TRPOState:
        params = init_actor_critic(Separate(self.model), key, self.spec, self.free_log_std)
        value = params["network"].pop("value")
        return TRPOState(params, value, adam_init(value))

    def view(self, state: TRPOState, progress: Array) -> Tree:
        return joined(state.policy, state.value)

    def start(self, view: Tree, rows: int, key: Key) -> Tree:
        return Separate(self.model).start(rows)

    def act(self, view: Tree, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        policy, carry = policy_of(Separate(self.model), self.spec, view, carry, obs, first)
        action = policy.sample(key) if explore else policy.mode()
        return shape_action(self.spec.action, action), carry, ()

    def update(self, state: TRPOState, batch: Transition, key: Key, progress: Array) -> tuple[TRPOState, dict]:
        sequences = self._prepare(state, batch)
        policy, metrics = self._improve(state.policy, sequences)
        lr = value_at(self.lr, progress)
        value, optimizer, vf_loss = self._fit(state, sequences, key, lr)
        explained = explained_variance(sequences.target, sequences.value)
        return TRPOState(policy, value, optimizer), metrics | {
            "vf_loss": vf_loss,
            "vf_explained_var": explained,
            "cur_lr": lr,
        }

    def _prepare(self, state: TRPOState, batch: Transition) -> Batch:
        """Advantages and targets under the acting parameters, and the batch cut into sequences."""
        params = joined(state.policy, state.value)
        value, next_value = values_of_steps(Separate(self.model), self.spec, params, batch)
        advantage = generalized_advantages(
            batch.reward, value, next_value, batch.terminated, batch.truncated, self.gamma, self.lambda_
        )
        target = value + advantage
        advantage = (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8)
        obs, action = features(self.spec.obs, batch.obs), flat_action(self.spec.action, batch.action)
        mask = action_mask(self.spec, batch.obs)
        whole = Batch(obs, batch.first, batch.carry, action, advantage, value, target, mask)
        return cut_with_carry(whole, self.max_seq_len)

    def _improve(self, params: Tree, batch: Batch) -> tuple[Tree, dict]:
        """The policy after its step, and the step's metrics. Parameters are one vector here."""
        old = self._policy(params, batch)
        old_log_prob = old.log_prob(batch.action)

        def measure(vector: Array) -> tuple[Array, Array]:
            """The surrogate objective and the KL divergence of equation 14."""
            new = self._policy(unflatten(vector, params), batch)
            ratio = jnp.exp(new.log_prob(batch.action) - old_log_prob)
            return jnp.mean(ratio * batch.advantage), jnp.mean(old.kl(new))

        start = flatten(params)
        gradient = jax.grad(lambda vector: measure(vector)[0])(start)
        step = natural_step(
            lambda vector: measure(vector)[1],
            start,
            gradient,
            self.kl_target,
            self.damping,
            self.conjugate_gradient_steps,
        )
        vector, found = line_search(
            measure, start, step, self.kl_target, self.line_search_decay, self.line_search_steps
        )
        metrics = {
            "surrogate_gain": found.gain,
            "kl": found.kl,
            "line_search_fraction": found.fraction,
            "entropy": jnp.mean(old.entropy()),
            "grad_gnorm": jnp.linalg.norm(gradient),
        }
        return unflatten(vector, params), metrics

    def _fit(self, state: TRPOState, batch: Batch, key: Key, lr: Array) -> tuple[Tree, AdamState, Array]:
        """The value function after some epochs of minibatches, its optimiser, and the mean squared error."""
        length, number = batch.target.shape
        orders = minibatch_orders(key, self.num_epochs, number, self.minibatch_size // length)
        like = batch._replace(carry=())
        packed = pack(like, leading=2)

        def step(carried: tuple[Tree, AdamState], order: Array) -> tuple[tuple[Tree, AdamState], Array]:
            value, optimizer = carried
            minibatch, carry = take(packed, batch.carry, order, like)
            loss, gradients = jax.value_and_grad(self._value_loss)(value, minibatch._replace(carry=carry))
            value, optimizer, _ = adam(value, gradients, optimizer, lr)
            return (value, optimizer), loss

        (value, optimizer), losses = jax.lax.scan(step, (state.value, state.optimizer), orders)
        return value, optimizer, jnp.mean(losses)

    def _policy(self, params: Tree, batch: Batch) -> Distribution:
        model = Separate(self.model, names=("policy",))
        _, outputs, _ = apply_actor_critic(model, params, batch.carry, batch.obs, batch.first)
        return legal_distribution(self.spec, outputs, batch.mask)

    def _value_loss(self, value: Tree, batch: Batch) -> Array:
        _, heads = self.model.apply(value, batch.carry["value"], batch.obs, batch.first)
        return jnp.mean(jnp.square(heads["value"][..., 0] - batch.target))


def joined(policy: Tree, value: Tree) -> Tree:
    """Both networks as the parameters of one actor-critic."""
    return {**policy, "network": {**policy["network"], "value": value}}


class TRPOConfig(OnPolicyConfig):
    """Configuration of TRPO: `TRPOConfig().environment("CartPole-v1").training(kl_target=0.02).build()`."""

    algorithm_name = "TRPO"
    summary = "the largest step along the natural gradient within a bound on the policy's change"
    paper = "Schulman et al. 2015, arXiv:1502.05477"
    agent_class = TRPO
    defaults: ClassVar[dict[str, Any]] = {"normalize_rewards": True}  # values of unlike size need rates of their own

    def agent_parts(self) -> dict[str, Any]:
        """One network, which policy and value function have a copy of each.

        Raises ValueError where they were to share layers: a step of one would move the other.
        """
        if self.model.get("vf_share_layers"):
            raise ValueError(
                "TRPO: model={'vf_share_layers': True} does not fit: the value function is fitted apart from the "
                "policy, whose step is bounded; leave vf_share_layers out"
            )
        return {**super().agent_parts(), "model": make_model({**self.model, "vf_share_layers": True})}
