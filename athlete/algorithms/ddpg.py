"""Deep Deterministic Policy Gradient (Lillicrap et al. 2016, arXiv:1509.02971).

Algorithm 1: the critic learns the value of the actor's next action by the target networks, and the actor climbs the
critic's value (equation 6, the deterministic policy gradient of Silver et al. 2014). Defaults are RLlib's.

Departures:

- a truncated episode is bootstrapped from its true last observation; n-step returns (Sutton & Barto 2018, equation
  7.1), prioritised replay, the Huber loss and gradient clipping are RLlib's options;
- the penalty on the weights is on those of both networks, and small; the paper's is 1e-2 and on the critic's alone;
- no batch normalisation; the critic sees actions from its first layer on, the paper's from its second;
- the last layers start as small as the actor's need (normal instead of uniform numbers), the critic's do not;
- half the squared error is minimised, as by RLlib: with Adam only `l2_reg` and `grad_clip` can tell.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import ActingCarry, Agent, Array, Key, Memory, Model, Spec, Transition, Tree, hyper
from athlete.core.ranges import Fraction, Limit, NonNegativeFloat, NonNegativeInt, PositiveInt
from athlete.distributions import flat_action, shape_action
from athlete.exploration import ActingView, Exploration, OrnsteinUhlenbeckNoise, action_distance, explored_action
from athlete.memory.replay import Replay
from athlete.models.actors import actor_action, init_actor
from athlete.models.critics import critic_values, init_critics
from athlete.models.mlp import MLP
from athlete.ops.features import features
from athlete.ops.gradient import AdamState, adam, adam_init, l2_penalized
from athlete.ops.returns import at_step, n_step_return
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.values import huber, periodic_update
from athlete.settings.families import ActorCriticConfig
from athlete.spaces import Box, require_kind


class Networks(NamedTuple):
    actor: Tree
    critic: list[Tree]  # one


class DDPGState(NamedTuple):
    online: Networks
    target: Networks
    actor_optimizer: AdamState
    critic_optimizer: AdamState
    since_sync: Array  # timesteps sampled since the targets were updated
    stddev: Array  # of ParameterNoise; 0 without


@hyper
class DDPG(Agent):
    """Hyperparameters of DDPG under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    serves = ("continuous",)

    actor_lr: NonNegativeFloat | Schedule = 1e-3
    critic_lr: NonNegativeFloat | Schedule = 1e-3
    gamma: Fraction = 0.99
    tau: Fraction = 0.002  # how far the target networks move at each of their updates
    n_step: PositiveInt = 1
    use_huber: bool = False  # instead of the squared error
    huber_threshold: NonNegativeFloat = 1.0  # the error from which it counts by its size
    l2_reg: NonNegativeFloat | None = 1e-6  # penalty on half the squared weights of both networks; None: no penalty
    grad_clip: Limit | None = None  # of the global norm, of the actor's and of the critic's gradient
    target_network_update_freq: NonNegativeFloat = 0.0  # timesteps sampled at least between two updates of the targets
    num_steps_sampled_before_learning_starts: NonNegativeInt = 1500  # timesteps
    random_timesteps: int = 1000  # uniformly random actions at the start
    timesteps_per_update: float = 1.0
    exploration: Exploration = OrnsteinUhlenbeckNoise()
    policy_model: Model = MLP((256, 256), "relu")
    q_model: Model = MLP((256, 256), "relu")
    memory: Memory = Replay()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> DDPG:
        require_kind(type(self).__name__, self.serves, spec.action)
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> DDPGState:
        actor_key, critic_key = jax.random.split(key)
        online = Networks(
            init_actor(self.policy_model, actor_key, self.spec.obs, self._box()),
            init_critics(self.q_model, critic_key, self.spec.obs, self._box(), 1),
        )
        optimizers = adam_init(online.actor), adam_init(online.critic)
        target = jax.tree.map(jnp.copy, online)
        return DDPGState(online, target, *optimizers, jnp.zeros(()), self.exploration.initial())

    def view(self, state: DDPGState, progress: Array) -> ActingView:
        return ActingView(state.online.actor, self.exploration.level(progress), state.stddev)

    def start(self, view: ActingView, rows: int, key: Key) -> ActingCarry:
        return ActingCarry((), self.exploration.start(rows, self._box().low.size, key))

    def act(
        self, view: ActingView, carry: ActingCarry, obs: Tree, first: Array, key: Key, explore: bool = True
    ) -> tuple:
        obs = features(self.spec.obs, obs)
        if explore:
            action, carry = explored_action(self.exploration, self._policy, view, carry, first, obs, key)
        else:
            action = self._policy(view.params, obs)
        return shape_action(self.spec.action, action), carry, {}

    def update(self, state: DDPGState, batch: Transition, key: Key, progress: Array) -> tuple[DDPGState, dict]:
        obs = features(self.spec.obs, jax.tree.map(lambda leaf: leaf[0], batch.obs))
        critic, critic_optimizer, measured = self._learn_values(state, batch, obs, progress)
        actor, actor_optimizer, more = self._learn_actions(state, critic, obs, progress)
        online = Networks(actor, critic)
        since = state.since_sync + self.timesteps_per_update
        target, since = periodic_update(state.target, online, self.tau, since, self.target_network_update_freq)
        stddev = self.exploration.adapt(self._policy, actor, state.stddev, obs, progress, key, action_distance)
        metrics = {**measured, **more, "cur_exploration": self.exploration.level(progress)}
        return DDPGState(online, target, actor_optimizer, critic_optimizer, since, stddev), metrics

    def _box(self) -> Box:
        assert isinstance(self.spec.action, Box)
        return self.spec.action

    def _policy(self, actor: Tree, obs: Array) -> Array:
        return actor_action(self.policy_model, actor, obs)

    def _value(self, critic: list[Tree], obs: Array, action: Array) -> Array:
        return critic_values(self.q_model, critic, obs, action)[0, :, 0]

    def _target(self, state: DDPGState, batch: Transition) -> Array:
        """`[B]`: y of algorithm 1, what the critic should have said."""
        steps = n_step_return(batch, self.gamma)
        next_obs = features(self.spec.obs, at_step(batch.next_obs, steps.last))
        action = self._policy(state.target.actor, next_obs)
        return steps.return_ + steps.discount * self._value(state.target.critic, next_obs, action)

    def _learn_values(
        self, state: DDPGState, batch: Transition, obs: Array, progress: Array
    ) -> tuple[list[Tree], AdamState, dict]:
        """One step of the critic towards the targets."""
        target = self._target(state, batch)
        action = flat_action(self.spec.action, batch.action[0])
        weight = batch.extras["weight"][0] if "weight" in batch.extras else jnp.ones(target.shape)

        def loss_of(critic: list[Tree]) -> tuple[Array, Array]:
            value = self._value(critic, obs, action)
            error = value - target
            loss = huber(error, self.huber_threshold) if self.use_huber else 0.5 * error * error
            return jnp.mean(weight * loss), value

        (loss, value), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.online.critic)
        gradients = l2_penalized(gradients, state.online.critic, self.l2_reg)
        lr = value_at(self.critic_lr, progress)
        critic, optimizer, norm = adam(state.online.critic, gradients, state.critic_optimizer, lr, self.grad_clip)
        metrics = {
            "critic_loss": loss,
            "mean_q": jnp.mean(value),
            "mean_td_error": jnp.mean(value - target),
            "critic_gnorm": norm,
            "td_error": jnp.abs(value - target),
        }
        return critic, optimizer, metrics

    def _learn_actions(
        self, state: DDPGState, critic: list[Tree], obs: Array, progress: Array
    ) -> tuple[Tree, AdamState, dict]:
        """One step of the actor up the critic's value (equation 6)."""

        def loss_of(actor: Tree) -> Array:
            return -jnp.mean(self._value(critic, obs, self._policy(actor, obs)))

        loss, gradients = jax.value_and_grad(loss_of)(state.online.actor)
        gradients = l2_penalized(gradients, state.online.actor, self.l2_reg)
        lr = value_at(self.actor_lr, progress)
        actor, optimizer, norm = adam(state.online.actor, gradients, state.actor_optimizer, lr, self.grad_clip)
        return actor, optimizer, {"actor_loss": loss, "actor_gnorm": norm}


class DDPGConfig(ActorCriticConfig):
    """Configuration of DDPG: `DDPGConfig().environment("Pendulum-v1").training(actor_lr=3e-4).build()`."""

    algorithm_name = "DDPG"
    summary = "a deterministic actor that climbs its critic"
    paper = "Lillicrap et al. 2016, arXiv:1509.02971"
    agent_class = DDPG
    exploration_types = ("OrnsteinUhlenbeckNoise", "GaussianNoise", "ParameterNoise")
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 1,
        "train_batch_size": 256,
        "min_sample_timesteps_per_iteration": 1000,
        "model": {"fcnet_hiddens": [256, 256], "fcnet_activation": "relu"},
        "replay_buffer_config": {"type": "PrioritizedReplayBuffer", "capacity": 50_000},
        "exploration_config": {"type": "OrnsteinUhlenbeckNoise", "random_timesteps": 1000},
    }
