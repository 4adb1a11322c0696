"""Implicit quantile networks (IQN; Dabney et al. 2018, arXiv:1806.06923): Q-learning with a function of the fraction.

Where QR-DQN learns quantiles at fixed fractions, this network takes a fraction tau and gives its quantile: the torso's
features times an embedding of tau in cosines (equation 4), then a hidden layer and a linear one. It is trained at N
random fractions against N' samples of the next action's return (equations 2 and 3); an action's value is the mean over
K fractions.

Departures:

- values are means over K evenly spaced fractions, not random ones: the same for all actions, and without noise;
- double Q (arXiv:1509.06461), n-step returns and prioritised replay are options of DQN's. The priority is the error of
  the expected return;
- a truncated episode is bootstrapped from its true last observation; gradients are clipped by their global norm.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from athlete.algorithms.q_learning import QLearner, QState, quantile_metrics
from athlete.core import Array, Key, Transition, Tree, hyper
from athlete.core.ranges import NonNegativeFloat, PositiveFloat, PositiveInt
from athlete.models.dense import Layer, dense, init_layers
from athlete.models.forward import forward
from athlete.ops.quantile import midpoints
from athlete.ops.td import n_step_transition, quantile_double_q_learning
from athlete.settings.families import ReplayConfig

COSINES = 64  # n of equation 4


@hyper
class IQN(QLearner):
    """Hyperparameters of IQN under RLlib's names of DQN's. Floats and schedules are traced."""

    adam_epsilon: NonNegativeFloat = 3.125e-4  # 0.01 / 32
    num_fractions: PositiveInt = 16  # N, of the online network in the loss; 64 in the paper
    num_target_fractions: PositiveInt = 16  # N', of the target network in the loss; 64 in the paper
    num_acting_fractions: PositiveInt = 32  # K, that an action's value is the mean over
    embedding_size: PositiveInt = 64  # of features and of a fraction
    hidden_size: PositiveInt = 256  # units of the layer behind the product of the two; 512 in the paper
    kappa: PositiveFloat = 1.0  # errors within it count by their square, larger ones by their size

    def init(self, key: Key) -> QState:
        """The key is split in two: for the torso, and for the layers behind it."""
        torso_key, key = jax.random.split(key)
        size, gain = self.embedding_size, math.sqrt(2.0)
        sizes = [(COSINES, size, gain), (size, self.hidden_size, gain), (self.hidden_size, self._actions(), 1.0)]
        fraction, hidden, values = init_layers(key, [Layer(*each) for each in sizes])
        torso = self.model.init(torso_key, self.spec.obs, {"features": (size, gain)})
        return self._initial_state({"torso": torso, "fraction": fraction, "hidden": hidden, "values": values})

    def update(self, state: QState, batch: Transition, key: Key, progress: Array) -> tuple[QState, dict]:
        """The key is split in two: for the fractions of the target network, and for those of the online network."""
        target_key, key = jax.random.split(key)
        step = n_step_transition(batch, self.spec, self.gamma)
        rows = step.reward.shape[0]
        next_fractions = jax.random.uniform(target_key, (rows, self.num_target_fractions))
        next_quantiles = self._quantiles(state.target, step.next_obs, next_fractions)
        selector = self._values(state.params if self.double_q else state.target, step.next_obs)
        fractions = jax.random.uniform(key, (rows, self.num_fractions))

        def losses_of(params: Tree) -> tuple[Array, dict[str, Array]]:
            quantiles = self._quantiles(params, step.obs, fractions)
            loss, error = quantile_double_q_learning(quantiles, fractions, step, next_quantiles, selector, self.kappa)
            return loss, quantile_metrics(quantiles, step.action, error)

        return self._learn(state, losses_of, step.weight, progress)

    def _quantiles(self, params: Tree, obs: Array, fractions: Array) -> Array:
        """`[B, actions, N]` of features `[B, n]` at fractions `[B, N]`."""
        seen = jax.nn.relu(forward(self.model, params["torso"], obs)["features"])
        cosines = jnp.cos(math.pi * jnp.arange(COSINES) * fractions[..., None])
        embedded = jax.nn.relu(dense(params["fraction"], cosines))  # [B, N, embedding_size]
        hidden = jax.nn.relu(dense(params["hidden"], seen[:, None] * embedded))
        return jnp.swapaxes(dense(params["values"], hidden), 1, 2)

    def _values(self, params: Tree, obs: Array) -> Array:
        number = self.num_acting_fractions
        fractions = jnp.broadcast_to(midpoints(number), (obs.shape[0], number))
        return jnp.mean(self._quantiles(params, obs, fractions), axis=-1)


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
