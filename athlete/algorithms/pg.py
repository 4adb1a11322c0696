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

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from athlete.algorithms.on_policy import ActorCriticState, Batch, OnPolicy
from athlete.core import Array, Key, Model, Transition, Tree, hyper
from athlete.core.ranges import Limit, NonNegativeFloat
from athlete.models.actor_critic import apply_actor_critic, init_actor_critic, legal_distribution
from athlete.models.catalog import make_model
from athlete.models.mlp import MLP
from athlete.ops.gradient import Adam, adam_init
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.statistics import weighted_mean
from athlete.settings.families import OnPolicyConfig

METRICS = ("policy_loss", "vf_loss", "entropy", "total_loss")  # in the order of the loss


@hyper
class PG(OnPolicy):
    """Hyperparameters of PG under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    lr: NonNegativeFloat | Schedule = 2e-3
    use_critic: bool = True  # a baseline of values; False: none
    vf_loss_coeff: NonNegativeFloat = 0.5
    grad_clip: Limit | None = None  # of the global norm
    model: Model = MLP()

    def init(self, key: Key) -> ActorCriticState:
        params = init_actor_critic(self.model, key, self.spec, self.free_log_std, self.log_std_init, self.use_critic)
        return ActorCriticState(params, adam_init(params, self.optimizer))

    def update(
        self, state: ActorCriticState, batch: Transition, key: Key, progress: Array
    ) -> tuple[ActorCriticState, dict]:
        """The key is not used: nothing here is random."""
        sequences = self._prepare(state.params, batch)
        lr = value_at(self.lr, progress)
        gradients, measured = jax.grad(self._loss, has_aux=True)(state.params, sequences)
        adam = Adam(self.grad_clip, instead=self.optimizer)
        params, optimizer, norm = adam.step(state.params, gradients, state.optimizer, lr)
        metrics = {name: measured[i] for i, name in enumerate(METRICS)}
        return ActorCriticState(params, optimizer), metrics | {"grad_gnorm": norm, "cur_lr": lr}

    def _prepare(self, params: Tree, batch: Transition) -> Batch:
        """Returns G as targets, G - b as advantages, under the acting parameters; b is 0 without a critic."""
        return self._sequences(params, batch, 1.0)

    def _loss(self, params: Tree, batch: Batch) -> tuple[Array, Array]:
        """-log pi(a | s) (G - b), and with a critic the squared error of b; means over the batch; `METRICS`."""
        _, outputs, value = apply_actor_critic(self.model, params, batch.carry, batch.obs, batch.first)
        policy = legal_distribution(self.spec, outputs, batch.mask)
        policy_loss = weighted_mean(-policy.log_prob(batch.action) * batch.advantage, batch.weight)
        vf_loss = weighted_mean(jnp.square(value - batch.target), batch.weight) if self.use_critic else jnp.zeros(())
        total = policy_loss + self.vf_loss_coeff * vf_loss
        return total, jnp.stack([policy_loss, vf_loss, weighted_mean(policy.entropy(), batch.weight), total])


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
