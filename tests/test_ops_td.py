"""Temporal-difference learning by hand: transitions of n steps, each learning rule's errors, jitted and mapped."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.core import Spec, Transition
from athlete.ops import td
from athlete.ops.masks import FORBIDDEN
from athlete.spaces import Box, Dict, Discrete

SPEC = Spec(Box(-9, 9, (1,)), Discrete(2))
MASKED = Spec(Dict((("action_mask", Box(0, 1, (2,))), ("seen", Box(-9, 9, (1,))))), Discrete(2))


def window(reward, terminated, truncated) -> Transition:
    """Windows `[T, B]`; step t of row b goes from observation 10 b + t to 10 b + t + 1 with action b % 2."""
    reward = np.asarray(reward, np.float32)
    steps, rows = np.meshgrid(*map(np.arange, reward.shape), indexing="ij")
    obs = (10.0 * rows + steps)[..., None].astype(np.float32)
    flags = [np.asarray(flag, bool) for flag in (terminated, truncated)]
    action = (rows % 2).astype(np.int32)
    return Transition(obs, np.zeros(reward.shape, bool), action, reward, obs + 1, *flags, (), {})


# Three rows of three steps: one runs on, one is terminated by its second step, one truncated by it.
REWARDS = [[1, 1, 1], [2, 2, 2], [4, 4, 4]]
TERMINATED, TRUNCATED = [[0, 0, 0], [0, 1, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 1], [0, 0, 0]]
ROWS = window(REWARDS, TERMINATED, TRUNCATED)
WEIGHED = ROWS._replace(extras={"weight": np.float32([[0.25, 1, 0.5]])})  # one number a window, as memories attach it


def transition(batch=ROWS, spec=SPEC, gamma=0.5) -> td.NStepTransition:
    return jax.jit(lambda batch, gamma: td.n_step_transition(batch, spec, gamma))(batch, gamma)


def test_a_window_is_one_transition_of_n_steps_and_knows_both_endings():
    step = transition()
    np.testing.assert_allclose(step.obs[:, 0], [0, 10, 20])
    np.testing.assert_array_equal(step.action, [0, 1, 0])
    np.testing.assert_allclose(step.reward, [1 + 1 + 1, 1 + 1, 1 + 1])
    np.testing.assert_allclose(step.discount, [0.125, 0, 0.25])
    np.testing.assert_allclose(step.next_obs[:, 0], [3, 12, 22], err_msg="where the last step of each led")
    np.testing.assert_allclose(step.weight, [1, 1, 1])
    assert step.mask is None and step.next_mask is None


def test_a_window_of_one_step_is_that_step():
    step = transition(window([[1, 2]], [[0, 1]], [[0, 0]]))
    np.testing.assert_allclose([step.reward, step.discount, step.next_obs[:, 0]], [[1, 2], [0.5, 0], [1, 11]])


def test_a_transition_has_the_weights_of_prioritised_replay():
    np.testing.assert_allclose(transition(WEIGHED).weight, [0.25, 1, 0.5])


def test_a_transition_has_the_masks_of_where_it_begins_and_ends():
    masks = np.zeros((3, 3, 2), np.float32)
    masks[..., 0] = 1
    before, after = ({"action_mask": mask, "seen": ROWS.obs} for mask in (masks, 1 - masks))
    step = transition(ROWS._replace(obs=before, next_obs=after), MASKED)
    np.testing.assert_array_equal(step.mask, [[True, False]] * 3)
    np.testing.assert_array_equal(step.next_mask, [[False, True]] * 3)
    assert step.obs.shape == step.next_obs.shape == (3, 1), "the mask is no feature"


def step_of(reward, discount, action=0, next_mask=None) -> td.NStepTransition:
    """A transition for each reward."""
    reward, discount = np.broadcast_arrays(np.float32(reward), np.float32(discount))
    action = np.broadcast_to(np.int32(action), reward.shape)
    mask = None if next_mask is None else np.asarray(next_mask, bool)
    return td.NStepTransition((), None, action, reward, discount, (), mask, np.ones(reward.shape))


def test_the_error_of_a_critic_is_its_value_less_reward_and_discounted_next_value():
    step = step_of([1.0, 2.0], [0.5, 0.0])
    np.testing.assert_allclose(jax.jit(td.td_error)(np.float32([3, 3]), step, np.float32([4, 4])), [3 - 3, 3 - 2])
    several = jax.jit(td.td_error)(np.float32([[3, 3], [0, 0]]), step, np.float32([4, 4]))
    np.testing.assert_allclose(several, [[0, 1], [-3, -2]], err_msg="one target for all critics")


def test_a_target_of_samples_moves_and_shrinks_each():
    found = jax.jit(td.td_target)(step_of([1.0, 2.0], [0.5, 0.0]), np.float32([[2, 4, 6], [2, 4, 6]]))
    np.testing.assert_allclose(found, [[2, 3, 4], [2, 2, 2]])


def test_a_soft_value_is_the_smallest_of_the_critics_less_what_the_action_was_likely():
    values, log_prob = np.float32([[1, 5], [2, 3]]), np.float32([-1, 2])
    np.testing.assert_allclose(jax.jit(td.soft_value)(values, log_prob, 0.5), [1 + 0.5, 3 - 1])


def test_an_expected_soft_value_sums_over_actions():
    values, logits = np.float32([[[1, 5]], [[2, 3]]]), np.log(np.float32([[0.25, 0.75]]))
    found = jax.jit(td.expected_soft_value)(values, logits, np.float32([2.0]), 0.5)
    np.testing.assert_allclose(found, [0.25 * 1 + 0.75 * 3 + 0.5 * 2.0], rtol=1e-6)


VALUES, NEXT = np.float32([[1, 2], [3, 4]]), np.float32([[10, 20], [40, 30]])


def test_q_learning_takes_the_best_next_action():
    found = jax.jit(td.q_learning)(VALUES, step_of([1.0, 1.0], [0.5, 0.25], [0, 1]), NEXT)
    np.testing.assert_allclose(found, [1 - (1 + 10), 4 - (1 + 10)])


def test_double_q_learning_values_the_action_that_another_network_chooses():
    step, selector = step_of([1.0, 1.0], [0.5, 0.25], [0, 1]), np.float32([[1, 0], [0, 1]])
    found = jax.jit(td.double_q_learning)(VALUES, step, NEXT, selector)
    np.testing.assert_allclose(found, [1 - (1 + 5), 4 - (1 + 7.5)])


def test_only_legal_actions_follow():
    step = step_of([1.0, 1.0], [0.5, 0.25], [0, 1], next_mask=[[1, 0], [1, 1]])
    np.testing.assert_allclose(jax.jit(td.q_learning)(VALUES, step, NEXT), [1 - (1 + 5), 4 - (1 + 10)])
    selector = np.float32([[0, 9], [FORBIDDEN, 0]])
    np.testing.assert_allclose(jax.jit(td.double_q_learning)(VALUES, step, NEXT, selector), [1 - 6, 4 - 8.5])


def test_the_gradient_of_an_error_is_that_of_the_value_of_the_action_taken():
    """Targets are constants even where the same network gives them."""
    step = step_of([1.0], [0.5], [1])
    gradient = jax.grad(lambda values: jnp.sum(td.q_learning(values, step, 2 * values)))(np.float32([[3, 4]]))
    np.testing.assert_allclose(gradient, [[0, 1]])
    gradient = jax.grad(lambda value: jnp.sum(td.td_error(value, step, 2 * value)))(np.float32([3]))
    np.testing.assert_allclose(gradient, [1])


# C51: three atoms at -1, 0 and 1, two actions.
SUPPORT = np.float32([-1, 0, 1])
CERTAIN = 50.0  # a logit that makes its atom certain
LEFT, MIDDLE, RIGHT = np.eye(3, dtype=np.float32) * CERTAIN
EVEN = np.zeros(3, np.float32)


@pytest.mark.parametrize(
    ("reward", "discount", "target"),
    [
        (0.0, 0.5, [0, 0.5, 0.5]),  # 0.5 * 1: half way between two atoms
        (0.5, 0.5, [0, 0, 1]),  # exactly on the last one
        (9.0, 0.5, [0, 0, 1]),  # beyond it
        (-9.0, 0.5, [1, 0, 0]),
        (0.25, 0.0, [0, 0.75, 0.25]),  # nothing follows: the reward alone
    ],
)
def test_categorical_q_learning_is_the_cross_entropy_with_the_projected_distribution(reward, discount, target):
    logits = np.float32([[[0, 0, 9], [0.5, 1.5, 2.5]]])  # the next action is not chosen by these
    found = jax.jit(td.categorical_q_learning)(
        logits, step_of([reward], discount, [1]), SUPPORT, np.stack([[MIDDLE, RIGHT]])
    )
    np.testing.assert_allclose(
        found, [-np.dot(target, np.log(np.exp(logits[0, 1]) / np.exp(logits[0, 1]).sum()))], rtol=1e-5
    )


def test_categorical_double_q_learning_lets_another_network_choose():
    logits, following = np.stack([[EVEN, [0.0, 1.0, 2.0]]]), np.stack([[LEFT, RIGHT]])
    step = step_of([0.0], 1.0, [1])
    log_softmax = logits[0, 1] - np.log(np.exp(logits[0, 1]).sum())
    rule = jax.jit(td.categorical_double_q_learning)
    for choice, atom in (([1.0, 0.0], 0), ([0.0, 1.0], 2)):
        np.testing.assert_allclose(rule(logits, step, SUPPORT, following, np.float32([choice])), [-log_softmax[atom]])


def test_an_expected_return_is_the_mean_over_the_support():
    np.testing.assert_allclose(
        td.expected_return(np.stack([LEFT, MIDDLE, RIGHT, EVEN]), SUPPORT), [-1, 0, 1, 0], atol=1e-6
    )


# Quantiles: two of each of two actions. Means of the next ones are 2 and 3.
QUANTILES, FOLLOWING = np.float32([[[0, 1], [5, 5]]]), np.float32([[[0, 4], [2, 4]]])
FRACTIONS = np.float32([0.25, 0.75])


def by_hand(quantiles, target, kappa=1.0):
    """Equation 10 of QR-DQN for one sample, as it reads."""
    total = 0.0
    for quantile, fraction in zip(quantiles, FRACTIONS, strict=True):
        for sample in target:
            u = sample - quantile
            huber = 0.5 * u * u if abs(u) <= kappa else kappa * (abs(u) - 0.5 * kappa)
            total += abs(fraction - (u < 0)) * huber / kappa / len(target)
    return total


@pytest.mark.parametrize("kappa", [1.0, 3.0])
def test_quantile_q_learning_regresses_on_the_next_distribution(kappa):
    step = step_of([1.0], 0.5, [0])
    loss, error = jax.jit(td.quantile_q_learning)(QUANTILES, FRACTIONS, step, FOLLOWING, kappa)
    np.testing.assert_allclose(loss, [by_hand([0, 1], [1 + 1, 1 + 2], kappa)], rtol=1e-6)
    np.testing.assert_allclose(error, [0.5 - 2.5])


def test_quantile_double_q_learning_lets_another_network_choose():
    step, selector = step_of([1.0], 0.5, [0]), np.float32([[1, 0]])
    loss, error = jax.jit(td.quantile_double_q_learning)(QUANTILES, FRACTIONS, step, FOLLOWING, selector)
    np.testing.assert_allclose(loss, [by_hand([0, 1], [1, 3])], rtol=1e-6)
    np.testing.assert_allclose(error, [0.5 - 2])


def test_truncated_quantile_learning_leaves_out_the_largest_of_all_critics():
    # Pooled 0, 4, 2, 8 without the largest: 0, 4, 2, each with an entropy of 1 and halved: 0.5, 2.5, 1.5, and 1.
    own, following = np.float32([[[0, 1]], [[2, 3]]]), np.float32([[[0, 4]], [[2, 8]]])
    loss, error = jax.jit(td.truncated_quantile_learning, static_argnums=4)(
        own, step_of([1.0], 0.5), following, np.float32([1]), 1
    )
    target = [1.5, 3.5, 2.5]
    np.testing.assert_allclose(loss, [(by_hand([0, 1], target) + by_hand([2, 3], target)) / 2], rtol=1e-6)
    np.testing.assert_allclose(error, [1.5 - 2.5], rtol=1e-6)


def test_the_targets_of_a_sequence_are_those_of_all_its_windows():
    next_value = np.float32([[10, 20, 30]] * 3) + np.float32([[1], [2], [3]])
    found = jax.jit(td.n_step_targets, static_argnums=2)(ROWS, next_value, 2, 0.5)
    # Row 0: r + r/2 + v/4. Row 1 is terminated by step 1, row 2 truncated by it.
    runs = [[1 + 1 + 12 / 4, 2, 2 + 32 / 4], [2 + 2 + 13 / 4, 2, 2 + 32 / 2]]
    np.testing.assert_allclose(found, runs)
    one = jax.jit(td.n_step_targets, static_argnums=2)(WEIGHED, next_value, 1, 0.5)
    np.testing.assert_allclose(one[:, 0], [1 + 11 / 2, 2 + 12 / 2, 4 + 13 / 2])
    np.testing.assert_allclose(one[1, 1:], [2, 2 + 32 / 2])


def test_rules_mapped_over_seeds_equal_each_alone():
    random = np.random.default_rng(0)
    values, following, selector = random.normal(size=(3, 4, 5, 2)).astype(np.float32)
    step = step_of(random.normal(size=5), 0.5, [0, 1, 0, 1, 1])
    mapped = jax.jit(jax.vmap(td.double_q_learning, in_axes=(0, None, 0, 0)))(values, step, following, selector)
    for i in range(4):
        np.testing.assert_allclose(
            mapped[i], td.double_q_learning(values[i], step, following[i], selector[i]), rtol=1e-6
        )
    gammas = jax.vmap(lambda gamma: td.n_step_transition(ROWS, SPEC, gamma).discount)(np.float32([0.5, 1.0]))
    np.testing.assert_allclose(gammas, [[0.125, 0, 0.25], [1, 0, 1]])
