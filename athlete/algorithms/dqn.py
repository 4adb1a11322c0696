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

from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from athlete.algorithms.q_learning import QLearner
from athlete.core import Array, Key, Transition, Tree, hyper
from athlete.core.ranges import NonNegativeFloat, PositiveInt
from athlete.distributions import Categorical
from athlete.exploration import ActingCarry, ActingView, acting_outputs, softmax_distance
from athlete.models.forward import forward
from athlete.ops.features import features
from athlete.ops.gradient import AdamState
from athlete.ops.masks import action_mask
from athlete.ops.noisy import noisy_init, noisy_sample
from athlete.ops.projection import atoms
from athlete.ops.td import (
    NStepTransition,
    categorical_double_q_learning,
    double_q_learning,
    every_window,
    expected_return,
    n_step_transition,
)
from athlete.ops.values import dueling, greedy, half_square, huber
from athlete.settings.families import REPLAY_SETTINGS, STREAM_SETTINGS, ReplayConfig
from athlete.settings.table import Setting


class DQNState(NamedTuple):
    """The state of a `DQN`."""

    params: Tree  # the online network; {"mean": ..., "sigma": ...} where it is noisy
    target: Tree  # the target network, in the shapes of the online one
    optimizer: AdamState
    since_sync: Array  # float32 scalar: timesteps sampled since the target was updated
    stddev: Array  # float32 scalar: of ParameterNoise; 0 without


@hyper
class DQN(QLearner):
    """Hyperparameters of DQN under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    rates: ClassVar[bool] = True

    double_q: bool = True  # the online network chooses the next action, the target network values it
    dueling: bool = True  # Q is made of a value and advantages
    noisy: bool = False  # explore by noise on the parameters that is learned; set epsilon to 0 with it
    sigma0: NonNegativeFloat = 0.5  # of noisy networks at the start
    num_atoms: PositiveInt = 1  # of the distribution of returns; 1: its mean only
    v_min: float = -10.0  # support of the distribution
    v_max: float = 10.0
    td_error_loss_fn: Literal["huber", "mse"] = "huber"  # where num_atoms is 1

    def init(self, key: Key) -> DQNState:
        heads = {"advantage": (self._actions() * self.num_atoms, 1.0)}
        if self.dueling:
            heads["value"] = (self.num_atoms, 1.0)
        params = self.model.init(key, self.spec.obs, heads)
        if self.noisy:
            params = noisy_init(params, self.sigma0)
        return DQNState(*self._initial_state(params), self.exploration.initial())

    def view(self, state: DQNState, progress: Array) -> ActingView:
        return ActingView(state.params, self.exploration.rate(progress), state.stddev)

    def start(self, view: ActingView, rows: int, key: Key) -> ActingCarry:
        return ActingCarry((), self.exploration.start(rows, 1, key))

    def act(
        self, view: ActingView, carry: ActingCarry, obs: Tree, first: Array, key: Key, explore: bool = True
    ) -> tuple:
        """The key is split in three: for the noise of noisy networks, for ParameterNoise, for choosing an action."""
        obs, mask = features(self.spec.obs, obs), action_mask(self.spec, obs)
        if not explore:
            return greedy(self._values(self._mean(view.params), obs), mask), carry, {}
        layers_key, noise_key, choose_key = jax.random.split(key, 3)
        view = view._replace(params=self._sampled(view.params, layers_key))
        values, noise = acting_outputs(self.exploration, self._values, view, carry.exploration, first, obs, noise_key)
        rate = self.exploration.rate_of_rows(view.rate, noise)
        return self.exploration.choose(values, rate, choose_key, mask), ActingCarry((), noise), {}

    def distribution(self, view: ActingView, carry: ActingCarry, obs: Tree, first: Array) -> Categorical | None:
        return None if self.noisy else super().distribution(view, carry, obs, first)

    def td_errors(self, view: ActingView, trajectory: Transition) -> Array:
        """By the network that acts alone: it is its own target."""
        params = self._mean(view.params)
        step = n_step_transition(every_window(trajectory, self.n_step), self.spec, self.gamma)
        outputs, next_outputs = self._outputs(params, step.obs), self._outputs(params, step.next_obs)
        _, error = self._losses(outputs, step, next_outputs, self._expected(next_outputs))
        return error.reshape(trajectory.reward.shape)

    def update(self, state: DQNState, batch: Transition, key: Key, progress: Array) -> tuple[DQNState, dict]:
        """The key is split in four: for the noise of the online network where it learns, where it chooses the next
        action, and of the target network, and for adapting ParameterNoise.
        """
        online_key, next_key, target_key, noise_key = jax.random.split(key, 4)
        step = n_step_transition(batch, self.spec, self.gamma)
        next_outputs = self._outputs(self._sampled(state.target, target_key), step.next_obs)
        selector = self._expected(next_outputs)
        if self.double_q:
            selector = self._values(self._sampled(state.params, next_key), step.next_obs)

        def losses_of(params: Tree) -> tuple[Array, dict[str, Array]]:
            outputs = self._outputs(self._sampled(params, online_key), step.obs)
            loss, error = self._losses(outputs, step, next_outputs, selector)
            mean_q = jnp.mean(self._expected(outputs))
            return loss, {"mean_q": mean_q, "mean_td_error": jnp.mean(error), "td_error": error}

        state, metrics = self._learn(state, losses_of, step.weight, progress)
        stddev = self.exploration.adapt(
            self._values, state.params, state.stddev, step.obs, progress, noise_key, softmax_distance
        )
        return state._replace(stddev=stddev), metrics

    def _losses(
        self, outputs: Array, step: NStepTransition, next_outputs: Array, selector: Array
    ) -> tuple[Array, Array]:
        """The loss of each sample and its TD error, `[B]` both."""
        if self.num_atoms > 1:
            loss = categorical_double_q_learning(outputs, step, self._support(), next_outputs, selector)
            return loss, loss
        error = double_q_learning(outputs[..., 0], step, next_outputs[..., 0], selector)
        return huber(error) if self.td_error_loss_fn == "huber" else half_square(error), error

    def _outputs(self, params: Tree, obs: Array) -> Array:
        """`[B, actions, atoms]`: logits of the returns' distribution, or the one expected return."""
        heads = forward(self.model, params, obs)
        advantage = heads["advantage"].reshape(-1, self._actions(), self.num_atoms)
        if not self.dueling:
            return advantage
        return dueling(heads["value"].reshape(-1, 1, self.num_atoms), advantage)

    def _expected(self, outputs: Array) -> Array:
        """Expected returns `[B, actions]`."""
        return outputs[..., 0] if self.num_atoms == 1 else expected_return(outputs, self._support())

    def _values(self, params: Tree, obs: Array) -> Array:
        return self._expected(self._outputs(params, obs))

    def _support(self) -> Array:
        return atoms(self.v_min, self.v_max, self.num_atoms)

    def _sampled(self, params: Tree, key: Key) -> Tree:
        return noisy_sample(params, key) if self.noisy else params

    def _mean(self, params: Tree) -> Tree:
        return params["mean"] if self.noisy else params


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
        "n_step": 3,  # as Rainbow's: with 1 the greedy policy was now and then stuck on Acrobot
        "min_sample_timesteps_per_iteration": 1000,
        "replay_buffer_config": {"type": "PrioritizedReplayBuffer", "capacity": 50_000},
        "exploration_config": {
            "type": "EpsilonGreedy",
            "initial_epsilon": 1.0,
            "final_epsilon": 0.02,
            "epsilon_timesteps": 10_000,
        },
    }
