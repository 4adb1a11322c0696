"""Parallelised Q-Network (Gallici et al. 2024, arXiv:2407.04811): Q-learning without replay and target network.

Many environments in parallel decorrelate the data, layer normalisation of the network keeps bootstrapping stable
(section 3 of the paper), and the targets are lambda-returns of the latest trajectory (section 4): Peng's Q(lambda)
(Peng & Williams 1994), computed backwards. The loss is the squared error of the actions taken,
over minibatches and epochs as in PPO.

Departures:

- Adam instead of RAdam;
- a truncated episode is bootstrapped from its true last observation, with the recurrent state of that moment;
- the values that the targets are made of come from one pass over `next_obs` rather than from the acting steps;
- where the minibatch does not divide the batch, each epoch leaves out the remainder, another one each time.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Agent, Array, Key, Memory, Model, Spec, Transition, Tree, hyper
from athlete.core.ranges import Fraction, Limit, NonNegativeFloat, PositiveInt
from athlete.exploration import ActingView, EpsilonGreedy, SoftQ, greedy
from athlete.memory.rollout import Rollout
from athlete.models.forward import forward_step
from athlete.models.mlp import MLP
from athlete.models.unroll import step_from
from athlete.ops.features import features
from athlete.ops.gradient import Adam, AdamState, Optimizer, adam_init
from athlete.ops.masks import action_mask, masked
from athlete.ops.returns import lambda_returns
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.sequences import minibatches, sequences_with_carry
from athlete.ops.statistics import valid_steps, weighted_mean
from athlete.ops.tree import merge_time
from athlete.ops.values import batched_index
from athlete.settings.families import ExplorationConfig, trajectory_parts
from athlete.spaces import Discrete, require_kind


class PQNState(NamedTuple):
    """The state of a `PQN`."""

    params: Tree
    optimizer: AdamState


class Batch(NamedTuple):
    """What the loss reads, as sequences `[L, N, ...]`: L steps each, 1 for a network without memory."""

    obs: Array  # features [L, N, n]
    first: Array  # bool [L, N]
    carry: Tree  # at the start of each sequence, [N, ...]
    action: Array  # int32 [L, N]
    target: Array  # [L, N], what the values of these actions should be
    weight: Array | None = None  # [L, N], of each step; None where all count the same


METRICS = ("loss", "mean_q", "mean_td_error", "grad_gnorm")  # of each minibatch, in this order


@hyper
class PQN(Agent):
    """Hyperparameters of PQN under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    serves = ("discrete",)

    lr: NonNegativeFloat | Schedule = 5e-4
    optimizer: Optimizer | None = None  # an optax transformation in the place of Adam, whose updates `lr` multiplies
    gamma: Fraction = 0.99
    lambda_: Fraction = 0.95  # how far targets reach along the trajectory: 0 one step, 1 to its end
    adam_epsilon: NonNegativeFloat = 1e-8
    grad_clip: Limit | None = 10.0  # of the global norm
    minibatch_size: PositiveInt = 128  # timesteps
    num_epochs: PositiveInt = 4
    max_seq_len: int = 1  # timesteps that gradients flow through; 1 for a network without memory
    exploration: EpsilonGreedy | SoftQ = EpsilonGreedy()
    model: Model = MLP(activation="relu", layer_norm=True)
    memory: Memory = Rollout()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> PQN:
        require_kind(type(self).__name__, self.serves, spec.action)
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> PQNState:
        assert isinstance(self.spec.action, Discrete)
        params = self.model.init(key, self.spec.obs, {"q": (self.spec.action.n, 1.0)})
        return PQNState(params, adam_init(params, self.optimizer))

    def view(self, state: PQNState, progress: Array) -> ActingView:
        return ActingView(state.params, self.exploration.rate(progress))

    def start(self, view: ActingView, rows: int, key: Key) -> Tree:
        return self.model.start(rows)

    def act(self, view: ActingView, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        """The key is for choosing actions."""
        mask, obs = action_mask(self.spec, obs), features(self.spec.obs, obs)
        carry, heads = forward_step(self.model, view.params, carry, obs, first)
        values = heads["q"]
        return self.exploration.choose(values, view.rate, key, mask) if explore else greedy(values, mask), carry, {}

    def update(self, state: PQNState, batch: Transition, key: Key, progress: Array) -> tuple[PQNState, dict]:
        """The key is for the order of minibatches."""
        sequences = self._prepare(state.params, batch)
        orders, gather = minibatches(sequences, key, self.num_epochs, self.minibatch_size)
        lr = value_at(self.lr, progress)
        adam = Adam(self.grad_clip, self.adam_epsilon, instead=self.optimizer)

        def step(carried: PQNState, order: Array) -> tuple[PQNState, Array]:
            gradients, measured = jax.grad(self._loss, has_aux=True)(carried.params, gather(order))
            params, optimizer, norm = adam.step(carried.params, gradients, carried.optimizer, lr)
            return PQNState(params, optimizer), jnp.append(measured, norm)

        state, measured = jax.lax.scan(step, state, orders)
        means = jnp.mean(measured, axis=0)
        metrics = {name: means[i] for i, name in enumerate(METRICS)}
        return state, metrics | {"cur_lr": lr, "cur_exploration": self.exploration.rate(progress)}

    def _prepare(self, params: Tree, batch: Transition) -> Batch:
        """Targets under the acting parameters, and the batch cut into sequences."""
        obs, next_obs = features(self.spec.obs, batch.obs), features(self.spec.obs, batch.next_obs)
        carries: Tree = ()
        if jax.tree.leaves(batch.carry):  # with memory: what is remembered after each step
            start = jax.tree.map(lambda leaf: leaf[0], batch.carry)
            carries, _ = self.model.apply(params, start, obs, batch.first)
        # next_obs continues from the state after each step, as a row of its own: right across every ending.
        values = step_from(self.model, params, carries, next_obs)["q"]
        next_value = jnp.max(masked(values, action_mask(self.spec, batch.next_obs)), axis=-1)
        target = lambda_returns(batch.reward, next_value, batch.terminated, batch.truncated, self.gamma, self.lambda_)
        whole = Batch(obs, batch.first, batch.carry, batch.action, target, valid_steps(batch))
        return sequences_with_carry(whole, self.max_seq_len)

    def _loss(self, params: Tree, batch: Batch) -> tuple[Array, Array]:
        """Half the squared error of the values of the actions taken; mean over the minibatch."""
        _, heads = self.model.apply(params, batch.carry, batch.obs, batch.first)
        value = batched_index(merge_time(heads["q"]), batch.action.reshape(-1))
        error = value - batch.target.reshape(-1)
        weight = None if batch.weight is None else batch.weight.reshape(-1)
        means = weighted_mean(jnp.stack([0.5 * error * error, value, error]), weight, axis=1)
        return means[0], means


class PQNConfig(ExplorationConfig):
    """Configuration of PQN: `PQNConfig().environment("CartPole-v1").training(lambda_=0.9).build()`."""

    algorithm_name = "PQN"
    summary = (
        "Q-learning in many environments at once, without replay and target network: layer normalisation "
        "holds it steady"
    )
    paper = "Gallici et al. 2024, arXiv:2407.04811"
    agent_class = PQN
    exploration_types = ("EpsilonGreedy", "SoftQ")
    fields_set_elsewhere = (*ExplorationConfig.fields_set_elsewhere, "max_seq_len")
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 32,
        "normalize_rewards": True,  # values of unlike size need learning rates of their own
        "model": {"fcnet_activation": "relu", "use_layer_norm": True},
        "exploration_config": {
            "type": "EpsilonGreedy",
            "initial_epsilon": 1.0,
            "final_epsilon": 0.1,
            "epsilon_timesteps": 50_000,
        },
    }

    def agent_parts(self) -> dict[str, Any]:
        return {**super().agent_parts(), **trajectory_parts(self)}
