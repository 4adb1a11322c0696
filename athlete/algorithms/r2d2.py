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
- one process collects and learns, one after the other; its epsilon falls in time instead of differing by actor;
- gradients are clipped by their global norm; previous action and reward are inputs if `lstm_use_prev_...` says so;
- RLlib's rescaling, `h_function_epsilon`, Adam's epsilon and learning rate are the paper's, its defaults are not all.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Agent, Array, Key, Memory, Model, Spec, Transition, Tree, hyper
from athlete.exploration import ActingView, EpsilonGreedy, SoftQ, greedy
from athlete.memory.replay import Replay
from athlete.models.recurrent import LSTM
from athlete.models.unroll import step_from, unroll
from athlete.ops.features import features
from athlete.ops.gradient import AdamState, adam, adam_init
from athlete.ops.masks import action_mask
from athlete.ops.priorities import sequence_priority
from athlete.ops.returns import at_step, n_step_return
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.sequences import windows
from athlete.ops.tree import fold
from athlete.ops.values import batched_index, dueling, periodic_update, signed_hyperbolic, signed_parabolic
from athlete.settings.families import REPLAY_SETTINGS, STREAM_SETTINGS, ReplayConfig
from athlete.settings.table import Setting
from athlete.spaces import Discrete, require_kind


class R2D2State(NamedTuple):
    params: Tree
    target: Tree
    optimizer: AdamState
    since_sync: Array  # timesteps sampled since the target was updated


