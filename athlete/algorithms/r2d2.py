"""Recurrent Replay Distributed DQN (Kapturowski et al. 2019, openreview.net/forum?id=r1lyTjAqYX): DQN with memory.

Replay holds sequences of steps with the recurrent state that was there when they were played. An update replays the
first part of each from that state only to bring it up to date (the burn-in, section 3), and learns from the rest:
double-Q targets of n steps, in rescaled values (section 2.3),

    y_t = h( sum_k gamma^k r_(t+k) + gamma^n h^-1( Q'(s_(t+n), argmax_a Q(s_(t+n), a)) ) ),

with dueling values (arXiv:1511.06581, equation 9). The loss is the squared TD error, and a sequence's priority
eta max_t |delta_t| + (1 - eta) mean_t |delta_t| (section 2.3).

Departures:

- any network with memory, not only an LSTM;
- sequences begin at every step instead of at every 40th, and may run across an episode's end, where the state begins
  anew and targets stop;
- a truncated episode is bootstrapped from its true last observation, with the recurrent state of that moment;
- by default one process collects and learns, one after the other, and its epsilon falls in time; as in the paper are
  `exploration_config={"type": "PerWorkerEpsilonGreedy"}` and workers that act, taken as they come;
- gradients are clipped by their global norm; previous action and reward are inputs if `lstm_use_prev_...` says so;
- RLlib's rescaling, `h_function_epsilon`, Adam's epsilon and learning rate are the paper's, its defaults are not all.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from athlete.algorithms.q_learning import QLearner, QState
from athlete.core import ActingCarry, Array, Key, Memory, Model, Transition, Tree, hyper
from athlete.core.ranges import Fraction, NonNegativeFloat
from athlete.exploration import ActingView, EpsilonGreedy, SoftQ
from athlete.memory.replay import Replay
from athlete.models.forward import forward_step
from athlete.models.recurrent import LSTM
from athlete.models.unroll import step_from, unroll
from athlete.ops.features import features
from athlete.ops.masks import action_mask
from athlete.ops.priorities import sequence_priority
from athlete.ops.schedule import Schedule
from athlete.ops.td import importance_weight, n_step_targets
from athlete.ops.tree import merge_time
from athlete.ops.values import batched_index, dueling, greedy, half_square, signed_hyperbolic, signed_parabolic
from athlete.settings.families import REPLAY_SETTINGS, STREAM_SETTINGS, ReplayConfig
from athlete.settings.table import Setting


@hyper
class R2D2(QLearner):
    """Hyperparameters of R2D2 under RLlib's names. Floats and schedules are traced, the rest shapes the program.

    The memory's windows are `burn_in` steps, `max_seq_len` to learn from and `n_step - 1` for the targets of the last.
    """

    lr: NonNegativeFloat | Schedule = 1e-4
    gamma: Fraction = 0.997
    adam_epsilon: NonNegativeFloat = 1e-3
    double_q: bool = True  # the online network chooses the next action, the target network values it
    dueling: bool = True  # Q is made of a value and advantages
    use_h_function: bool = True  # learn rescaled values
    h_function_epsilon: NonNegativeFloat = 1e-3
    priority_eta: Fraction = 0.9  # of a sequence's largest TD error in its priority; the rest is for their mean
    zero_init_states: bool = False  # sequences begin with an empty memory instead of the stored state
    target_network_update_freq: NonNegativeFloat = 1000.0  # timesteps sampled between two of them
    burn_in: int = 0  # steps of a sequence that only bring the state up to date
    max_seq_len: int = 1  # steps of a sequence to learn from
    exploration: EpsilonGreedy | SoftQ = EpsilonGreedy()
    model: Model = LSTM()
    memory: Memory = Replay(keep_carry=True)

    def init(self, key: Key) -> QState:
        heads = {"advantage": (self._actions(), 1.0)} | ({"value": (1, 1.0)} if self.dueling else {})
        return self._initial_state(self.model.init(key, self.spec.obs, heads))

    def start(self, view: ActingView, rows: int, key: Key) -> ActingCarry:
        return ActingCarry(self.model.start(rows), self.exploration.start(rows, 1, key))

    def act(
        self, view: ActingView, carry: ActingCarry, obs: Tree, first: Array, key: Key, explore: bool = True
    ) -> tuple:
        """Actions `[B]` by their values; the key is for choosing among them."""
        mask, obs = action_mask(self.spec, obs), features(self.spec.obs, obs)
        memory, heads = forward_step(self.model, view.params, carry.model, obs, first)
        carry, values = carry._replace(model=memory), self._action_values(heads)
        if not explore:
            return greedy(values, mask), carry, {}
        rate = self.exploration.rate_of_rows(view.rate, carry.exploration)
        return self.exploration.choose(values, rate, key, mask), carry, {}

    def update(self, state: QState, batch: Transition, key: Key, progress: Array) -> tuple[QState, dict]:
        """The key is not used: nothing here is random."""
        action = batch.action[self.burn_in :][: self.max_seq_len]

        def losses_of(params: Tree) -> tuple[Array, dict[str, Array]]:
            carries, heads = self._unroll(params, batch)
            target = jax.lax.stop_gradient(self._target(state.target, params, carries, batch))
            values = self._action_values(jax.tree.map(merge_time, heads))[: target.size]
            error = batched_index(values, merge_time(action)).reshape(action.shape) - target
            return half_square(error), {
                "mean_q": jnp.mean(self._unscaled(values)),
                "mean_td_error": jnp.mean(error),
                "td_error": sequence_priority(error, self.priority_eta),
            }

        return self._learn(state, losses_of, importance_weight(batch), progress)

    def _action_values(self, heads: dict[str, Array]) -> Array:
        """Rescaled values `[N, actions]` of heads `[N, outputs]`."""
        return dueling(heads["value"], heads["advantage"]) if self.dueling else heads["advantage"]

    def _unscaled(self, values: Array) -> Array:
        return signed_parabolic(values, self.h_function_epsilon) if self.use_h_function else values

    def _unroll(self, params: Tree, batch: Transition) -> tuple[Tree, dict[str, Array]]:
        """`unroll` from the stored states, or from empty ones."""
        if self.zero_init_states:
            start = self.model.start(batch.reward.shape[1])
        else:
            start = jax.tree.map(lambda leaf: leaf[0], batch.carry.model)
        return unroll(self.model, params, start, features(self.spec.obs, batch.obs), batch.first, self.burn_in)

    def _target(self, target: Tree, params: Tree, carries: Tree, batch: Transition) -> Array:
        """What the values of the actions taken should have been, rescaled, `[max_seq_len, B]`.

        `carries` are the online network's states before and after the steps behind the burn-in.
        """
        target_carries, _ = self._unroll(target, batch)
        batch = jax.tree.map(lambda leaf: leaf[self.burn_in :], batch._replace(carry=(), extras=()))
        next_obs = features(self.spec.obs, batch.next_obs)
        values = self._next_values(target, target_carries, next_obs)
        selector = self._next_values(params, carries, next_obs) if self.double_q else values
        best = batched_index(values, greedy(selector, merge_time(action_mask(self.spec, batch.next_obs))))
        next_value = self._unscaled(best).reshape(batch.reward.shape)
        return_ = n_step_targets(batch, next_value, self.n_step, self.gamma)
        return signed_hyperbolic(return_, self.h_function_epsilon) if self.use_h_function else return_

    def _next_values(self, params: Tree, carries: Tree, next_obs: Array) -> Array:
        """Rescaled values `[T * B, actions]` of where steps led, from the states after them."""
        after = jax.tree.map(lambda leaf: leaf[1:], carries)
        return self._action_values(jax.tree.map(merge_time, step_from(self.model, params, after, next_obs)))


class R2D2Config(ReplayConfig):
    """Configuration of R2D2: `R2D2Config().environment("StatelessCartPole-v1").training(n_step=3).build()`."""

    algorithm_name = "R2D2"
    summary = "DQN with memory: sequences, burn-in, rescaled values"
    paper = "Kapturowski et al. 2019, ICLR"
    agent_class = R2D2
    learns_sequences = True
    more_settings: ClassVar[dict[str, Setting]] = {**REPLAY_SETTINGS, **STREAM_SETTINGS}
    exploration_types = ("EpsilonGreedy", "PerWorkerEpsilonGreedy", "SoftQ")
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 1,
        "rollout_fragment_length": 16,
        "train_batch_size": 512,
        "training_intensity": 32,  # RLlib: 150, which takes a GPU
        "min_sample_timesteps_per_iteration": 1000,
        "model": {"use_lstm": True},
        "replay_buffer_config": {"type": "PrioritizedReplayBuffer", "capacity": 100_000, "replay_burn_in": 8},
        "exploration_config": {
            "type": "EpsilonGreedy",
            "initial_epsilon": 1.0,
            "final_epsilon": 0.02,
            "epsilon_timesteps": 10_000,
        },
    }
