"""Critic regularised regression (Wang et al. 2020, arXiv:2006.15134): what was done is cloned where a critic likes it.

The policy maximises f(Q, pi, s, a) log pi(a | s) over recorded steps (equation 2), where f is 1 or 0 by whether the
advantage is above 0 (equation 3, `weight_type="bin"`), or exp(A / temperature), at most `max_weight` (equation 4,
`"exp"`). A = Q(s, a) less the mean (equation 5) or the largest (equation 6) of Q at `n_action_sample` actions of the
policy. The critics learn towards r + gamma Q'(s', a'), a' drawn from the target policy; for discrete actions it is the
mean over its next actions.

Departures:

- the policy is a normal distribution around a mean in [-1, 1], as IQL's; the paper's is a mixture of normal ones;
- critics have one expected value where the paper has a distribution of returns, as RLlib's;
- the smaller value of two critics counts (`twin_q`);
- RLlib's `advantage_type="expectile"` is not there;
- half the squared error is minimised, and added over critics.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple

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
from athlete.ops.td import NStepTransition, n_step_transition, td_error
from athlete.ops.values import batched_index, half_square, periodic_update
from athlete.settings.families import ActorCriticConfig
from athlete.spaces import Discrete, require_kind


class ActorAndCritics(NamedTuple):
    """A random policy and its critics."""

    actor: Tree
    critics: list[Tree]


class CRRState(NamedTuple):
    """The state of a `CRR`."""

    online: ActorAndCritics
    target: ActorAndCritics  # in the shapes of the online ones
    actor_optimizer: AdamState
    critic_optimizer: AdamState  # of all critics
    since_sync: Array  # float32 scalar: timesteps since the targets were updated


@hyper
class CRR(Agent):
    """Hyperparameters of CRR under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    serves = ("continuous", "discrete")

    actor_lr: NonNegativeFloat | Schedule = 3e-4
    critic_lr: NonNegativeFloat | Schedule = 3e-4
    gamma: Fraction = 0.99
    weight_type: Literal["bin", "exp"] = "bin"  # what a step counts: 1 or 0, or the exponential of its advantage
    advantage_type: Literal["mean", "max"] = "mean"  # what an action is compared with, of those of the policy
    temperature: PositiveFloat = 1.0  # of the exponential
    max_weight: PositiveFloat = 20.0  # the most that a step counts by it
    n_action_sample: PositiveInt = 4  # actions of the policy
    twin_q: bool = True  # the smaller value of two critics counts
    tau: Fraction = 0.005  # how far the target networks move at each of their updates
    n_step: PositiveInt = 1
    grad_clip: Limit | None = None  # of the global norm, actor and critics apart
    target_network_update_freq: NonNegativeFloat = 0.0  # timesteps between two moves of the targets; 0: every update
    num_steps_sampled_before_learning_starts: NonNegativeInt = 1500  # timesteps, in an environment
    random_timesteps: int = 0
    timesteps_per_update: float = 1.0
    policy_model: Model = MLP((256, 256), "relu")
    q_model: Model = MLP((256, 256), "relu")
    memory: Memory = Replay()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> CRR:
        require_kind(type(self).__name__, self.serves, spec.action)
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> CRRState:
        """The key is split in two: for the actor, and for the critics."""
        actor_key, critic_key = jax.random.split(key)
        actor = init_cloning_actor(self.policy_model, actor_key, self.spec)
        critics = init_critics(self.q_model, critic_key, self.spec.obs, self.spec.action, 2 if self.twin_q else 1)
        online = ActorAndCritics(actor, critics)
        target = jax.tree.map(jnp.copy, online)
        return CRRState(online, target, adam_init(actor), adam_init(critics), jnp.zeros(()))

    def view(self, state: CRRState, progress: Array) -> Tree:
        return state.online.actor

    def act(self, view: Tree, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        """The key is for sampling actions."""
        policy = self.distribution(view, carry, obs, first)
        action = within_bounds(self.spec, policy.sample(key) if explore else policy.mode())
        return shape_action(self.spec.action, action), carry, {}

    def distribution(self, view: Tree, carry: Tree, obs: Tree, first: Array) -> Any:
        return self._policy(view, features(self.spec.obs, obs), action_mask(self.spec, obs))

    def update(self, state: CRRState, batch: Transition, key: Key, progress: Array) -> tuple[CRRState, dict]:
        """The key is split in two: for the next actions, and for those that advantages are measured by."""
        next_key, sample_key = jax.random.split(key)
        step = n_step_transition(batch, self.spec, self.gamma)
        action = flat_action(self.spec.action, step.action)
        next_value = self._next_value(state.target, step, next_key)
        actor, critics = state.online

        def critic_losses(critics: list[Tree]) -> tuple[Array, tuple[Array, Array]]:
            values = self._values(critics, step.obs, action)
            error = td_error(values, step, next_value)
            return jnp.sum(half_square(error), axis=0), (values, error)

        adam, weight = Adam(self.grad_clip), step.weight
        rates = [value_at(rate, progress) for rate in (self.actor_lr, self.critic_lr)]
        critic = adam.minimize(critic_losses, critics, state.critic_optimizer, rates[1], weight)
        advantage = self._advantage(actor, critic.params, step, action, sample_key)
        if self.weight_type == "bin":
            counts = (advantage > 0.0).astype(jnp.float32)
        else:
            counts = jnp.minimum(jnp.exp(advantage / self.temperature), self.max_weight)

        def policy_losses(actor: Tree) -> tuple[Array, None]:
            return -counts * self._policy(actor, step.obs, step.mask).log_prob(action), None

        learned = adam.minimize(policy_losses, actor, state.actor_optimizer, rates[0], weight)
        online = ActorAndCritics(learned.params, critic.params)
        since = state.since_sync + self.timesteps_per_update
        target, since = periodic_update(state.target, online, self.tau, since, self.target_network_update_freq)
        values, error = critic.aux
        metrics = {
            "actor_loss": learned.loss,
            "critic_loss": critic.loss,
            "mean_q": jnp.mean(values),
            "mean_td_error": jnp.mean(error),
            "mean_advantage": jnp.mean(advantage),
            "mean_weight": jnp.mean(counts),
            "grad_gnorm": critic.norm,
            "td_error": jnp.mean(jnp.abs(error), axis=0),
        }
        return CRRState(online, target, learned.state, critic.state, since), metrics

    def _next_value(self, target: ActorAndCritics, step: NStepTransition, key: Key) -> Array:
        """What the target critics say of the target policy's next action, `[B]`; of discrete ones the mean."""
        policy = self._policy(target.actor, step.next_obs, step.next_mask)
        if isinstance(self.spec.action, Discrete):
            values = jnp.min(self._all_values(target.critics, step.next_obs), axis=0)
            return jnp.sum(jax.nn.softmax(policy.logits) * values, axis=-1)
        return jnp.min(
            self._values(target.critics, step.next_obs, within_bounds(self.spec, policy.sample(key))), axis=0
        )

    def _advantage(self, actor: Tree, critics: list[Tree], step: NStepTransition, action: Array, key: Key) -> Array:
        """Of what was done over actions of the policy, `[B]`."""
        policy = self._policy(actor, step.obs, step.mask)
        keys = jax.random.split(key, self.n_action_sample)
        sampled = within_bounds(self.spec, jnp.concatenate([policy.sample(each) for each in keys]))
        obs = jnp.tile(step.obs, (self.n_action_sample, 1))
        others = jnp.min(self._values(critics, obs, sampled), axis=0).reshape(self.n_action_sample, -1)
        compared = jnp.mean(others, axis=0) if self.advantage_type == "mean" else jnp.max(others, axis=0)
        return jnp.min(self._values(critics, step.obs, action), axis=0) - compared

    def _policy(self, actor: Tree, obs: Array, mask: Array | None) -> Any:
        """The distribution over flat canonical actions at features `[B, n]`, of those that `mask` allows."""
        return cloning_policy(self.policy_model, actor, self.spec, obs, mask)

    def _values(self, critics: list[Tree], obs: Array, action: Array) -> Array:
        """Values of the actions given, `[critics, B]`."""
        if not isinstance(self.spec.action, Discrete):
            return critic_values(self.q_model, critics, obs, action)[..., 0]
        return jnp.stack([batched_index(values, action) for values in self._all_values(critics, obs)])

    def _all_values(self, critics: list[Tree], obs: Array) -> Array:
        """Values of all discrete actions, `[critics, B, n]`."""
        return jnp.stack([forward(self.q_model, critic, obs)["q"] for critic in critics])


class CRRConfig(ActorCriticConfig):
    """Configuration of CRR: `CRRConfig().offline_data(input_="data.json").training(weight_type="exp").build()`."""

    algorithm_name = "CRR"
    summary = "behaviour cloning of what a critic likes"
    paper = "Wang et al. 2020, arXiv:2006.15134"
    agent_class = CRR
    offline = True
    exploration_types = ("StochasticSampling",)
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 1,
        "train_batch_size": 128,
        "min_sample_timesteps_per_iteration": 128_000,
        "model": {"fcnet_hiddens": [256, 256], "fcnet_activation": "relu"},
        "replay_buffer_config": {"type": "ReplayBuffer", "capacity": 1_000_000},
    }
