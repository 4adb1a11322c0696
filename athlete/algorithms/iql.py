"""Implicit Q-learning (Kostrikov et al. 2021, arXiv:2110.06169): values of recorded actions alone.

No action is ever asked for that is not in the data. V(s) is an expectile of Q'(s, a) over the actions that were taken
(equation 5): for `expectile` near 1 it is near the best of them. The critics learn towards r + gamma V(s') (equation
6), and the policy clones what was done, each step weighed by exp(beta (Q'(s, a) - V(s))) (equation 7). An update steps
V first, as the authors' code does.

The policy is a normal distribution around a mean in [-1, 1], with one standard deviation for each entry of an action,
as in the authors' code; for discrete actions it is categorical, and Q has a value for each action.

Departures:

- half the squared error is minimised by the critics, and added over both.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Agent, Array, Key, Memory, Model, Spec, Transition, Tree, hyper
from athlete.core.ranges import Fraction, Limit, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from athlete.distributions import flat_action, shape_action
from athlete.memory.replay import Replay
from athlete.models.actors import cloning_policy, init_cloning_actor, within_bounds
from athlete.models.critics import critic_values, init_critics
from athlete.models.forward import forward
from athlete.models.mlp import MLP
from athlete.ops.features import features
from athlete.ops.gradient import Adam, AdamState, adam_init
from athlete.ops.masks import action_mask
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.td import n_step_transition, td_error
from athlete.ops.values import batched_index, half_square, periodic_update
from athlete.settings.families import ActorCriticConfig
from athlete.spaces import Discrete, require_kind


class IQLState(NamedTuple):
    """The state of an `IQL`."""

    actor: Tree  # {"network": ..., "log_std": [m] where actions are continuous}
    critics: list[Tree]
    targets: list[Tree]  # in the shapes of the critics
    value: Tree
    actor_optimizer: AdamState
    critic_optimizer: AdamState  # of all critics
    value_optimizer: AdamState
    since_sync: Array  # float32 scalar: timesteps since the targets were updated


@hyper
class IQL(Agent):
    """Hyperparameters of IQL under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    serves = ("continuous", "discrete")

    actor_lr: NonNegativeFloat | Schedule = 3e-4
    critic_lr: NonNegativeFloat | Schedule = 3e-4
    value_lr: NonNegativeFloat | Schedule = 3e-4
    gamma: Fraction = 0.99
    beta: NonNegativeFloat = 3.0  # how much more a better step counts for the policy
    expectile: Fraction = 0.7  # of the values of what was done; 0.5: their mean
    max_weight: PositiveFloat = 100.0  # of a step for the policy
    twin_q: bool = True  # the smaller value of two critics counts
    tau: Fraction = 0.005  # how far the target critics move at each of their updates
    n_step: PositiveInt = 1
    grad_clip: Limit | None = None  # of the global norm, of each network apart
    target_network_update_freq: NonNegativeFloat = 0.0  # timesteps between two moves of the targets; 0: every update
    num_steps_sampled_before_learning_starts: NonNegativeInt = 1500  # timesteps, in an environment
    random_timesteps: int = 0
    timesteps_per_update: float = 1.0
    policy_model: Model = MLP((256, 256), "relu")
    q_model: Model = MLP((256, 256), "relu")
    memory: Memory = Replay()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> IQL:
        require_kind(type(self).__name__, self.serves, spec.action)
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> IQLState:
        """The key is split in three: for the actor, the critics and the values of states."""
        actor_key, critic_key, value_key = jax.random.split(key, 3)
        actor = init_cloning_actor(self.policy_model, actor_key, self.spec)
        critics = init_critics(self.q_model, critic_key, self.spec.obs, self.spec.action, 2 if self.twin_q else 1)
        value = self.q_model.init(value_key, self.spec.obs, {"v": (1, 1.0)})
        optimizers = adam_init(actor), adam_init(critics), adam_init(value)
        return IQLState(actor, critics, jax.tree.map(jnp.copy, critics), value, *optimizers, jnp.zeros(()))

    def view(self, state: IQLState, progress: Array) -> Tree:
        return state.actor

    def act(self, view: Tree, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        """The key is for sampling actions."""
        policy = self.distribution(view, carry, obs, first)
        action = within_bounds(self.spec, policy.sample(key) if explore else policy.mode())
        return shape_action(self.spec.action, action), carry, {}

    def distribution(self, view: Tree, carry: Tree, obs: Tree, first: Array) -> Any:
        return self._policy(view, features(self.spec.obs, obs), action_mask(self.spec, obs))

    def update(self, state: IQLState, batch: Transition, key: Key, progress: Array) -> tuple[IQLState, dict]:
        """The key is not used: nothing here is random."""
        step = n_step_transition(batch, self.spec, self.gamma)
        action = flat_action(self.spec.action, step.action)
        value = jnp.min(self._values(state.targets, step.obs, action), axis=0)

        def value_losses(params: Tree) -> tuple[Array, None]:
            error = value - self._state_value(params, step.obs)
            return jnp.where(error > 0.0, self.expectile, 1.0 - self.expectile) * jnp.square(error), None

        adam, weight = Adam(self.grad_clip), step.weight
        rates = [value_at(rate, progress) for rate in (self.actor_lr, self.critic_lr, self.value_lr)]
        values = adam.minimize(value_losses, state.value, state.value_optimizer, rates[2], weight)
        advantage = value - self._state_value(values.params, step.obs)
        next_value = self._state_value(values.params, step.next_obs)

        def policy_losses(actor: Tree) -> tuple[Array, Array]:
            weight = jnp.minimum(jnp.exp(self.beta * advantage), self.max_weight)
            policy = self._policy(actor, step.obs, step.mask)
            return -weight * policy.log_prob(action), weight

        def critic_losses(critics: list[Tree]) -> tuple[Array, tuple[Array, Array]]:
            values = self._values(critics, step.obs, action)
            error = td_error(values, step, next_value)
            return jnp.sum(half_square(error), axis=0), (values, error)

        actor = adam.minimize(policy_losses, state.actor, state.actor_optimizer, rates[0], weight)
        critics = adam.minimize(critic_losses, state.critics, state.critic_optimizer, rates[1], weight)
        since = state.since_sync + self.timesteps_per_update
        targets, since = periodic_update(
            state.targets, critics.params, self.tau, since, self.target_network_update_freq
        )
        mean_q, error = critics.aux
        metrics = {
            "actor_loss": actor.loss,
            "critic_loss": critics.loss,
            "value_loss": values.loss,
            "mean_q": jnp.mean(mean_q),
            "mean_td_error": jnp.mean(error),
            "mean_advantage": jnp.mean(advantage),
            "mean_weight": jnp.mean(actor.aux),
            "grad_gnorm": critics.norm,
            "td_error": jnp.mean(jnp.abs(error), axis=0),
        }
        optimizers = actor.state, critics.state, values.state
        return IQLState(actor.params, critics.params, targets, values.params, *optimizers, since), metrics

    def _policy(self, actor: Tree, obs: Array, mask: Array | None) -> Any:
        """The distribution over flat canonical actions at features `[B, n]`, of those that `mask` allows."""
        return cloning_policy(self.policy_model, actor, self.spec, obs, mask)

    def _values(self, critics: list[Tree], obs: Array, action: Array) -> Array:
        """Values of the actions given, `[critics, B]`."""
        if not isinstance(self.spec.action, Discrete):
            return critic_values(self.q_model, critics, obs, action)[..., 0]
        return jnp.stack([batched_index(forward(self.q_model, critic, obs)["q"], action) for critic in critics])

    def _state_value(self, params: Tree, obs: Array) -> Array:
        """What states are worth, `[B]`."""
        return forward(self.q_model, params, obs)["v"][..., 0]


class IQLConfig(ActorCriticConfig):
    """Configuration of IQL: `IQLConfig().offline_data(input_="data.safetensors").training(expectile=0.9).build()`."""

    algorithm_name = "IQL"
    summary = "values of recorded actions alone, near the best of them, and a policy that clones those"
    paper = "Kostrikov et al. 2021, arXiv:2110.06169"
    agent_class = IQL
    offline = True
    exploration_types = ("StochasticSampling",)
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 1,
        "train_batch_size": 256,
        "min_sample_timesteps_per_iteration": 256_000,
        "model": {"fcnet_hiddens": [256, 256], "fcnet_activation": "relu"},
        "replay_buffer_config": {"type": "ReplayBuffer", "capacity": 1_000_000},
    }
