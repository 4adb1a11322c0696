"""What value-based algorithms with a replay memory and a target network share: settings and the two networks' steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Self, TypeVar

import jax
import jax.numpy as jnp

from athlete.core import Agent, Array, Key, Memory, Model, Spec, Tree, hyper
from athlete.core.ranges import Fraction, Limit, NonNegativeFloat, NonNegativeInt, PositiveInt
from athlete.distributions import Categorical
from athlete.exploration import ActingView, EpsilonGreedy, Exploration
from athlete.memory.replay import Replay
from athlete.models.mlp import MLP
from athlete.ops.features import features
from athlete.ops.gradient import Adam, AdamState, Optimizer, adam_init
from athlete.ops.masks import action_mask
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.values import batched_index, greedy, periodic_update
from athlete.spaces import Discrete, require_kind


class QState(NamedTuple):
    """The state of a value-based agent."""

    params: Tree  # the online network
    target: Tree  # the target network, in the shapes of the online one
    optimizer: AdamState
    since_sync: Array  # float32 scalar: timesteps sampled since the target was updated


State = TypeVar("State", bound=Any)  # a `QState`, or a named tuple with its fields


@hyper
class QLearner(Agent):
    """The settings of value-based algorithms under RLlib's names, and what their updates have in common.

    An algorithm gives `init`, `_values` to act by, and an `update` that hands its losses to `_learn`.
    """

    serves = ("discrete",)

    lr: NonNegativeFloat | Schedule = 5e-4
    optimizer: Optimizer | None = None  # an optax transformation in the place of Adam, whose updates `lr` multiplies
    gamma: Fraction = 0.99
    adam_epsilon: NonNegativeFloat = 1e-8
    grad_clip: Limit | None = 40.0  # of the global norm
    double_q: bool = False  # the online network chooses the next action, the target network values it
    n_step: PositiveInt = 1
    tau: Fraction = 1.0  # how far the target network moves at each of its updates
    target_network_update_freq: NonNegativeFloat = 500.0  # timesteps sampled between two of them
    num_steps_sampled_before_learning_starts: NonNegativeInt = 1000  # timesteps
    random_timesteps: int = 0  # uniformly random actions at the start
    timesteps_per_update: float = 1.0
    exploration: Exploration = EpsilonGreedy()
    model: Model = MLP()
    memory: Memory = Replay()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> Self:
        require_kind(type(self).__name__, self.serves, spec.action)
        return dataclasses.replace(self, spec=spec)

    def view(self, state: Any, progress: Array) -> ActingView:
        return ActingView(state.params, self.exploration.rate(progress))

    def act(self, view: ActingView, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        """Actions `[B]` by their values; the key is for choosing among them."""
        values, mask = self._values(view.params, features(self.spec.obs, obs)), action_mask(self.spec, obs)
        return self.exploration.choose(values, view.rate, key, mask) if explore else greedy(values, mask), carry, {}

    def distribution(self, view: ActingView, carry: Tree, obs: Tree, first: Array) -> Categorical | None:
        values = self._values(view.params, features(self.spec.obs, obs))
        logits = self.exploration.logits(values, view.rate, action_mask(self.spec, obs))
        return None if logits is None else Categorical(logits)

    def _values(self, params: Tree, obs: Array) -> Array:
        """The values `[B, actions]` of features `[B, n]`, of a network without memory."""
        raise NotImplementedError

    def _actions(self) -> int:
        assert isinstance(self.spec.action, Discrete)
        return self.spec.action.n

    def _initial_state(self, params: Tree) -> QState:
        """The state that learning begins with: both networks alike."""
        return QState(params, jax.tree.map(jnp.copy, params), adam_init(params, self.optimizer), jnp.zeros(()))

    def _learn(
        self,
        state: State,
        losses_of: Callable[[Tree], tuple[Array, dict[str, Array]]],
        weight: Array,
        progress: Array,
    ) -> tuple[State, dict[str, Array]]:
        """One step of the online network, then of the target network; the new state and metrics.

        `losses_of(params)` gives the losses `[..., B]`, which `weight` `[B]` weighs, and metrics, arrays among them for
        the memory.
        """
        lr = value_at(self.lr, progress)
        optimizer = Adam(self.grad_clip, self.adam_epsilon, instead=self.optimizer)
        learned = optimizer.minimize(losses_of, state.params, state.optimizer, lr, weight)
        since = state.since_sync + self.timesteps_per_update
        target, since = periodic_update(state.target, learned.params, self.tau, since, self.target_network_update_freq)
        metrics = {
            "loss": learned.loss,
            **learned.aux,
            "grad_gnorm": learned.norm,
            "cur_lr": lr,
            "cur_exploration": self.exploration.rate(progress),
        }
        state = state._replace(params=learned.params, target=target, optimizer=learned.state, since_sync=since)
        return state, metrics


def quantile_metrics(quantiles: Array, action: Array, error: Array) -> dict[str, Array]:
    """What is reported of quantiles `[B, actions, N]`, the actions taken `[B]` and their TD errors `[B]`."""
    chosen = batched_index(quantiles, action)
    return {
        "mean_q": jnp.mean(jnp.mean(chosen, axis=-1)),
        "mean_spread": jnp.mean(jnp.std(chosen, axis=-1)),
        "mean_td_error": jnp.mean(error),
        "td_error": error,
    }
