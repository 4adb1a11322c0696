"""Implicit quantile networks (IQN; Dabney et al. 2018, arXiv:1806.06923): Q-learning with a function of the fraction.

Where QR-DQN learns quantiles at fixed fractions, this network takes a fraction tau and gives its quantile: the torso's
features times an embedding of tau in cosines (equation 4), then one linear layer. It is trained at N random fractions
against N' samples of the next action's return (equations 2 and 3); an action's value is the mean over K fractions.

Departures:

- values are means over K evenly spaced fractions, not random ones: the same for all actions, and without noise;
- double Q (arXiv:1509.06461), n-step returns and prioritised replay are options of DQN's. The priority is the error of
  the expected return;
- a truncated episode is bootstrapped from its true last observation; gradients are clipped by their global norm.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Agent, Array, Key, Memory, Model, Spec, Transition, Tree, hyper
from athlete.exploration import ActingView, EpsilonGreedy, Exploration, greedy
from athlete.memory.replay import Replay
from athlete.models.dense import Layer, dense, init_layers
from athlete.models.forward import forward
from athlete.models.mlp import MLP
from athlete.ops.features import features
from athlete.ops.gradient import AdamState, adam, adam_init
from athlete.ops.masks import action_mask
from athlete.ops.quantile import midpoints, quantile_huber
from athlete.ops.returns import at_step, n_step_return
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.values import of_action, sync_target
from athlete.settings.families import ReplayConfig
from athlete.spaces import Discrete, require_kind

COSINES = 64  # n of equation 4


class IQNState(NamedTuple):
    params: Tree
    target: Tree
    optimizer: AdamState
    since_sync: Array  # timesteps sampled since the target was updated


@hyper
class IQN(Agent):
    """Hyperparameters of IQN under RLlib's names of DQN's. Floats and schedules are traced."""

    serves = ("discrete",)

    lr: float | Schedule = 5e-4
    gamma: float = 0.99
    adam_epsilon: float = 3.125e-4  # 0.01 / 32
    grad_clip: float | None = 40.0  # of the global norm
    num_fractions: int = 16  # N, of the online network in the loss; 64 in the paper
    num_target_fractions: int = 16  # N', of the target network in the loss; 64 in the paper
    num_acting_fractions: int = 32  # K, that an action's value is the mean over
    embedding_size: int = 64  # of features and of a fraction
    kappa: float = 1.0  # errors within it count by their square, larger ones by their size
    double_q: bool = False  # the online network chooses the next action, the target network values it
    n_step: int = 1
    tau: float = 1.0  # how far the target network moves at each of its updates
    target_network_update_freq: float = 500.0  # timesteps sampled between two of them
    num_steps_sampled_before_learning_starts: int = 1000  # timesteps
    random_timesteps: int = 0  # uniformly random actions at the start
    timesteps_per_update: float = 1.0
    exploration: Exploration = EpsilonGreedy()
    model: Model = MLP()
    memory: Memory = Replay()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> IQN:
        require_kind(type(self).__name__, self.serves, spec.action)
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> IQNState:
        torso_key, key = jax.random.split(key)
        size = self.embedding_size
        fraction, values = init_layers(key, [Layer(COSINES, size, math.sqrt(2.0)), Layer(size, self._actions(), 1.0)])
        torso = self.model.init(torso_key, self.spec.obs, {"features": (size, math.sqrt(2.0))})
        params = {"torso": torso, "fraction": fraction, "values": values}
        return IQNState(params, jax.tree.map(jnp.copy, params), adam_init(params), jnp.zeros(()))

    def view(self, state: IQNState, progress: Array) -> ActingView:
        return ActingView(state.params, self.exploration.level(progress))

    def act(self, view: ActingView, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        values = self._values(view.params, features(self.spec.obs, obs))
        mask = action_mask(self.spec, obs)
        return self.exploration.choose(values, view.level, key, mask) if explore else greedy(values, mask), carry, {}

    def update(self, state: IQNState, batch: Transition, key: Key, progress: Array) -> tuple[IQNState, dict]:
        target_key, key = jax.random.split(key)
        target = self._target(state, batch, target_key)
        obs, action = features(self.spec.obs, at_step(batch.obs, jnp.zeros_like(batch.action[0]))), batch.action[0]
        weight = batch.extras["weight"][0] if "weight" in batch.extras else jnp.ones(action.shape)

        fractions = jax.random.uniform(key, (*action.shape, self.num_fractions))

        def loss_of(params: Tree) -> tuple[Array, Array]:
            chosen = of_action(self._quantiles(params, obs, fractions), action)
            loss = quantile_huber(chosen, target, fractions, self.kappa)
            return jnp.mean(weight * loss), chosen

        (loss, chosen), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        lr = value_at(self.lr, progress)
        params, optimizer, norm = adam(
            state.params, gradients, state.optimizer, lr, self.grad_clip, epsilon=self.adam_epsilon
        )
        since = state.since_sync + self.timesteps_per_update
        new_target, since = sync_target(state.target, params, self.tau, since, self.target_network_update_freq)
        value, spread = jnp.mean(chosen, axis=-1), jnp.std(chosen, axis=-1)
        error = value - jnp.mean(target, axis=-1)
        metrics = {
            "loss": loss,
            "mean_q": jnp.mean(value),
            "mean_spread": jnp.mean(spread),
            "mean_td_error": jnp.mean(error),
            "grad_gnorm": norm,
            "cur_lr": lr,
            "cur_exploration": self.exploration.level(progress),
            "td_error": error,
        }
        return IQNState(params, new_target, optimizer, since), metrics

    def _actions(self) -> int:
        assert isinstance(self.spec.action, Discrete)
        return self.spec.action.n

    def _quantiles(self, params: Tree, obs: Array, fractions: Array) -> Array:
        """`[B, actions, N]` at fractions `[B, N]`."""
        seen = jax.nn.relu(forward(self.model, params["torso"], obs)["features"])
        cosines = jnp.cos(math.pi * jnp.arange(COSINES) * fractions[..., None])
        embedded = jax.nn.relu(dense(params["fraction"], cosines))  # [B, N, embedding_size]
        return jnp.swapaxes(dense(params["values"], seen[:, None] * embedded), 1, 2)

    def _values(self, params: Tree, obs: Array) -> Array:
        """`[B, actions]`."""
        number = self.num_acting_fractions
        fractions = jnp.broadcast_to(midpoints(number), (obs.shape[0], number))
        return jnp.mean(self._quantiles(params, obs, fractions), axis=-1)

    def _target(self, state: IQNState, batch: Transition, key: Key) -> Array:
        """`[B, N']`: samples of the return of the action taken."""
        steps = n_step_return(batch, self.gamma)
        reached = at_step(batch.next_obs, steps.last)
        next_obs = features(self.spec.obs, reached)
        values = self._values(state.params if self.double_q else state.target, next_obs)
        best = greedy(values, action_mask(self.spec, reached))
        fractions = jax.random.uniform(key, (*best.shape, self.num_target_fractions))
        samples = of_action(self._quantiles(state.target, next_obs, fractions), best)
        return steps.return_[:, None] + steps.discount[:, None] * samples


class IQNConfig(ReplayConfig):
    """Configuration of IQN: `IQNConfig().environment("CartPole-v1").training(num_fractions=8).build()`."""

    algorithm_name = "IQN"
    summary = "QR-DQN whose network takes the fraction as an input"
    paper = "Dabney et al. 2018, arXiv:1806.06923"
    agent_class = IQN
    exploration_types = ("EpsilonGreedy", "SoftQ")
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 1,
        "rollout_fragment_length": 4,
        "train_batch_size": 32,
        "min_sample_timesteps_per_iteration": 1000,
        "replay_buffer_config": {"type": "ReplayBuffer", "capacity": 50_000},
        "exploration_config": {
            "type": "EpsilonGreedy",
            "initial_epsilon": 1.0,
            "final_epsilon": 0.02,
            "epsilon_timesteps": 10_000,
        },
    }
