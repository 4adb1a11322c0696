"""Temporal-difference learning: from a window of steps and what networks say of it to TD errors and losses.

`n_step_transition` makes one transition of n steps from a window `[n, B, ...]`. The learning rules under it compare
what was said where the transition began with its target, r + discount v(next_obs). They are named as in the
literature, and differ in what a value is and in which next action is believed:

    q_learning, double_q_learning                           an expected return for each discrete action
    categorical_q_learning, categorical_double_q_learning   a distribution over fixed atoms for each action
    quantile_q_learning, quantile_double_q_learning         quantiles of a distribution for each action
    td_error                                                the value of the action taken, as critics have it
    soft_value, expected_soft_value                         what a state is worth with its policy's entropy
    soft_critic_batches                                     the same, for several updates of critics
    truncated_quantile_learning                             quantiles of several critics, the largest left out

Errors are value minus target, `[B]`. No gradient flows into a target. Termination, truncation, n steps and
masks of illegal actions are in the transition; importance weights are too, for `ops.gradient.Adam.minimize` to apply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from athlete.core import Array, Spec, Transition, Tree
from athlete.ops.features import features
from athlete.ops.masks import action_mask
from athlete.ops.projection import project
from athlete.ops.quantile import lowest_weights, midpoints, quantile_huber
from athlete.ops.returns import at_step, n_step_return
from athlete.ops.sequences import windows
from athlete.ops.values import batched_index, greedy


class NStepTransition(NamedTuple):
    """A transition of n steps for each row of a batch."""

    obs: Array  # [B, features], where the steps began
    mask: Array | None  # bool [B, actions], which actions were legal there; None where observations have no mask
    action: Tree  # [B, ...], canonical: that of the first step
    reward: Array  # [B], the discounted sum of the steps' rewards
    discount: Array  # [B], gamma to the number of steps; 0 where the last one terminated the episode
    next_obs: Array  # [B, features], where the last step led
    next_mask: Array | None  # bool [B, actions], which actions are legal there
    weight: Array  # [B], of importance sampling: 1 unless replay is prioritised


class Rewarded(Protocol):
    """What a target is made of beside the value that follows, `[B]` each."""

    @property
    def reward(self) -> Array: ...

    @property
    def discount(self) -> Array: ...


def n_step_transition(batch: Transition, spec: Spec, gamma: Array) -> NStepTransition:
    """A window of n steps `[n, B, ...]` as one transition of n steps (Sutton & Barto 2018, equation 7.1).

    It ends with the step that ended its episode, whatever follows in the window: a terminated step is worth nothing
    after, a truncated one goes on from where it led (`ops.returns.n_step_return`).
    """
    steps = n_step_return(batch, gamma)
    obs, action = jax.tree.map(lambda leaf: leaf[0], (batch.obs, batch.action))
    next_obs = at_step(batch.next_obs, steps.last)
    return NStepTransition(
        features(spec.obs, obs),
        action_mask(spec, obs),
        action,
        steps.return_,
        steps.discount,
        features(spec.obs, next_obs),
        action_mask(spec, next_obs),
        importance_weight(batch),
    )


def every_window(trajectory: Transition, n: int) -> Transition:
    """The windows of n steps that begin with each step of a trajectory `[T, B, ...]`: `[n, T * B, ...]`.

    The last ones, which its end cuts, are followed by an episode's first step, and so stop there.
    """
    length, rows = trajectory.reward.shape[:2]
    step = jnp.arange(n)[:, None] + jnp.arange(length)
    windows = jax.tree.map(lambda leaf: leaf[jnp.minimum(step, length - 1)], trajectory)
    windows = windows._replace(first=windows.first | (step >= length)[..., None])
    return jax.tree.map(lambda leaf: leaf.reshape(n, length * rows, *leaf.shape[3:]), windows)


def importance_weight(batch: Transition) -> Array:
    """What each window `[T, B, ...]` counts for in the loss, `[B]`: what a prioritised memory attached, or 1.

    Schaul et al. 2016 (arXiv:1511.05952), section 3.4.
    """
    return batch.extras["weight"][0] if "weight" in batch.extras else jnp.ones(batch.reward.shape[1])


def td_target(step: Rewarded, next_value: Array) -> Array:
    """r + discount v, `[B, ...]`, for values or samples of returns `next_value` `[B, ...]` at `next_obs`."""
    reward, discount = (part.reshape(-1, *(1,) * (next_value.ndim - 1)) for part in (step.reward, step.discount))
    return jax.lax.stop_gradient(reward + discount * next_value)


def td_error(value: Array, step: Rewarded, next_value: Array) -> Array:
    """v(s, a) - (r + discount v'(s')), for the values `[B]` of one critic or `[critics, B]` of several.

    `next_value` `[B]` is one for all critics, by their target networks: the value of the next action for DDPG
    (Lillicrap et al. 2016, arXiv:1509.02971, algorithm 1), the smallest of two for TD3 (Fujimoto et al. 2018,
    arXiv:1802.09477, equation 10), a soft one for SAC (`soft_value`).
    """
    return value - td_target(step, next_value)


def soft_value(values: Array, log_prob: Array, alpha: Array) -> Array:
    """min_i Q_i(s, a) - alpha log pi(a|s), `[B]`: a state's soft value, estimated from one action of the policy.

    Haarnoja et al. 2018 (arXiv:1812.05905), equation 3, with the smallest of the critics' `values` `[critics, B]` as in
    clipped double Q-learning (Fujimoto et al. 2018, arXiv:1802.09477, equation 10). `log_prob` `[B]`.
    """
    return jnp.min(values, axis=0) - alpha * log_prob


class CriticBatches(NamedTuple):
    """Batches `[number, B, ...]` for updates of soft critics, whose targets are reward + discount * v(next_inputs)."""

    inputs: Array  # features of the observation, and the action
    next_inputs: Array  # the same of where n steps led
    reward: Array  # of n steps, and the discounted entropy after them
    discount: Array  # gamma^n; 0 where the last step terminated
    weight: Array  # 1 unless replay is prioritised


def soft_critic_batches(
    batch: Transition,
    spec: Spec,
    act: Callable[[Array], tuple[Array, Array]],
    alpha: Array,
    gamma: Array,
    number: int,
) -> CriticBatches:
    """A batch `[T, number * B, ...]` of Box actions as `number` batches, the first rows first.

    `act` gives actions and their log probabilities for features `[number * B, n]`: all at once, since the policy stands
    still while the critics learn. The target is that of Haarnoja et al. 2018 (arXiv:1812.05905, equations 2 and 3) with
    n = T steps and without the entropies between them.
    """
    step = n_step_transition(batch, spec, gamma)
    next_action, log_prob = act(step.next_obs)
    batches = CriticBatches(
        jnp.concatenate([step.obs, step.action.reshape(next_action.shape)], axis=-1),
        jnp.concatenate([step.next_obs, next_action], axis=-1),
        step.reward - step.discount * alpha * log_prob,
        step.discount,
        step.weight,
    )
    return jax.tree.map(lambda leaf: leaf.reshape(number, -1, *leaf.shape[1:]), batches)


def expected_soft_value(values: Array, logits: Array, entropy: Array, alpha: Array) -> Array:
    """sum_a pi(a|s) min_i Q_i(s, a) + alpha H(pi(s)), `[B]`: a state's soft value, exact over discrete actions.

    Christodoulou 2019 (arXiv:1910.07207), equation 10. `values` `[critics, B, actions]`, the policy's `logits`
    `[B, actions]` and its `entropy` `[B]`.
    """
    return jnp.sum(jax.nn.softmax(logits) * jnp.min(values, axis=0), axis=-1) + alpha * entropy


def q_learning(values: Array, step: NStepTransition, next_values: Array) -> Array:
    """Q(s, a) - (r + discount max_b Q'(s', b)), `[B]` (Watkins & Dayan 1992; Mnih et al. 2015, algorithm 1).

    `values` `[B, actions]` are those of `obs`, `next_values` those of `next_obs` by the target network. The maximum is
    over legal actions.
    """
    return double_q_learning(values, step, next_values, next_values)


def double_q_learning(values: Array, step: NStepTransition, next_values: Array, selector: Array) -> Array:
    """Q(s, a) - (r + discount Q'(s', argmax_b Q(s', b))), `[B]` (van Hasselt et al. 2016, arXiv:1509.06461, eq. 4).

    `selector` `[B, actions]` are the values of `next_obs` that choose the next action, by the online network;
    `next_values` are those that it is worth, by the target network.
    """
    return td_error(batched_index(values, step.action), step, _best(step, next_values, selector))


def categorical_q_learning(logits: Array, step: NStepTransition, support: Array, next_logits: Array) -> Array:
    """`categorical_double_q_learning` where the target network chooses the next action by its own expected returns."""
    return categorical_double_q_learning(logits, step, support, next_logits, expected_return(next_logits, support))


def categorical_double_q_learning(
    logits: Array, step: NStepTransition, support: Array, next_logits: Array, selector: Array
) -> Array:
    """C51's cross entropy, `[B]`: its loss, and its TD error (Bellemare et al. 2017, arXiv:1707.06887, algorithm 1).

    `logits` and `next_logits` `[B, actions, atoms]` are distributions over the returns `support` `[atoms]`. That of the
    next action, shifted by the reward and shrunk by the discount, is projected back onto the support (equation 7) and
    is what the action taken learns. `selector` `[B, actions]` chooses the next action.
    """
    probabilities = jax.nn.softmax(_best(step, next_logits, selector))
    returns = td_target(step, jnp.broadcast_to(support, probabilities.shape))
    target = jax.lax.stop_gradient(project(probabilities, returns, support))
    return -jnp.sum(target * jax.nn.log_softmax(batched_index(logits, step.action)), axis=-1)


def expected_return(logits: Array, support: Array) -> Array:
    """The mean `[...]` of each distribution `[..., atoms]` over the returns `support` `[atoms]`."""
    return jax.nn.softmax(logits) @ support


def quantile_q_learning(
    quantiles: Array, fractions: Array, step: NStepTransition, next_quantiles: Array, kappa: float = 1.0
) -> tuple[Array, Array]:
    """`quantile_double_q_learning` where the target network chooses the next action by the mean of its quantiles."""
    selector = jnp.mean(next_quantiles, axis=-1)
    return quantile_double_q_learning(quantiles, fractions, step, next_quantiles, selector, kappa)


def quantile_double_q_learning(
    quantiles: Array,
    fractions: Array,
    step: NStepTransition,
    next_quantiles: Array,
    selector: Array,
    kappa: float = 1.0,
) -> tuple[Array, Array]:
    """Quantile regression towards returns: losses and TD errors of the mean, `[B]` each (Dabney et al. 2018,
    arXiv:1710.10044, algorithm 1, for QR-DQN; arXiv:1806.06923, equations 2 and 3, for IQN).

    `quantiles` `[B, actions, N]` are at `fractions` `[N]` or `[B, N]`, `next_quantiles` `[B, actions, M]` are samples
    of each action's return at `next_obs`, by the target network, and `selector` `[B, actions]` chooses the action.
    """
    chosen = batched_index(quantiles, step.action)
    target = td_target(step, _best(step, next_quantiles, selector))
    return quantile_huber(chosen, target, fractions, kappa), jnp.mean(chosen, axis=-1) - jnp.mean(target, axis=-1)


def truncated_quantile_learning(
    quantiles: Array, step: NStepTransition, next_quantiles: Array, entropy_bonus: Array, dropped: int
) -> tuple[Array, Array]:
    """Quantile regression towards a truncated mixture: losses and TD errors of the mean, `[B]` each (Kuznetsov et al.
    2020, arXiv:2005.04269, equations 9 to 11).

    `next_quantiles` `[critics, B, N]` of the target critics are pooled, the `dropped` largest of each pool left out,
    and `entropy_bonus` `[B]`, -alpha log pi of the next action, added. Each critic's `quantiles` `[critics, B, N]`
    learn from what is left: the losses are summed over critics and averaged over quantiles.
    """
    pooled = jnp.concatenate(list(next_quantiles), axis=-1)
    kept = lowest_weights(pooled, pooled.shape[-1] - dropped)
    target = td_target(step, pooled + entropy_bonus[:, None])
    number = quantiles.shape[-1]
    losses = [quantile_huber(own, target, midpoints(number), weight=kept) / number for own in quantiles]
    return sum(losses), jnp.mean(quantiles, axis=(0, 2)) - jnp.sum(kept * target, axis=-1)


def n_step_targets(batch: Transition, next_value: Array, n: int, gamma: Array) -> Array:
    """Targets of n steps from each step of a sequence `[T, B]`, `[T - n + 1, B]` (Sutton & Barto 2018, equation 7.1).

    `next_value` `[T, B]` are the values of where each step led. Endings count as in `n_step_transition`.
    """
    steps = n_step_return(windows(batch._replace(carry=(), extras=()), n), gamma)
    reached = at_step(windows(next_value, n), steps.last)
    return (steps.return_ + steps.discount * reached).reshape(-1, next_value.shape[1])


def _best(step: NStepTransition, next_values: Array, selector: Array) -> Array:
    """The next values `[B, ...]`, among `[B, actions, ...]`, of the legal action that `selector` prefers."""
    return batched_index(next_values, greedy(selector, step.next_mask))
