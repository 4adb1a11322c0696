"""Deep Q-Networks (Mnih et al. 2015, Nature 518) with the parts of Rainbow (Hessel et al. 2018, arXiv:1710.02298).

Each part is a switch; all on is Rainbow. Double Q (arXiv:1509.06461, equation 4), dueling (arXiv:1511.06581,
equation 9), n-step returns (Sutton & Barto 2018, equation 7.1), prioritised replay (arXiv:1511.05952; `memory`),
distributions of returns (C51, arXiv:1707.06887, equation 7 and algorithm 1), noisy networks (arXiv:1706.10295,
equation 9). The loss of the plain agent is algorithm 1 of Mnih et al.

Departures:

- Adam instead of RMSProp; gradients are clipped by their global norm;
- a truncated episode is bootstrapped from its true last observation;
- noisy networks share one draw over a batch, and every layer is noisy, not only the last ones;
- dueling streams part at the last layer: value and advantages are two heads of one torso;
- with atoms, the priority is the cross entropy, as in Rainbow.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Agent, Array, Key, Memory, Model, Spec, Transition, Tree, hyper
from athlete.exploration import (
    ActingCarry,
    ActingView,
    EpsilonGreedy,
    Exploration,
    acting_outputs,
    greedy,
    softmax_distance,
)
from athlete.memory.replay import Replay
from athlete.models.mlp import MLP
from athlete.ops.features import features
from athlete.ops.gradient import AdamState, adam, adam_init
from athlete.ops.masks import action_mask
from athlete.ops.noisy import noisy_init, noisy_sample
from athlete.ops.projection import atoms, project
from athlete.ops.returns import at_step, n_step_return
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.values import dueling, huber, of_action, sync_target
from athlete.settings.families import REPLAY_SETTINGS, STREAM_SETTINGS, ReplayConfig
from athlete.settings.table import Setting
from athlete.spaces import Discrete, require_kind


class DQNState(NamedTuple):
    params: Tree
    target: Tree
    optimizer: AdamState
    since_sync: Array  # timesteps sampled since the target was updated
    stddev: Array  # of ParameterNoise; 0 without


@hyper
class DQN(Agent):
    """Hyperparameters of DQN under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    serves = ("discrete",)

    lr: float | Schedule = 5e-4
    gamma: float = 0.99
    adam_epsilon: float = 1e-8
    grad_clip: float | None = 40.0  # of the global norm
    double_q: bool = True  # the online network chooses the next action, the target network values it
    dueling: bool = True  # Q is made of a value and advantages
    noisy: bool = False  # explore by noise on the parameters that is learned; set epsilon to 0 with it
    sigma0: float = 0.5  # of noisy networks at the start
    n_step: int = 1
    num_atoms: int = 1  # of the distribution of returns; 1: its mean only
    v_min: float = -10.0  # support of the distribution
    v_max: float = 10.0
    td_error_loss_fn: Literal["huber", "mse"] = "huber"  # where num_atoms is 1
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

    def bind(self, spec: Spec) -> DQN:
        require_kind(type(self).__name__, self.serves, spec.action)
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> DQNState:
        heads = {"advantage": (self._actions() * self.num_atoms, 1.0)}
        if self.dueling:
            heads["value"] = (self.num_atoms, 1.0)
        params = self.model.init(key, self.spec.obs, heads)
        if self.noisy:
            params = noisy_init(params, self.sigma0)
        target = jax.tree.map(jnp.copy, params)
        return DQNState(params, target, adam_init(params), jnp.zeros(()), self.exploration.initial())

    def view(self, state: DQNState, progress: Array) -> ActingView:
        return ActingView(state.params, self.exploration.level(progress), state.stddev)

    def start(self, view: ActingView, rows: int, key: Key) -> ActingCarry:
        return ActingCarry((), self.exploration.start(rows, 1, key))

    def act(
        self, view: ActingView, carry: ActingCarry, obs: Tree, first: Array, key: Key, explore: bool = True
    ) -> tuple:
        obs, mask = features(self.spec.obs, obs), action_mask(self.spec, obs)
        if not explore:
            return greedy(self._values(self._mean(view.params), obs), mask), carry, {}
        noise_key, disturb_key, choose_key = jax.random.split(key, 3)
        view = view._replace(params=self._drawn(view.params, noise_key))
        values, noise = acting_outputs(self.exploration, self._values, view, carry.exploration, first, obs, disturb_key)
        return self.exploration.choose(values, view.level, choose_key, mask), ActingCarry((), noise), {}

    def update(self, state: DQNState, batch: Transition, key: Key, progress: Array) -> tuple[DQNState, dict]:
        online_key, next_key, target_key, disturb_key = jax.random.split(key, 4)
        target = self._target(state, batch, next_key, target_key)
        obs, action = features(self.spec.obs, at_step(batch.obs, jnp.zeros_like(batch.action[0]))), batch.action[0]
        weight = batch.extras["weight"][0] if "weight" in batch.extras else jnp.ones(action.shape)

        def loss_of(params: Tree) -> tuple[Array, tuple[Array, Array]]:
            outputs = self._outputs(self._drawn(params, online_key), obs)
            chosen = of_action(outputs, action)
            loss, error = self._compare(chosen, target)
            return jnp.mean(weight * loss), (error, jnp.mean(self._expect(outputs)))

        (loss, (error, mean_q)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        lr = value_at(self.lr, progress)
        params, optimizer, norm = adam(
            state.params, gradients, state.optimizer, lr, self.grad_clip, epsilon=self.adam_epsilon
        )
        new_target, since = sync_target(
            state.target,
            params,
            self.tau,
            state.since_sync + self.timesteps_per_update,
            self.target_network_update_freq,
        )
        stddev = self.exploration.adapt(
            self._values, params, state.stddev, obs, progress, disturb_key, softmax_distance
        )
        metrics = {
            "loss": loss,
            "mean_q": mean_q,
            "mean_td_error": jnp.mean(error),
            "grad_gnorm": norm,
            "cur_lr": lr,
            "cur_exploration": self.exploration.level(progress),
            "td_error": error,
        }
        return DQNState(params, new_target, optimizer, since, stddev), metrics

    def _actions(self) -> int:
        assert isinstance(self.spec.action, Discrete)
        return self.spec.action.n

    def _drawn(self, params: Tree, key: Key) -> Tree:
        return noisy_sample(params, key) if self.noisy else params

    def _mean(self, params: Tree) -> Tree:
        return params["mean"] if self.noisy else params

    def _outputs(self, params: Tree, obs: Array) -> Array:
        """`[B, actions, atoms]`: logits of the returns' distribution, or the one expected return."""
        never = jnp.zeros((1, obs.shape[0]), bool)
        _, heads = self.model.apply(params, self.model.start(obs.shape[0]), obs[None], never)
        advantage = heads["advantage"].reshape(-1, self._actions(), self.num_atoms)
        if not self.dueling:
            return advantage
        return dueling(heads["value"].reshape(-1, 1, self.num_atoms), advantage)

    def _expect(self, outputs: Array) -> Array:
        """Expected returns `[B, actions]`."""
        if self.num_atoms == 1:
            return outputs[..., 0]
        return jax.nn.softmax(outputs) @ atoms(self.v_min, self.v_max, self.num_atoms)

    def _values(self, params: Tree, obs: Array) -> Array:
        return self._expect(self._outputs(params, obs))

    def _target(self, state: DQNState, batch: Transition, next_key: Key, target_key: Key) -> Array:
        """`[B, atoms]`: what the outputs for the action taken should have been."""
        steps = n_step_return(batch, self.gamma)
        reached = at_step(batch.next_obs, steps.last)
        next_obs = features(self.spec.obs, reached)
        outputs = self._outputs(self._drawn(state.target, target_key), next_obs)
        chooser = (
            self._values(self._drawn(state.params, next_key), next_obs) if self.double_q else self._expect(outputs)
        )
        best = of_action(outputs, greedy(chooser, action_mask(self.spec, reached)))
        if self.num_atoms == 1:
            return steps.return_[:, None] + steps.discount[:, None] * best
        support = atoms(self.v_min, self.v_max, self.num_atoms)
        returns = steps.return_[:, None] + steps.discount[:, None] * support
        return project(jax.nn.softmax(best), returns, support)

    def _compare(self, chosen: Array, target: Array) -> tuple[Array, Array]:
        """The loss of each sample and its TD error, `[B]` both."""
        if self.num_atoms > 1:
            cross_entropy = -jnp.sum(target * jax.nn.log_softmax(chosen), axis=-1)
            return cross_entropy, cross_entropy
        error = (chosen - target)[:, 0]
        return huber(error) if self.td_error_loss_fn == "huber" else 0.5 * error * error, error


class DQNConfig(ReplayConfig):
    """Configuration of DQN: `DQNConfig().environment("CartPole-v1").training(n_step=3, noisy=True).build()`."""

    algorithm_name = "DQN"
    summary = (
        "action values by Q-learning with a target network; with double Q, dueling, n steps, prioritised "
        "replay, distributions of returns and noisy networks as switches: all on is Rainbow"
    )
    paper = "Hessel et al. 2018, arXiv:1710.02298"
    agent_class = DQN
    more_settings: ClassVar[dict[str, Setting]] = {**REPLAY_SETTINGS, **STREAM_SETTINGS}
    exploration_types = ("EpsilonGreedy", "SoftQ", "ParameterNoise")
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 1,
        "rollout_fragment_length": 4,
        "train_batch_size": 32,
        "hiddens": [256],
        "min_sample_timesteps_per_iteration": 1000,
        "replay_buffer_config": {"type": "PrioritizedReplayBuffer", "capacity": 50_000},
        "exploration_config": {
            "type": "EpsilonGreedy",
            "initial_epsilon": 1.0,
            "final_epsilon": 0.02,
            "epsilon_timesteps": 10_000,
        },
    }
