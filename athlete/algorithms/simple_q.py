"""Deep Q-learning without extras: algorithm 1 of Mnih et al. 2015 (Nature 518, doi:10.1038/nature14236).

The place to begin reading. An agent keeps what it sees in a memory, and after every few steps learns from a sample of
it: the value of the action taken is moved towards r + gamma max_a Q(s', a; target), where the target network is a copy
of the online one that is renewed now and then. `DQN` has the same core and all that was found since.

Departures: Adam instead of RMSProp; Huber's loss stands for the paper's clipped errors, as in its authors' later work;
gradients are clipped by their global norm; a truncated episode is bootstrapped from its true last observation.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Agent, Array, Key, Memory, Model, Spec, Transition, Tree, hyper
from athlete.exploration import ActingView, EpsilonGreedy, Exploration, greedy
from athlete.memory.replay import Replay
from athlete.models.forward import forward
from athlete.models.mlp import MLP
from athlete.ops.features import features
from athlete.ops.gradient import AdamState, adam, adam_init
from athlete.ops.masks import action_mask, masked
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.values import batched_index, huber, periodic_update
from athlete.settings.families import ReplayConfig
from athlete.settings.memory import UNIFORM_MEMORIES
from athlete.spaces import Discrete, require_kind


class SimpleQState(NamedTuple):
    params: Tree
    target: Tree
    optimizer: AdamState
    since_sync: Array  # timesteps sampled since the target was renewed


@hyper
class SimpleQ(Agent):
    """Hyperparameters of SimpleQ under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    serves = ("discrete",)

    lr: float | Schedule = 5e-4
    gamma: float = 0.99
    adam_epsilon: float = 1e-8
    grad_clip: float | None = 40.0  # of the global norm
    td_error_loss_fn: Literal["huber", "mse"] = "huber"
    target_network_update_freq: float = 500.0  # timesteps sampled between two renewals of the target network
    num_steps_sampled_before_learning_starts: int = 1000  # timesteps
    random_timesteps: int = 0  # uniformly random actions at the start
    timesteps_per_update: float = 1.0
    exploration: Exploration = EpsilonGreedy()
    model: Model = MLP()
    memory: Memory = Replay()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> SimpleQ:
        require_kind(type(self).__name__, self.serves, spec.action)
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> SimpleQState:
        assert isinstance(self.spec.action, Discrete)
        params = self.model.init(key, self.spec.obs, {"q": (self.spec.action.n, 1.0)})
        return SimpleQState(params, jax.tree.map(jnp.copy, params), adam_init(params), jnp.zeros(()))

    def view(self, state: SimpleQState, progress: Array) -> ActingView:
        return ActingView(state.params, self.exploration.level(progress))

    def act(self, view: ActingView, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        values = self._values(view.params, obs)
        mask = action_mask(self.spec, obs)
        return self.exploration.choose(values, view.level, key, mask) if explore else greedy(values, mask), carry, {}

    def update(self, state: SimpleQState, batch: Transition, key: Key, progress: Array) -> tuple[SimpleQState, dict]:
        step = jax.tree.map(lambda leaf: leaf[0], batch)  # windows of one step: [1, B, ...] to [B, ...]
        target = self._target(state, step)

        def loss_of(params: Tree) -> tuple[Array, tuple[Array, Array]]:
            values = self._values(params, step.obs)
            error = batched_index(values, step.action) - target
            loss = huber(error) if self.td_error_loss_fn == "huber" else 0.5 * error * error
            return jnp.mean(loss), (jnp.mean(error), jnp.mean(values))

        (loss, (error, mean_q)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        lr = value_at(self.lr, progress)
        params, optimizer, norm = adam(
            state.params, gradients, state.optimizer, lr, self.grad_clip, epsilon=self.adam_epsilon
        )
        since = state.since_sync + self.timesteps_per_update
        new_target, since = periodic_update(state.target, params, 1.0, since, self.target_network_update_freq)
        metrics = {
            "loss": loss,
            "mean_q": mean_q,
            "mean_td_error": error,
            "grad_gnorm": norm,
            "cur_lr": lr,
            "cur_exploration": self.exploration.level(progress),
        }
        return SimpleQState(params, new_target, optimizer, since), metrics

    def _values(self, params: Tree, obs: Tree) -> Array:
        """`[B, actions]`."""
        return forward(self.model, params, features(self.spec.obs, obs))["q"]

    def _target(self, state: SimpleQState, step: Transition) -> Array:
        """`[B]`: the reward, and unless the episode ended, the discounted value of the best action that follows."""
        values = self._values(state.target, step.next_obs)
        best = jnp.max(masked(values, action_mask(self.spec, step.next_obs)), axis=-1)
        return step.reward + self.gamma * jnp.where(step.terminated, 0.0, best)


class SimpleQConfig(ReplayConfig):
    """Configuration of SimpleQ: `SimpleQConfig().environment("CartPole-v1").training(lr=1e-3).build()`."""

    algorithm_name = "SimpleQ"
    summary = "Q-learning with a target network and nothing else: the one to read first"
    paper = "Mnih et al. 2015, Nature 518"
    agent_class = SimpleQ
    exploration_types = ("EpsilonGreedy", "SoftQ")
    memory_types = UNIFORM_MEMORIES
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
