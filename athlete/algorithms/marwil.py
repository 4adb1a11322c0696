"""Monotonic advantage re-weighted imitation learning (Wang et al. 2018, NeurIPS 31; MARWIL), RLlib's objective.

Behaviour cloning in which a step counts exp(beta A / c): more where what followed was better than the state promised
(algorithm 1). A = G - V(s), where G are the discounted rewards to the end of the episode, V is learned beside the
policy by half the squared advantage, and c^2 is the running mean of squared advantages. `beta=0` is behaviour cloning.

Departures:

- an episode that was cut goes on with the value of where it was cut; with a network with memory that value is of the
  memory as it was at the step, not at the end;
- no step counts more than `max_weight`: as advantages shrink, an outlier would undo what was cloned;
- the running mean moves by 1e-3 at each update; by RLlib's 1e-8 it stays at its start, 100, so that beta is beta / 10.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from athlete.algorithms.on_policy import OnPolicy
from athlete.core import Array, Key, Memory, Model, Transition, Tree, hyper
from athlete.core.ranges import Fraction, Limit, NonNegativeFloat, PositiveFloat
from athlete.distributions import continuous_size, flat_action
from athlete.memory.replay import Replay
from athlete.models.actor_critic import apply_actor_critic, init_actor_critic, legal_distribution, values_of_steps
from athlete.models.mlp import MLP
from athlete.models.separate import Separate
from athlete.ops.features import features
from athlete.ops.gradient import Adam, AdamState, adam_init
from athlete.ops.masks import action_mask
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.values import half_square
from athlete.settings.families import RecordedConfig


class MARWILState(NamedTuple):
    """The state of a `MARWIL`."""

    params: Tree
    optimizer: AdamState
    sqd_adv_norm: Array  # float32 scalar, c^2


@hyper
class MARWIL(OnPolicy):
    """Hyperparameters of MARWIL under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    learns_returns = True

    lr: NonNegativeFloat | Schedule = 1e-4
    beta: NonNegativeFloat = 1.0  # how much a better step counts more; 0: all count the same
    max_weight: PositiveFloat = 20.0  # the most that a step counts
    vf_coeff: NonNegativeFloat = 1.0
    bc_logstd_coeff: NonNegativeFloat = 0.0  # what the log standard deviations of continuous actions are paid
    moving_average_sqd_adv_norm_update_rate: Fraction = 1e-3
    moving_average_sqd_adv_norm_start: PositiveFloat = 100.0
    grad_clip: Limit | None = None  # of the global norm
    model: Model = Separate(MLP())
    memory: Memory = Replay()

    def init(self, key: Key) -> MARWILState:
        params = init_actor_critic(self.model, key, self.spec, self.free_log_std, self.log_std_init)
        norm = jnp.full((), self.moving_average_sqd_adv_norm_start, jnp.float32)
        return MARWILState(params, adam_init(params, self.optimizer), norm)

    def update(self, state: MARWILState, batch: Transition, key: Key, progress: Array) -> tuple[MARWILState, dict]:
        """The key is not used. `batch.reward` are the discounted rewards to the end of each step's episode, and
        `next_obs` is where that was cut, whose value counts `extras["discount"]`.
        """
        obs, mask = features(self.spec.obs, batch.obs), action_mask(self.spec, batch.obs)
        action, start = flat_action(self.spec.action, batch.action), self.model.start(batch.reward.shape[1])
        begun = batch._replace(carry=jax.tree.map(lambda leaf: leaf[None], start))
        _, last_value = values_of_steps(self.model, self.spec, state.params, begun)
        target = batch.reward + batch.extras["discount"] * last_value

        def losses_of(params: Tree) -> tuple[Array, tuple]:
            _, outputs, value = apply_actor_critic(self.model, params, start, obs, batch.first)
            policy = legal_distribution(self.spec, outputs, mask)
            advantage = target - value
            square = jax.lax.stop_gradient(jnp.mean(jnp.square(advantage)))
            norm = state.sqd_adv_norm + self.moving_average_sqd_adv_norm_update_rate * (square - state.sqd_adv_norm)
            weight = jnp.minimum(jnp.exp(self.beta * advantage / (jnp.sqrt(norm) + 1e-8)), self.max_weight)
            weight = jax.lax.stop_gradient(weight)
            policy_loss = -weight * (policy.log_prob(action) + self.bc_logstd_coeff * self._log_std(outputs))
            vf_loss = half_square(advantage)
            measured = {"policy_loss": policy_loss, "vf_loss": vf_loss, "mean_weight": weight, "mean_value": value}
            measured["entropy"] = policy.entropy()
            return policy_loss + self.vf_coeff * vf_loss, (norm, measured)

        lr = value_at(self.lr, progress)
        adam = Adam(self.grad_clip, instead=self.optimizer)
        learned = adam.minimize(losses_of, state.params, state.optimizer, lr, weight=None)
        norm, measured = learned.aux
        metrics = {name: jnp.mean(each) for name, each in measured.items()}
        metrics |= {"total_loss": learned.loss, "sqd_adv_norm": norm, "grad_gnorm": learned.norm}
        return MARWILState(learned.params, learned.state, norm), metrics | {"cur_lr": jnp.asarray(lr, jnp.float32)}

    def _log_std(self, outputs: Array) -> Array:
        """The sum of the log standard deviations among the policy's outputs, `[T, B]`; 0 for other actions."""
        return jnp.sum(outputs[..., outputs.shape[-1] - continuous_size(self.spec.action) :], axis=-1)


class MARWILConfig(RecordedConfig):
    """Configuration of MARWIL: `MARWILConfig().environment("CartPole-v1").offline_data(input_="data.json").build()`."""

    algorithm_name = "MARWIL"
    summary = "behaviour cloning in which steps count more that turned out better than expected"
    paper = "Wang et al. 2018, NeurIPS 31"
    agent_class = MARWIL
    defaults: ClassVar[dict[str, Any]] = {
        "train_batch_size": 2000,
        "min_sample_timesteps_per_iteration": 100_000,
    }
