"""Policy gradient, REINFORCE (Williams 1992, doi:10.1007/BF00992696): the agent, and the file to read first.

One step an iteration along grad log pi(a | s) (G - b), where G is the discounted sum of the rewards from the action to
the end of its episode and b a baseline: the value of the state (`use_critic`), learned beside the policy, or 0. One
file serves feed-forward and recurrent networks, every space that has a distribution, and all loops.

Departures:

- only rewards after an action count for it, and states late in an episode weigh as much as early ones (the gradient
  of the discounted return would weigh step t with gamma^t): both are common practice;
- with a baseline, an episode that is truncated or still runs when the trajectory ends goes on with the value of where
  it led (this is A2C with `lambda_` 1 and without an entropy bonus);
- without one, nothing is known of what follows: such an episode counts as far as it went, so trajectories should be
  longer than episodes;
- Adam, whose steps are as large for means over the batch as for the paper's sums.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Agent, Array, Key, Memory, Model, Spec, Transition, Tree, hyper
from athlete.core.ranges import Fraction, Limit, NonNegativeFloat
from athlete.distributions import flat_action, output_size, shape_action
from athlete.memory.latest import Latest
from athlete.models.actor_critic import (
    apply_actor_critic,
    init_actor_critic,
    legal_distribution,
    policy_of,
    values_of_steps,
)
from athlete.models.catalog import make_model
from athlete.models.mlp import MLP
from athlete.ops.features import features
from athlete.ops.gradient import AdamState, adam, adam_init
from athlete.ops.masks import action_mask
from athlete.ops.returns import generalized_advantages
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.sequences import cut_with_carry
from athlete.settings.families import OnPolicyConfig


class PGState(NamedTuple):
    params: Tree
    optimizer: AdamState


class Batch(NamedTuple):
    """What the loss reads, as sequences `[L, N, ...]`: L steps each, 1 for a network without memory."""

    obs: Array
    first: Array
    carry: Tree  # at the start of each sequence, [N, ...]
    action: Tree
    return_: Array  # G
    advantage: Array  # G - b
    mask: Array | None = None  # which actions were legal


METRICS = ("policy_loss", "vf_loss", "entropy", "total_loss")  # in the order of the loss


@hyper
class PG(Agent):
    """Hyperparameters of PG under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    serves = ("discrete", "continuous", "other")

    lr: NonNegativeFloat | Schedule = 2e-3
    gamma: Fraction = 0.99
    use_critic: bool = True  # a baseline of values; False: none
    vf_loss_coeff: NonNegativeFloat = 0.5
    grad_clip: Limit | None = None  # of the global norm
    max_seq_len: int = 1  # timesteps that gradients flow through; 1 for a network without memory
    free_log_std: bool = True  # Box: one log standard deviation an action, whatever the observation
    model: Model = MLP()
    memory: Memory = Latest()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> PG:
        output_size(spec.action)
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> PGState:
        params = init_actor_critic(self.model, key, self.spec, self.free_log_std, self.use_critic)
        return PGState(params, adam_init(params))

    def view(self, state: PGState, progress: Array) -> Tree:
        return state.params

    def start(self, view: Tree, rows: int, key: Key) -> Tree:
        return self.model.start(rows)

    def act(self, view: Tree, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        policy, carry = policy_of(self.model, self.spec, view, carry, obs, first)
        action = policy.sample(key) if explore else policy.mode()
        return shape_action(self.spec.action, action), carry, ()

    def update(self, state: PGState, batch: Transition, key: Key, progress: Array) -> tuple[PGState, dict]:
        sequences = self._prepare(state.params, batch)
        lr = value_at(self.lr, progress)
        gradients, measured = jax.grad(self._loss, has_aux=True)(state.params, sequences)
        params, optimizer, norm = adam(state.params, gradients, state.optimizer, lr, self.grad_clip)
        metrics = {name: measured[i] for i, name in enumerate(METRICS)}
        return PGState(params, optimizer), metrics | {"grad_gnorm": norm, "cur_lr": lr}

    def _prepare(self, params: Tree, batch: Transition) -> Batch:
        """Returns under the acting parameters, and the batch cut into sequences."""
        value, next_value = values_of_steps(self.model, self.spec, params, batch)  # all 0 without a critic
        advantage = generalized_advantages(
            batch.reward, value, next_value, batch.terminated, batch.truncated, self.gamma, 1.0
        )
        obs, action = features(self.spec.obs, batch.obs), flat_action(self.spec.action, batch.action)
        mask = action_mask(self.spec, batch.obs)
        whole = Batch(obs, batch.first, batch.carry, action, value + advantage, advantage, mask)
        return cut_with_carry(whole, self.max_seq_len)

    def _loss(self, params: Tree, batch: Batch) -> tuple[Array, Array]:
        """-log pi(a | s) (G - b), and with a critic the squared error of b; means over the batch; `METRICS`."""
        _, outputs, value = apply_actor_critic(self.model, params, batch.carry, batch.obs, batch.first)
        policy = legal_distribution(self.spec, outputs, batch.mask)
        policy_loss = jnp.mean(-policy.log_prob(batch.action) * batch.advantage)
        vf_loss = jnp.mean(jnp.square(value - batch.return_)) if self.use_critic else jnp.zeros(())
        total = policy_loss + self.vf_loss_coeff * vf_loss
        return total, jnp.stack([policy_loss, vf_loss, jnp.mean(policy.entropy()), total])


class PGConfig(OnPolicyConfig):
    """Configuration of PG: `PGConfig().environment("CartPole-v1").training(use_critic=False).build()`."""

    algorithm_name = "PG"
    summary = "REINFORCE, the policy gradient and nothing else, with a baseline or without"
    paper = "Williams 1992, Machine Learning 8"
    agent_class = PG
    defaults: ClassVar[dict[str, Any]] = {
        "train_batch_size": 512,
        "normalize_rewards": True,  # returns of unlike size need rates of their own
    }

    def agent_parts(self) -> dict[str, Any]:
        """The network; where there is no critic, without one for its values."""
        model = self.model if self.use_critic else {**self.model, "vf_share_layers": True}
        return {**super().agent_parts(), "model": make_model(model)}
