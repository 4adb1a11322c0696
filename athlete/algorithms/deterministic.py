"""What deterministic actor-critics share: settings, acting with noise, the targets' next actions, and the steps of
critics, actor and target networks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp

from athlete.core import ActingCarry, Agent, Array, Key, Memory, Model, Spec, Transition, Tree, hyper
from athlete.core.ranges import Fraction, Limit, NonNegativeFloat, NonNegativeInt, PositiveInt
from athlete.distributions import flat_action, shape_action
from athlete.exploration import ActingView, Exploration, GaussianNoise, action_distance, explored_action
from athlete.memory.replay import Replay
from athlete.models.actors import actor_action, init_actor
from athlete.models.critics import critic_values, init_critics
from athlete.models.mlp import MLP
from athlete.ops.features import features
from athlete.ops.gradient import Adam, AdamState, adam_init
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.td import NStepTransition, every_window, n_step_transition, td_error
from athlete.ops.values import half_square, huber, periodic_update
from athlete.spaces import Box, require_kind

Losses = Callable[[Tree], tuple[Array, Any]]  # of parameters: each sample's loss [B], and anything else


class Networks(NamedTuple):
    """An actor and its critics."""

    actor: Tree
    critics: list[Tree]  # two, or one without `twin_q`


class DeterministicState(NamedTuple):
    """The state of a deterministic actor-critic."""

    online: Networks
    target: Networks  # in the shapes of the online ones
    actor_optimizer: AdamState
    critic_optimizer: AdamState  # its count is that of all updates
    actor_metrics: Array  # float32 [2], of the actor's last update: loss and norm of the gradient
    since_sync: Array  # float32 scalar: timesteps sampled since the targets were updated
    stddev: Array  # float32 scalar: of ParameterNoise; 0 without


@hyper
class DeterministicActorCritic(Agent):
    """The settings of deterministic actor-critics under RLlib's names. An algorithm gives `update`."""

    serves = ("continuous",)
    rates: ClassVar[bool] = True

    actor_lr: NonNegativeFloat | Schedule = 1e-3
    critic_lr: NonNegativeFloat | Schedule = 1e-3
    gamma: Fraction = 0.99
    tau: Fraction = 0.005  # how far the target networks move at each of their updates
    twin_q: bool = True  # two critics, of which targets take the smaller value
    policy_delay: PositiveInt = 2  # updates of the critics for each one of the actor and of the target networks
    smooth_target_policy: bool = True  # targets are values of disturbed actions
    target_noise: NonNegativeFloat = 0.2  # standard deviation of that disturbance, actions being in [-1, 1]
    target_noise_clip: NonNegativeFloat = 0.5  # its largest size
    n_step: PositiveInt = 1
    use_huber: bool = False  # instead of the squared error
    huber_threshold: NonNegativeFloat = 1.0  # the error from which it counts by its size
    l2_reg: NonNegativeFloat | None = None  # penalty on half the squared weights of all networks; None: no penalty
    grad_clip: Limit | None = None  # of the global norm, of the actor's and of the critics' gradient
    target_network_update_freq: NonNegativeFloat = 0.0  # timesteps sampled at least between two updates of the targets
    num_steps_sampled_before_learning_starts: NonNegativeInt = 10_000  # timesteps
    random_timesteps: int = 10_000  # uniformly random actions at the start
    timesteps_per_update: float = 1.0
    exploration: Exploration = GaussianNoise()
    policy_model: Model = MLP((256, 256), "relu")
    q_model: Model = MLP((256, 256), "relu")
    memory: Memory = Replay()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> Self:
        require_kind(type(self).__name__, self.serves, spec.action)
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> DeterministicState:
        """The key is split in two: for the actor, and for the critics."""
        actor_key, critics_key = jax.random.split(key)
        online = Networks(
            init_actor(self.policy_model, actor_key, self.spec.obs, self._box()),
            init_critics(self.q_model, critics_key, self.spec.obs, self._box(), 2 if self.twin_q else 1),
        )
        optimizers = adam_init(online.actor), adam_init(online.critics)
        target = jax.tree.map(jnp.copy, online)
        return DeterministicState(online, target, *optimizers, jnp.zeros(2), jnp.zeros(()), self.exploration.initial())

    def view(self, state: DeterministicState, progress: Array) -> ActingView:
        critics = state.online.critics if self.memory.rated else ()
        return ActingView(state.online.actor, self.exploration.rate(progress), state.stddev, critics)

    def td_errors(self, view: ActingView, trajectory: Transition) -> Array:
        """By the networks of what acts alone: they are their own targets."""
        step = n_step_transition(every_window(trajectory, self.n_step), self.spec, self.gamma)
        next_value = self._least_value(view.critics, step.next_obs, self._policy(view.params, step.next_obs))
        values = self._values(view.critics, step.obs, flat_action(self.spec.action, step.action))
        return jnp.mean(jnp.abs(td_error(values, step, next_value)), axis=0).reshape(trajectory.reward.shape)

    def start(self, view: ActingView, rows: int, key: Key) -> ActingCarry:
        return ActingCarry((), self.exploration.start(rows, self._box().low.size, key))

    def act(
        self, view: ActingView, carry: ActingCarry, obs: Tree, first: Array, key: Key, explore: bool = True
    ) -> tuple:
        """The key is for the exploration's noise."""
        obs = features(self.spec.obs, obs)
        if explore:
            action, carry = explored_action(self.exploration, self._policy, view, carry, first, obs, key)
        else:
            action = self._policy(view.params, obs)
        return shape_action(self.spec.action, action), carry, {}

    def _box(self) -> Box:
        assert isinstance(self.spec.action, Box)
        return self.spec.action

    def _optimizer(self) -> Adam:
        return Adam(self.grad_clip, l2=self.l2_reg)

    def _policy(self, actor: Tree, obs: Array) -> Array:
        """Flat canonical actions `[B, m]` at features `[B, n]`."""
        return actor_action(self.policy_model, actor, obs)

    def _values(self, critics: list[Tree], obs: Array, action: Array) -> Array:
        """What each critic says of flat actions, `[critics, B]`."""
        return critic_values(self.q_model, critics, obs, action)[..., 0]

    def _next_action(self, target: Networks, next_obs: Array, key: Key) -> Array:
        """`[B, m]`: the action that the target network would take next (TD3's equation 14)."""
        action = self._policy(target.actor, next_obs)
        if self.smooth_target_policy:
            noise = self.target_noise * jax.random.normal(key, action.shape)
            noise = jnp.clip(noise, -self.target_noise_clip, self.target_noise_clip)
            action = jnp.clip(action + noise, -1.0, 1.0)
        return action

    def _least_value(self, critics: list[Tree], obs: Array, action: Array) -> Array:
        """`[B]`: the smallest value that a critic gives (TD3's equation 10)."""
        return jnp.min(self._values(critics, obs, action), axis=0)

    def _learn_values(
        self, state: DeterministicState, step: NStepTransition, next_value: Array, progress: Array
    ) -> tuple[DeterministicState, dict[str, Array]]:
        """One step of the critics towards the targets, and this update's timesteps counted."""
        action = flat_action(self.spec.action, step.action)

        def losses_of(critics: list[Tree]) -> tuple[Array, tuple[Array, Array]]:
            values = self._values(critics, step.obs, action)
            error = td_error(values, step, next_value)
            losses = huber(error, self.huber_threshold) if self.use_huber else half_square(error)
            return jnp.sum(losses, axis=0), (values, error)

        lr = value_at(self.critic_lr, progress)
        learned = self._optimizer().minimize(losses_of, state.online.critics, state.critic_optimizer, lr, step.weight)
        values, error = learned.aux
        metrics = {
            "critic_loss": learned.loss,
            "mean_q": jnp.mean(values),
            "mean_td_error": jnp.mean(error),
            "critic_gnorm": learned.norm,
            "td_error": jnp.mean(jnp.abs(error), axis=0),
        }
        online = state.online._replace(critics=learned.params)
        state = state._replace(online=online, critic_optimizer=learned.state)
        return state._replace(since_sync=state.since_sync + self.timesteps_per_update), metrics

    def _delayed(self, improve: Callable, state: DeterministicState, *arguments: Array) -> DeterministicState:
        """`improve(state, *arguments)` at every `policy_delay`-th update.

        By a `cond`, though on a counter: both branches by a `where` took 1.4 times as long with 256 units and batches
        of 100. The count is the same in all seeds of a training that is mapped as a whole: there it stays a branch.
        """
        if self.policy_delay == 1:
            return improve(state, *arguments)
        due = state.critic_optimizer.count % self.policy_delay == 0
        return jax.lax.cond(due, improve, lambda state, *_: state, state, *arguments)

    def _climb(self, state: DeterministicState, losses_of: Losses, progress: Array) -> DeterministicState:
        """One step of the actor down its losses, and of the targets."""
        actor, critics = state.online
        lr = value_at(self.actor_lr, progress)
        learned = self._optimizer().minimize(losses_of, actor, state.actor_optimizer, lr, weight=None)
        online = Networks(learned.params, critics)
        target, since = periodic_update(
            state.target, online, self.tau, state.since_sync, self.target_network_update_freq
        )
        return state._replace(
            online=online,
            target=target,
            actor_optimizer=learned.state,
            actor_metrics=jnp.stack([learned.loss, learned.norm]),
            since_sync=since,
        )

    def _finish(
        self, state: DeterministicState, obs: Array, metrics: dict[str, Array], key: Key, progress: Array
    ) -> tuple[DeterministicState, dict[str, Array]]:
        """What ends an update: ParameterNoise, which the key is for, is adapted; the metrics of all of it."""
        stddev = self.exploration.adapt(
            self._policy, state.online.actor, state.stddev, obs, progress, key, action_distance
        )
        metrics = metrics | {
            "actor_loss": state.actor_metrics[0],
            "actor_gnorm": state.actor_metrics[1],
            "cur_exploration": self.exploration.rate(progress),
        }
        return state._replace(stddev=stddev), metrics
