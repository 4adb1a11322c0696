"""Model-agnostic meta-learning (MAML; Finn et al. 2017, arXiv:1703.03400, algorithm 3): parameters from which one step
of the policy gradient goes a long way, in whichever task of a distribution.

In each of `meta_batch_size` tasks the policy acts, takes a step down the policy gradient's loss with the rate
`inner_lr`, and acts again (`inner_adaptation_steps` times). The parameters that all tasks begin with then descend the
loss of what was done last, through the steps: with second derivatives (equation 4). As in RLlib and ProMP (Rothfuss et
al. 2019, arXiv:1810.06784) that loss is PPO's, taken `maml_optimizer_steps` times, with a penalty on how far the
policies that acted are left behind; inner steps are of the ratio's objective, whose derivative at the policy that acted
is the policy gradient's.

Departures:

- PPO in the place of TRPO;
- advantages come from a value head that all tasks share, not from a baseline that is fitted to each task anew; inner
  steps move the policy alone;
- advantages are standardised in each task.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from athlete.algorithms.on_policy import OnPolicy, standardized
from athlete.core import Array, Key, MetaLearner, Transition, Tree, hyper
from athlete.core.ranges import Fraction, Limit, NonNegativeFloat, PositiveInt
from athlete.distributions import flat_action, shape_action
from athlete.models.actor_critic import apply_actor_critic, init_actor_critic, legal_distribution, outputs_of
from athlete.ops.features import features
from athlete.ops.gradient import Adam, AdamState, adam_init
from athlete.ops.masks import action_mask
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.surrogate import clipped_surrogate
from athlete.settings.families import OnPolicyConfig
from athlete.settings.table import Setting


class MAMLState(NamedTuple):
    """The state of a `MAML`."""

    params: Tree  # that every task begins with
    optimizer: AdamState
    kl_coeff: Array  # of each inner step


class Batch(NamedTuple):
    """What is learned from of one task, `[T, B, ...]`."""

    obs: Array  # features
    first: Array
    action: Array  # flat canonical
    log_prob: Array
    outputs: Array  # of the policy that acted
    advantage: Array
    target: Array  # what values should be
    mask: Array | None


@hyper
class MAML(OnPolicy, MetaLearner):
    """Hyperparameters of MAML under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    lr: NonNegativeFloat | Schedule = 1e-3  # of the parameters that tasks begin with
    inner_lr: NonNegativeFloat = 0.1  # of a step in a task
    inner_adaptation_steps: PositiveInt = 1
    maml_optimizer_steps: PositiveInt = 5
    lambda_: Fraction = 1.0
    vf_loss_coeff: NonNegativeFloat = 0.5
    entropy_coeff: float | Schedule = 0.0
    clip_param: Limit = 0.3
    kl_coeff: NonNegativeFloat = 0.0005  # at the start
    kl_target: NonNegativeFloat = 0.01  # that it is adapted to
    grad_clip: Limit | None = None  # of the global norm
    meta_batch_size: PositiveInt = 20

    def init(self, key: Key) -> MAMLState:
        params = init_actor_critic(self.model, key, self.spec, self.free_log_std, self.log_std_init)
        kl_coeff = jnp.full(self.inner_adaptation_steps, self.kl_coeff, jnp.float32)
        return MAMLState(params, adam_init(params, self.optimizer), kl_coeff)

    def act(self, view: Tree, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        """The key is for sampling actions. The extras are their log probabilities and what the policy is made of."""
        outputs, mask, carry = outputs_of(self.model, self.spec, view, carry, obs, first)
        policy = legal_distribution(self.spec, outputs, mask)
        action = policy.sample(key) if explore else policy.mode()
        return (
            shape_action(self.spec.action, action),
            carry,
            {"log_prob": policy.log_prob(action), "outputs": outputs},
        )

    def prepare(self, params: Tree, trajectory: Transition) -> Batch:
        value, advantage = self._estimates(params, trajectory, self.lambda_)
        return Batch(
            features(self.spec.obs, trajectory.obs),
            trajectory.first,
            flat_action(self.spec.action, trajectory.action),
            trajectory.extras["log_prob"],
            trajectory.extras["outputs"],
            standardized(advantage),
            value + advantage,
            action_mask(self.spec, trajectory.obs),
        )

    def adapt(self, params: Tree, batch: Batch) -> Tree:
        """theta - inner_lr grad L(theta) (equation 1), L of the ratio's objective."""

        def loss_of(params: Tree) -> Array:
            policy, _ = self._policy(params, batch)
            return -jnp.mean(jnp.exp(policy.log_prob(batch.action) - batch.log_prob) * batch.advantage)

        slopes = jax.grad(loss_of)(params)
        return jax.tree.map(lambda leaf, slope: leaf - self.inner_lr * slope, params, slopes)

    def meta_update(self, state: MAMLState, batches: list[Batch], progress: Array) -> tuple[MAMLState, dict]:
        lr, adam = value_at(self.lr, progress), Adam(self.grad_clip, instead=self.optimizer)

        def losses_of(params: Tree) -> tuple[Array, Array]:
            measured = jax.vmap(lambda each: self._measure(params, each, state.kl_coeff, progress))(batches)
            return measured[:, 0], jnp.mean(measured, axis=0)

        def step(held: tuple[Tree, AdamState], _: None) -> tuple[tuple[Tree, AdamState], tuple[Array, Array]]:
            learned = adam.minimize(losses_of, *held, lr, weight=None)
            return (learned.params, learned.state), (learned.aux, learned.norm)

        held, (measured, norms) = jax.lax.scan(
            step, (state.params, state.optimizer), None, length=self.maml_optimizer_steps
        )
        total, policy_loss, vf_loss, entropy, *kl = jnp.mean(measured, axis=0)
        apart = jnp.stack(kl)
        larger = jnp.where(apart > 2.0 * self.kl_target, state.kl_coeff * 1.5, state.kl_coeff)
        kl_coeff = jnp.where(apart < 0.5 * self.kl_target, larger * 0.5, larger)
        metrics = {
            "total_loss": total,
            "policy_loss": policy_loss,
            "vf_loss": vf_loss,
            "entropy": entropy,
            "kl": jnp.mean(apart),
            "grad_gnorm": jnp.mean(norms),
            "cur_lr": lr,
            "cur_kl_coeff": jnp.mean(kl_coeff),
        }
        return MAMLState(*held, kl_coeff), metrics

    def _measure(self, params: Tree, batches: list[Batch], kl_coeff: Array, progress: Array) -> Array:
        """Of one task, whose parameters are adapted on the way: the loss and its parts, and what KL each inner policy
        is away from the one that acted.
        """
        apart = []
        for batch in batches[:-1]:
            policy, _ = self._policy(params, batch)
            apart.append(jnp.mean(legal_distribution(self.spec, batch.outputs, batch.mask).kl(policy)))
            params = self.adapt(params, batch)
        last = batches[-1]
        policy, value = self._policy(params, last)
        ratio = jnp.exp(policy.log_prob(last.action) - last.log_prob)
        policy_loss = -jnp.mean(clipped_surrogate(ratio, last.advantage, self.clip_param))
        vf_loss, entropy = jnp.mean(jnp.square(value - last.target)), jnp.mean(policy.entropy())
        total = policy_loss + self.vf_loss_coeff * vf_loss - value_at(self.entropy_coeff, progress) * entropy
        kl = jnp.stack(apart)
        return jnp.concatenate([jnp.stack([total + jnp.sum(kl_coeff * kl), policy_loss, vf_loss, entropy]), kl])

    def _policy(self, params: Tree, batch: Batch) -> tuple[Any, Array]:
        carry = self.model.start(batch.first.shape[1])
        _, outputs, value = apply_actor_critic(self.model, params, carry, batch.obs, batch.first)
        return legal_distribution(self.spec, outputs, batch.mask), value

    def update(self, state: MAMLState, batch: Transition, key: Key, progress: Array) -> tuple[MAMLState, dict]:
        """Of one task alone and without adapting in it: `meta_update` of that batch before and after, for whoever
        drives it as any other agent.
        """
        prepared = jax.tree.map(lambda leaf: leaf[None], self.prepare(state.params, batch))
        return self.meta_update(state, [prepared] * (self.inner_adaptation_steps + 1), progress)


class MAMLConfig(OnPolicyConfig):
    """Configuration of MAML: `MAMLConfig().environment("Pendulum-v1").training(tasks={"m": [0.5, 2.0]}).build()`.

    `tasks` are fields of a compiled environment and the ranges that they are drawn from. RLlib's `num_workers` is the
    number of tasks in an iteration, where it is set.
    """

    algorithm_name = "MAML"
    summary = "parameters from which a step of the policy gradient goes a long way, in any task of a distribution"
    paper = "Finn et al. 2017, arXiv:1703.03400"
    agent_class = MAML
    more_settings: ClassVar[dict[str, Setting]] = {"tasks": Setting("training", {}, "dict")}
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 10,
        "rollout_fragment_length": 200,
    }

    def agent_parts(self) -> dict[str, Any]:
        parts = super().agent_parts()
        return parts | ({"meta_batch_size": self.num_rollout_workers} if self.num_rollout_workers else {})

    def validate(self) -> None:
        super().validate()
        if self.sequence_length() > 1:
            raise ValueError(f"{self._title()}: networks have no memory here; leave it out")
