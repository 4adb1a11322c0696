"""Proximal Policy Optimization (Schulman et al. 2017, arXiv:1707.06347): the agent.

The clipped surrogate is equation 7, the KL-penalised one equation 8, the whole loss equation 9; advantages are
generalised advantage estimates (arXiv:1506.02438). `surrogate="discovered"` takes the objective of discovered policy
optimisation (DPO, Lu et al. 2022, arXiv:2210.05639) in place of equation 7. One file serves feed-forward and
recurrent networks, every space that has a distribution, and all loops.

Departures from the paper, each of them common practice:

- advantages are standardised over the batch;
- a truncated episode is bootstrapped from its true last observation, with the recurrent state of that moment;
- `vf_clip_param` clips how far a value may move from the old one, as OpenAI's code does (RLlib clips the error);
- `kl_coeff` adapts to the mean KL over all minibatches of an update, as in RLlib, where the paper takes that of the
  policy after it: over 25 updates with the defaults on CartPole and Pendulum that of the last epoch is 1.34 and 1.33
  times the mean;
- Adam's epsilon is 1e-5 and gradients are clipped by their global norm;
- where the minibatch does not divide the batch, each epoch leaves out the remainder, another one each time.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp

from athlete.algorithms.on_policy import OnPolicy, standardized
from athlete.core import Array, Key, Spec, Transition, Tree, hyper
from athlete.core.ranges import Fraction, Limit, NonNegativeFloat, PositiveInt
from athlete.distributions import continuous_size, flat_action, shape_action
from athlete.models.actor_critic import apply_actor_critic, init_actor_critic, legal_distribution, outputs_of
from athlete.ops.features import features
from athlete.ops.gradient import Adam, AdamState, adam_init
from athlete.ops.masks import action_mask
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.sequences import minibatches, sequences_with_carry
from athlete.ops.statistics import explained_variance, valid_steps, weighted_mean
from athlete.ops.surrogate import clipped_surrogate, discovered_surrogate
from athlete.ops.tree import where
from athlete.settings.families import OnPolicyConfig
from athlete.spaces import Box


class PPOState(NamedTuple):
    """The state of a `PPO`."""

    params: Tree
    optimizer: AdamState
    kl_coeff: Array  # float32 scalar, of equation 8; adapted to kl_target


class Batch(NamedTuple):
    """What the loss reads, as sequences `[L, N, ...]`: L steps each, 1 for a network without memory."""

    obs: Tree  # as it came: pictures stay uint8 until their minibatch
    first: Array  # bool [L, N]
    carry: Tree  # at the start of each sequence, [N, ...]
    action: Tree  # flat and canonical
    log_prob: Array  # [L, N], of the policy that acted
    old_outputs: Tree  # [L, N, outputs] of the policy that acted, for the exact KL; () where no KL coefficient is set
    advantage: Array  # [L, N], standardised
    value: Array  # [L, N], of the parameters that acted
    target: Array  # [L, N], what values should be
    mask: Array | None = None  # bool [L, N, actions]: which were legal
    weight: Array | None = None  # [L, N], of each step; None where all count the same


METRICS = ("policy_loss", "vf_loss", "entropy", "kl", "total_loss", "grad_gnorm")  # of each minibatch, in this order


@hyper
class PPO(OnPolicy):
    """Hyperparameters of PPO under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    lr: NonNegativeFloat | Schedule = 3e-4
    lambda_: Fraction = 0.95
    surrogate: Literal["clip", "discovered"] = "clip"  # "discovered": DPO's, without a clip_param
    clip_param: Limit | Schedule = 0.2
    vf_clip_param: Limit | None = None  # how far a value may move in one update; None: freely
    vf_loss_coeff: NonNegativeFloat = 0.5
    entropy_coeff: float | Schedule = 0.0
    kl_coeff: NonNegativeFloat | None = None  # beta of equation 8 at the start; None: no penalty
    kl_target: NonNegativeFloat = 0.01  # that kl_coeff is adapted to
    kl_stop: Limit | None = None  # leave out the rest of an update once a minibatch's KL is above this
    grad_clip: Limit | None = 0.5  # of the global norm
    rpo_alpha: NonNegativeFloat | None = None  # Box: learn with means moved by U(-rpo_alpha, rpo_alpha), in [-1, 1]
    minibatch_size: PositiveInt = 256  # timesteps
    num_epochs: PositiveInt = 10

    def bind(self, spec: Spec) -> Self:
        if self.rpo_alpha is not None and not (isinstance(spec.action, Box) and continuous_size(spec.action)):
            raise ValueError(
                f"PPO: rpo_alpha={self.rpo_alpha} moves the means of continuous actions, and this action space is "
                f"{spec.action}; leave it out"
            )
        return super().bind(spec)

    def init(self, key: Key) -> PPOState:
        params = init_actor_critic(self.model, key, self.spec, self.free_log_std, self.log_std_init)
        return PPOState(
            params,
            adam_init(params, self.optimizer),
            jnp.asarray(0.0 if self.kl_coeff is None else self.kl_coeff, jnp.float32),
        )

    def act(self, view: Tree, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        """The key is for sampling actions. The extras are their log probabilities, and what the exact KL needs."""
        outputs, mask, carry = outputs_of(self.model, self.spec, view, carry, obs, first)
        policy = legal_distribution(self.spec, outputs, mask)
        action = policy.sample(key) if explore else policy.mode()
        extras = {"log_prob": policy.log_prob(action)}
        if self.kl_coeff is not None:
            extras["outputs"] = outputs
        return shape_action(self.spec.action, action), carry, extras

    def update(self, state: PPOState, batch: Transition, key: Key, progress: Array) -> tuple[PPOState, dict]:
        """The key is for the order of minibatches and, with `rpo_alpha`, for the noise on each."""
        sequences = self._prepare(state.params, batch)
        orders, gather = minibatches(sequences, key, self.num_epochs, self.minibatch_size)
        lr, adam = value_at(self.lr, progress), Adam(self.grad_clip, epsilon=1e-5, instead=self.optimizer)

        def step(carried: tuple[Tree, AdamState, Array], order: Array) -> tuple[tuple[Tree, AdamState, Array], Array]:
            params, optimizer, running = carried
            noise_key = jax.random.fold_in(key, optimizer.count)
            gradients, measured = jax.grad(self._loss, has_aux=True)(
                params, gather(order), state.kl_coeff, progress, noise_key
            )
            new_params, new_optimizer, norm = adam.step(params, gradients, optimizer, lr)
            if self.kl_stop is not None:
                running = running & (measured[METRICS.index("kl")] <= self.kl_stop)
                new_params = where(running, new_params, params)
                new_optimizer = where(running, new_optimizer, optimizer)
            return (new_params, new_optimizer, running), jnp.append(measured, norm)

        carried = (state.params, state.optimizer, jnp.asarray(True))
        (params, optimizer, _), measured = jax.lax.scan(step, carried, orders)
        means = jnp.mean(measured, axis=0)
        metrics = {name: means[i] for i, name in enumerate(METRICS)}
        kl_coeff = self._adapt(state.kl_coeff, metrics["kl"])
        metrics["vf_explained_var"] = explained_variance(sequences.target, sequences.value, sequences.weight)
        metrics |= {"cur_lr": lr, "cur_kl_coeff": kl_coeff}
        return PPOState(params, optimizer, kl_coeff), metrics

    def _prepare(self, params: Tree, batch: Transition) -> Batch:
        """Advantages and targets under the acting parameters, and the batch cut into sequences."""
        value, advantage = self._estimates(params, batch, self.lambda_)
        weight = valid_steps(batch)
        target, advantage = value + advantage, standardized(advantage, weight)
        old_outputs = batch.extras.get("outputs", ())
        action, log_prob = flat_action(self.spec.action, batch.action), batch.extras["log_prob"]
        mask = action_mask(self.spec, batch.obs)
        whole = Batch(
            batch.obs, batch.first, batch.carry, action, log_prob, old_outputs, advantage, value, target, mask, weight
        )
        return sequences_with_carry(whole, self.max_seq_len)

    def _loss(
        self, params: Tree, batch: Batch, kl_coeff: Array, progress: Array, noise_key: Key
    ) -> tuple[Array, Array]:
        """Equation 9, with equation 7 or, where `kl_coeff` is set, both penalties; mean over the minibatch."""
        obs = features(self.spec.obs, batch.obs)
        _, outputs, value = apply_actor_critic(self.model, params, batch.carry, obs, batch.first)
        if self.rpo_alpha is not None:
            outputs = self._disturbed(outputs, self.rpo_alpha, noise_key)
        policy = legal_distribution(self.spec, outputs, batch.mask)
        log_ratio = policy.log_prob(batch.action) - batch.log_prob
        ratio = jnp.exp(log_ratio)
        if self.surrogate == "discovered":
            surrogate = discovered_surrogate(ratio, log_ratio, batch.advantage)
        else:
            surrogate = clipped_surrogate(ratio, batch.advantage, value_at(self.clip_param, progress))
        error = jnp.square(value - batch.target)
        if self.vf_clip_param is not None:
            near = batch.value + jnp.clip(value - batch.value, -self.vf_clip_param, self.vf_clip_param)
            error = jnp.maximum(error, jnp.square(near - batch.target))
        if self.kl_coeff is None:
            kl = ratio - 1.0 - log_ratio  # Schulman's low-variance estimate (k3) from samples
        else:
            kl = legal_distribution(self.spec, batch.old_outputs, batch.mask).kl(policy)
        means = weighted_mean(jnp.stack([-surrogate, error, policy.entropy(), kl]), batch.weight, axis=(1, 2))
        penalty = 0.0 if self.kl_coeff is None else kl_coeff
        weights = jnp.stack([1.0, self.vf_loss_coeff, -value_at(self.entropy_coeff, progress), penalty])
        total = jnp.sum(weights * means)
        return total, jnp.append(means, total)

    def _disturbed(self, outputs: Array, alpha: float, key: Key) -> Array:
        """RPO: the policy's outputs `[L, N, outputs]` with U(-alpha, alpha) on every mean, anew in every sample."""
        mean, log_std = jnp.split(outputs, 2, axis=-1)
        moved = mean + jax.random.uniform(key, mean.shape, minval=-alpha, maxval=alpha)
        return jnp.concatenate([moved, log_std], axis=-1)

    def _adapt(self, kl_coeff: Array, kl: Array) -> Array:
        """The paper's rule (section 4) with RLlib's factors: half as much again above 2 targets, half below 1/2."""
        larger = jnp.where(kl > 2.0 * self.kl_target, kl_coeff * 1.5, kl_coeff)
        return jnp.where(kl < 0.5 * self.kl_target, larger * 0.5, larger)


class PPOConfig(OnPolicyConfig):
    """Configuration of PPO: `PPOConfig().environment("CartPole-v1").training(lr=1e-3).build()`."""

    algorithm_name = "PPO"
    summary = "a policy that is held close to the one that collected the data"
    paper = "Schulman et al. 2017, arXiv:1707.06347"
    agent_class = PPO
    # Values of unlike size are what makes PPO fail untuned: rewards are scaled by default.
    defaults: ClassVar[dict[str, Any]] = {"normalize_rewards": True}
