"""QR-DQN: distributional Q-learning with quantile regression (Dabney et al. 2018, arXiv:1710.10044).

Algorithm 1 with the quantile Huber loss of equations 9 and 10: each action has N quantiles of its return, at fixed
fractions (lemma 2), which learn towards samples of the next action's distribution. Their mean is the action's value.

Departures:

- 50 quantiles, and 200 in the paper: the loss takes time in proportion to their square;
- double Q (arXiv:1509.06461), dueling streams (arXiv:1511.06581), n-step returns and prioritised replay are options of
  DQN's; the paper has none of them. The priority is the error of the expected return;
- a truncated episode is bootstrapped from its true last observation; gradients are clipped by their global norm.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp

from athlete.algorithms.q_learning import QLearner, QState, quantile_metrics
from athlete.core import Array, Key, Transition, Tree, hyper
from athlete.core.ranges import NonNegativeFloat, PositiveFloat, PositiveInt
from athlete.models.forward import forward
from athlete.ops.quantile import midpoints
from athlete.ops.td import n_step_transition, quantile_double_q_learning
from athlete.ops.values import dueling
from athlete.settings.families import REPLAY_SETTINGS, STREAM_SETTINGS, ReplayConfig
from athlete.settings.table import Setting


@hyper
class QRDQN(QLearner):
    """Hyperparameters of QR-DQN under RLlib's names of DQN's. Floats and schedules are traced."""

    adam_epsilon: NonNegativeFloat = 3.125e-4  # 0.01 / 32
    num_quantiles: PositiveInt = 50  # of each action's return
    kappa: PositiveFloat = 1.0  # errors within it count by their square, larger ones by their size
    dueling: bool = False  # quantiles are made of a value's and advantages'

    def init(self, key: Key) -> QState:
        heads = {"advantage": (self._actions() * self.num_quantiles, 1.0)}
        if self.dueling:
            heads["value"] = (self.num_quantiles, 1.0)
        return self._initial_state(self.model.init(key, self.spec.obs, heads))

    def update(self, state: QState, batch: Transition, key: Key, progress: Array) -> tuple[QState, dict]:
        """The key is not used: nothing here is random."""
        step = n_step_transition(batch, self.spec, self.gamma)
        next_quantiles = self._quantiles(state.target, step.next_obs)
        selector = jnp.mean(next_quantiles, axis=-1)
        if self.double_q:
            selector = self._values(state.params, step.next_obs)

        def losses_of(params: Tree) -> tuple[Array, dict[str, Array]]:
            quantiles, fractions = self._quantiles(params, step.obs), midpoints(self.num_quantiles)
            loss, error = quantile_double_q_learning(quantiles, fractions, step, next_quantiles, selector, self.kappa)
            return loss, quantile_metrics(quantiles, step.action, error)

        return self._learn(state, losses_of, step.weight, progress)

    def _quantiles(self, params: Tree, obs: Array) -> Array:
        """`[B, actions, N]` of features `[B, n]`."""
        heads = forward(self.model, params, obs)
        advantage = heads["advantage"].reshape(-1, self._actions(), self.num_quantiles)
        return dueling(heads["value"][:, None], advantage) if self.dueling else advantage

    def _values(self, params: Tree, obs: Array) -> Array:
        return jnp.mean(self._quantiles(params, obs), axis=-1)


class QRDQNConfig(ReplayConfig):
    """Configuration of QR-DQN: `QRDQNConfig().environment("CartPole-v1").training(num_quantiles=20).build()`."""

    algorithm_name = "QRDQN"
    summary = "DQN with quantiles of each action's return, learned by regression"
    paper = "Dabney et al. 2018, arXiv:1710.10044"
    agent_class = QRDQN
    more_settings: ClassVar[dict[str, Setting]] = {**REPLAY_SETTINGS, **STREAM_SETTINGS}
    exploration_types = ("EpsilonGreedy", "SoftQ")
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 1,
        "rollout_fragment_length": 4,
        "train_batch_size": 32,
        "hiddens": [256],
        "min_sample_timesteps_per_iteration": 1000,
        "replay_buffer_config": {"type": "ReplayBuffer", "capacity": 50_000},
        "exploration_config": {
            "type": "EpsilonGreedy",
            "initial_epsilon": 1.0,
            "final_epsilon": 0.02,
            "epsilon_timesteps": 10_000,
        },
    }
