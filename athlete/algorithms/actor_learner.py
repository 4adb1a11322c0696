"""What IMPALA and APPO share: learning from trajectories of a policy that is older than the one that learns.

Who collects them, and how old the policy was, is the business of the loop. Collected by the learner's own policy, as in
a compiled training, the ratios of probabilities are 1.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax

from athlete.algorithms.on_policy import Batch, OnPolicy
from athlete.core import Array, Key, Transition, Tree, hyper
from athlete.core.ranges import Fraction, Limit, NonNegativeFloat, PositiveInt
from athlete.distributions import flat_action, shape_action
from athlete.models.actor_critic import apply_actor_critic, legal_distribution, policy_of, values_of_steps
from athlete.ops.features import features
from athlete.ops.masks import action_mask
from athlete.ops.returns import generalized_advantages
from athlete.ops.schedule import Schedule
from athlete.ops.sequences import in_shares, sequences_with_carry
from athlete.ops.statistics import valid_steps
from athlete.ops.vtrace import VTrace, vtrace
from athlete.settings.families import WORKER_SETTINGS, OnPolicyConfig
from athlete.settings.table import Setting


@hyper
class ActorLearner(OnPolicy):
    """The settings of such algorithms under RLlib's names. An algorithm gives `init` and `update`."""

    off_policy_corrected: ClassVar[bool] = True

    lr: NonNegativeFloat | Schedule = 5e-4
    vtrace: bool = True  # False: advantages as if the learner's own policy had acted
    vtrace_clip_rho_threshold: Limit = 1.0  # of the targets
    vtrace_clip_pg_rho_threshold: Limit = 1.0  # of the policy's gradient
    lambda_: Fraction = 1.0
    vf_loss_coeff: NonNegativeFloat = 0.5
    entropy_coeff: float | Schedule = 0.01
    grad_clip: Limit | None = 40.0  # of the global norm
    num_epochs: PositiveInt = 1  # steps of the gradient on a batch, each of the whole batch

    def act(self, view: Tree, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        """The key is for sampling actions. The extras are their log probabilities."""
        policy, carry = policy_of(self.model, self.spec, view, carry, obs, first)
        action = policy.sample(key) if explore else policy.mode()
        return shape_action(self.spec.action, action), carry, {"log_prob": policy.log_prob(action)}

    def _prepare(self, params: Tree, pi: Tree, batch: Transition) -> Batch:
        """Targets and advantages of the policy with parameters `pi`, by the values of `params`; cut into sequences."""
        value, next_value = values_of_steps(self.model, self.spec, params, batch)
        action, mask = flat_action(self.spec.action, batch.action), action_mask(self.spec, batch.obs)
        obs = features(self.spec.obs, batch.obs)
        _, outputs, _ = apply_actor_critic(self.model, pi, _at_start(batch.carry), obs, batch.first)
        log_prob = legal_distribution(self.spec, outputs, mask).log_prob(action)
        corrected = self._corrected(log_prob - batch.extras["log_prob"], value, next_value, batch)
        weight = valid_steps(batch)
        whole = Batch(obs, batch.first, batch.carry, action, corrected.advantage, value, corrected.target, mask, weight)
        return in_shares(sequences_with_carry(whole, self.max_seq_len))

    def _corrected(self, log_ratio: Array, value: Array, next_value: Array, batch: Transition) -> VTrace:
        steps = (batch.reward, value, next_value, batch.terminated, batch.truncated, self.gamma)
        if not self.vtrace:
            advantage = generalized_advantages(*steps, self.lambda_)
            return VTrace(value + advantage, advantage)
        clip = self.vtrace_clip_rho_threshold, self.vtrace_clip_pg_rho_threshold
        return vtrace(log_ratio, *steps, clip, self.lambda_)


def _at_start(carry: Tree) -> Tree:
    return jax.tree.map(lambda leaf: leaf[0], carry)


class ActorLearnerConfig(OnPolicyConfig):
    """A configuration whose agent learns from what older policies collected: of workers, as it comes.

    `sample_async="lagged"` is the reproducible way: all workers collect with the policy of one iteration before, while
    it learns. False: they collect with the newest, and wait.
    """

    more_settings: ClassVar[dict[str, Setting]] = {
        **WORKER_SETTINGS,
        "sample_async": Setting("rollouts", True, "bool or lagged"),
    }
    defaults: ClassVar[dict[str, Any]] = {
        "workers_act": True,
        "num_envs_per_worker": 10,
        "train_batch_size": 500,  # RLlib's: 50 steps of 10 environments
        "normalize_rewards": True,  # values of unlike size need learning rates of their own
    }
