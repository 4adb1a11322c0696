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

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from athlete.algorithms.on_policy import Batch, OnPolicy
from athlete.core import Array, Key, Model, Transition, Tree, hyper
from athlete.core.ranges import Fraction, NonNegativeFloat, PositiveInt
from athlete.distributions import Distribution
from athlete.models.actor_critic import apply_actor_critic, init_actor_critic, legal_distribution
from athlete.models.catalog import make_model
from athlete.models.mlp import MLP
from athlete.models.separate import Separate
from athlete.ops.gradient import Adam, AdamState, adam_init
from athlete.ops.schedule import value_at
from athlete.ops.sequences import minibatches
from athlete.ops.statistics import explained_variance, weighted_mean
from athlete.ops.tree import flatten, unflatten
from athlete.ops.trust_region import line_search, natural_step
from athlete.settings.families import OnPolicyConfig


class TRPOState(NamedTuple):
    """The state of a `TRPO`."""

    policy: Tree  # its network and, for a Box, its log standard deviations
    value: Tree  # the value function's network
    optimizer: AdamState  # of the value function


@hyper
class TRPO(OnPolicy):
    """Hyperparameters of TRPO under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    kl_target: NonNegativeFloat = 0.01  # delta of equation 14: the largest mean KL of an update
    lambda_: Fraction = 0.97
    conjugate_gradient_steps: PositiveInt = 10
    damping: NonNegativeFloat = 0.1
    line_search_steps: PositiveInt = 10  # attempts, the full step among them; then the policy stays as it was
    line_search_decay: Fraction = 0.8  # of the step from one attempt to the next
    minibatch_size: PositiveInt = 128  # timesteps, of the value function, as are the next and `lr`
    num_epochs: PositiveInt = 10
    model: Model = MLP()  # of the policy, and of the value function

    def init(self, key: Key) -> TRPOState:
        params = init_actor_critic(self._network(), key, self.spec, self.free_log_std, self.log_std_init)
        value = params["network"].pop("value")
        return TRPOState(params, value, adam_init(value, self.optimizer))

    def view(self, state: TRPOState, progress: Array) -> Tree:
        return joined(state.policy, state.value)

    def _network(self) -> Model:
        return Separate(self.model)

    def update(self, state: TRPOState, batch: Transition, key: Key, progress: Array) -> tuple[TRPOState, dict]:
        """The key is for the order of the value function's minibatches."""
        sequences = self._prepare(state, batch)
        policy, metrics = self._improve(state.policy, sequences)
        lr = value_at(self.lr, progress)
        value, optimizer, vf_loss = self._fit(state, sequences, key, lr)
        explained = explained_variance(sequences.target, sequences.value, sequences.weight)
        return TRPOState(policy, value, optimizer), metrics | {
            "vf_loss": vf_loss,
            "vf_explained_var": explained,
            "cur_lr": lr,
        }

    def _prepare(self, state: TRPOState, batch: Transition) -> Batch:
        """Advantages and targets under the acting parameters, and the batch cut into sequences."""
        return self._sequences(joined(state.policy, state.value), batch, self.lambda_, standardize=True)

    def _improve(self, params: Tree, batch: Batch) -> tuple[Tree, dict]:
        """The policy after its step, and the step's metrics. Parameters are one vector here."""
        old = self._policy(params, batch)
        old_log_prob = old.log_prob(batch.action)

        def measure(vector: Array) -> tuple[Array, Array]:
            """The surrogate objective and the KL divergence of equation 14."""
            new = self._policy(unflatten(vector, params), batch)
            ratio = jnp.exp(new.log_prob(batch.action) - old_log_prob)
            return weighted_mean(ratio * batch.advantage, batch.weight), weighted_mean(old.kl(new), batch.weight)

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
            "entropy": weighted_mean(old.entropy(), batch.weight),
            "grad_gnorm": jnp.linalg.norm(gradient),
        }
        return unflatten(vector, params), metrics

    def _fit(self, state: TRPOState, batch: Batch, key: Key, lr: Array) -> tuple[Tree, AdamState, Array]:
        """The value function after some epochs of minibatches, its optimiser, and the mean squared error."""
        orders, gather = minibatches(batch, key, self.num_epochs, self.minibatch_size)

        def step(carried: tuple[Tree, AdamState], order: Array) -> tuple[tuple[Tree, AdamState], Array]:
            value, optimizer = carried
            loss, gradients = jax.value_and_grad(self._value_loss)(value, gather(order))
            value, optimizer, _ = Adam(grad_clip=None, instead=self.optimizer).step(value, gradients, optimizer, lr)
            return (value, optimizer), loss

        (value, optimizer), losses = jax.lax.scan(step, (state.value, state.optimizer), orders)
        return value, optimizer, jnp.mean(losses)

    def _policy(self, params: Tree, batch: Batch) -> Distribution:
        model = Separate(self.model, names=("policy",))
        _, outputs, _ = apply_actor_critic(model, params, batch.carry, batch.obs, batch.first)
        return legal_distribution(self.spec, outputs, batch.mask)

    def _value_loss(self, value: Tree, batch: Batch) -> Array:
        _, heads = self.model.apply(value, batch.carry["value"], batch.obs, batch.first)
        return weighted_mean(jnp.square(heads["value"][..., 0] - batch.target), batch.weight)


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
