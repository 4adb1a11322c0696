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

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Agent, Array, Key, Memory, Model, Spec, Transition, Tree, hyper
from athlete.exploration import ActingView, EpsilonGreedy, Exploration, greedy
from athlete.memory.replay import Replay
from athlete.models.forward import forward
from athlete.models.mlp import MLP
from athlete.ops.features import features
from athlete.ops.gradient import AdamState, adam, adam_init
from athlete.ops.masks import action_mask
from athlete.ops.quantile import midpoints, quantile_huber
from athlete.ops.returns import at_step, n_step_return
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.values import dueling, of_action, sync_target
from athlete.settings.families import REPLAY_SETTINGS, STREAM_SETTINGS, ReplayConfig
from athlete.settings.table import Setting
from athlete.spaces import Discrete, require_kind


class QRDQNState(NamedTuple):
    params: Tree
    target: Tree
    optimizer: AdamState
    since_sync: Array  # timesteps sampled since the target was updated


@hyper
class QRDQN(Agent):
    """Hyperparameters of QR-DQN under RLlib's names of DQN's. Floats and schedules are traced."""

    serves = ("discrete",)

    lr: float | Schedule = 5e-4
    gamma: float = 0.99
    adam_epsilon: float = 3.125e-4  # 0.01 / 32
    grad_clip: float | None = 40.0  # of the global norm
    num_quantiles: int = 50  # of each action's return
    kappa: float = 1.0  # errors within it count by their square, larger ones by their size
    double_q: bool = False  # the online network chooses the next action, the target network values it
    dueling: bool = False  # quantiles are made of a value's and advantages'
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

    def bind(self, spec: Spec) -> QRDQN:
        require_kind(type(self).__name__, self.serves, spec.action)
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> QRDQNState:
        heads = {"advantage": (self._actions() * self.num_quantiles, 1.0)}
        if self.dueling:
            heads["value"] = (self.num_quantiles, 1.0)
        params = self.model.init(key, self.spec.obs, heads)
        return QRDQNState(params, jax.tree.map(jnp.copy, params), adam_init(params), jnp.zeros(()))

    def view(self, state: QRDQNState, progress: Array) -> ActingView:
        return ActingView(state.params, self.exploration.level(progress))

    def act(self, view: ActingView, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        values = jnp.mean(self._quantiles(view.params, features(self.spec.obs, obs)), axis=-1)
        mask = action_mask(self.spec, obs)
        return self.exploration.choose(values, view.level, key, mask) if explore else greedy(values, mask), carry, {}

    def update(self, state: QRDQNState, batch: Transition, key: Key, progress: Array) -> tuple[QRDQNState, dict]:
        target = self._target(state, batch)
        obs, action = features(self.spec.obs, at_step(batch.obs, jnp.zeros_like(batch.action[0]))), batch.action[0]
        weight = batch.extras["weight"][0] if "weight" in batch.extras else jnp.ones(action.shape)

        def loss_of(params: Tree) -> tuple[Array, Array]:
            chosen = of_action(self._quantiles(params, obs), action)
            loss = quantile_huber(chosen, target, midpoints(self.num_quantiles), self.kappa)
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
        return QRDQNState(params, new_target, optimizer, since), metrics

    def _actions(self) -> int:
        assert isinstance(self.spec.action, Discrete)
        return self.spec.action.n

    def _quantiles(self, params: Tree, obs: Array) -> Array:
        """`[B, actions, N]`."""
        heads = forward(self.model, params, obs)
        advantage = heads["advantage"].reshape(-1, self._actions(), self.num_quantiles)
        return dueling(heads["value"][:, None], advantage) if self.dueling else advantage

    def _target(self, state: QRDQNState, batch: Transition) -> Array:
        """`[B, N]`: samples of the return of the action taken."""
        steps = n_step_return(batch, self.gamma)
        reached = at_step(batch.next_obs, steps.last)
        next_obs = features(self.spec.obs, reached)
        outputs = self._quantiles(state.target, next_obs)
        chooser = self._quantiles(state.params, next_obs) if self.double_q else outputs
        best = of_action(outputs, greedy(jnp.mean(chooser, axis=-1), action_mask(self.spec, reached)))
        return steps.return_[:, None] + steps.discount[:, None] * best


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
        "min_sample_timesteps_per_iteration": 1000,
        "replay_buffer_config": {"type": "ReplayBuffer", "capacity": 50_000},
        "exploration_config": {
            "type": "EpsilonGreedy",
            "initial_epsilon": 1.0,
            "final_epsilon": 0.02,
            "epsilon_timesteps": 10_000,
        },
    }