@hyper
class R2D2(Agent):
    """Hyperparameters of R2D2 under RLlib's names. Floats and schedules are traced, the rest shapes the program.

    The memory's windows are `burn_in` steps, `max_seq_len` to learn from and `n_step - 1` for the targets of the last.
    """

    serves = ("discrete",)

    lr: float | Schedule = 1e-4
    gamma: float = 0.997
    adam_epsilon: float = 1e-3
    grad_clip: float | None = 40.0  # of the global norm
    double_q: bool = True  # the online network chooses the next action, the target network values it
    dueling: bool = True  # Q is made of a value and advantages
    n_step: int = 1
    use_h_function: bool = True  # learn rescaled values
    h_function_epsilon: float = 1e-3
    priority_eta: float = 0.9  # of a sequence's largest TD error in its priority; the rest is for their mean
    zero_init_states: bool = False  # sequences begin with an empty memory instead of the stored state
    tau: float = 1.0  # how far the target network moves at each of its updates
    target_network_update_freq: float = 1000.0  # timesteps sampled between two of them
    num_steps_sampled_before_learning_starts: int = 1000  # timesteps
    random_timesteps: int = 0  # uniformly random actions at the start
    timesteps_per_update: float = 1.0
    burn_in: int = 0  # steps of a sequence that only bring the state up to date
    max_seq_len: int = 1  # steps of a sequence to learn from
    exploration: EpsilonGreedy | SoftQ = EpsilonGreedy()
    model: Model = LSTM()
    memory: Memory = Replay(keep_carry=True)
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> R2D2:
        require_kind(type(self).__name__, self.serves, spec.action)
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> R2D2State:
        assert isinstance(self.spec.action, Discrete)
        heads = {"advantage": (self.spec.action.n, 1.0)} | ({"value": (1, 1.0)} if self.dueling else {})
        params = self.model.init(key, self.spec.obs, heads)
        return R2D2State(params, jax.tree.map(jnp.copy, params), adam_init(params), jnp.zeros(()))

    def view(self, state: R2D2State, progress: Array) -> ActingView:
        return ActingView(state.params, self.exploration.level(progress))

    def start(self, view: ActingView, rows: int, key: Key) -> Tree:
        return self.model.start(rows)

    def act(self, view: ActingView, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        mask = action_mask(self.spec, obs)
        obs = features(self.spec.obs, jax.tree.map(lambda leaf: leaf[None], obs))
        carries, heads = self.model.apply(view.params, carry, obs, first[None])
        values = self._values(heads)
        action = self.exploration.choose(values, view.level, key, mask) if explore else greedy(values, mask)
        return action, jax.tree.map(lambda leaf: leaf[0], carries), {}

    def update(self, state: R2D2State, batch: Transition, key: Key, progress: Array) -> tuple[R2D2State, dict]:
        action = batch.action[self.burn_in :][: self.max_seq_len]
        weight = batch.extras["weight"][0] if "weight" in batch.extras else 1.0

        def loss_of(params: Tree) -> tuple[Array, tuple[Array, Array]]:
            carries, heads = self._unroll(params, batch)
            target = jax.lax.stop_gradient(self._target(state.target, params, carries, batch))
            values = self._values(heads)[: target.size]
            error = (batched_index(values, fold(action)) - target).reshape(action.shape)
            return 0.5 * jnp.mean(weight * jnp.square(error)), (error, jnp.mean(self._unscaled(values)))

        (loss, (error, mean_q)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        lr = value_at(self.lr, progress)
        params, optimizer, norm = adam(
            state.params, gradients, state.optimizer, lr, self.grad_clip, epsilon=self.adam_epsilon
        )
        since = state.since_sync + self.timesteps_per_update
        moved, since = periodic_update(state.target, params, self.tau, since, self.target_network_update_freq)
        metrics = {
            "loss": loss,
            "mean_q": mean_q,
            "mean_td_error": jnp.mean(error),
            "grad_gnorm": norm,
            "cur_lr": lr,
            "cur_exploration": self.exploration.level(progress),
            "td_error": sequence_priority(error, self.priority_eta),
        }
        return R2D2State(params, moved, optimizer, since), metrics

    def _values(self, heads: dict[str, Array]) -> Array:
        """Rescaled action values `[T * B, actions]` of heads `[T, B, outputs]`."""
        if not self.dueling:
            return fold(heads["advantage"])
        return dueling(fold(heads["value"]), fold(heads["advantage"]))

    def _unscaled(self, values: Array) -> Array:
        return signed_parabolic(values, self.h_function_epsilon) if self.use_h_function else values

    def _unroll(self, params: Tree, batch: Transition) -> tuple[Tree, dict[str, Array]]:
        """`unroll` from the stored states, or from empty ones."""
        rows = batch.reward.shape[1]
        start = self.model.start(rows) if self.zero_init_states else jax.tree.map(lambda leaf: leaf[0], batch.carry)
        return unroll(self.model, params, start, features(self.spec.obs, batch.obs), batch.first, self.burn_in)

    def _target(self, target: Tree, params: Tree, carries: Tree, batch: Transition) -> Array:
        """What the values of the actions taken should have been, rescaled, `[max_seq_len * B]`.

        `carries` are the online network's states before and after the steps behind the burn-in.
        """
        target_carries, _ = self._unroll(target, batch)
        batch = jax.tree.map(lambda leaf: leaf[self.burn_in :], batch._replace(carry=(), extras=()))
        next_obs = features(self.spec.obs, batch.next_obs)
        values = self._next_values(target, target_carries, next_obs)
        chooser = self._next_values(params, carries, next_obs) if self.double_q else values
        mask = action_mask(self.spec, batch.next_obs)
        best = batched_index(values, greedy(chooser, None if mask is None else fold(mask)))
        best = self._unscaled(best)
        steps = n_step_return(windows(batch, self.n_step), self.gamma)
        reached = at_step(windows(best.reshape(batch.reward.shape), self.n_step), steps.last)
        return_ = steps.return_ + steps.discount * reached
        return signed_hyperbolic(return_, self.h_function_epsilon) if self.use_h_function else return_

    def _next_values(self, params: Tree, carries: Tree, next_obs: Array) -> Array:
        """Rescaled values `[T * B, actions]` of where steps led, from the states after them."""
        after = jax.tree.map(lambda leaf: leaf[1:], carries)
        return self._values(step_from(self.model, params, after, next_obs))


class R2D2Config(ReplayConfig):
    """Configuration of R2D2: `R2D2Config().environment("StatelessCartPole-v1").training(n_step=3).build()`."""

    algorithm_name = "R2D2"
    summary = "DQN with memory: sequences, burn-in, rescaled values"
    paper = "Kapturowski et al. 2019, ICLR"
    agent_class = R2D2
    learns_sequences = True
    more_settings: ClassVar[dict[str, Setting]] = {**REPLAY_SETTINGS, **STREAM_SETTINGS}
    exploration_types = ("EpsilonGreedy", "SoftQ")
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
