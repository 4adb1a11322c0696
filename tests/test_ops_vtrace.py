"""V-trace against numbers worked out by hand, across both ways an episode ends."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from athlete.ops.returns import generalized_advantages
from athlete.ops.vtrace import vtrace

NO = [False, False, False]
plain = jax.jit(vtrace, static_argnames="clip")


def traced(ratio, reward, value, next_value, terminated=NO, truncated=NO, gamma=0.5, clip=(1.0, 1.0), lambda_=1.0):
    """One row: lists over time in, arrays over time out."""
    columns = [np.array(part, np.float32)[:, None] for part in (np.log(ratio), reward, value, next_value)]
    flags = [np.array(part)[:, None] for part in (terminated, truncated)]
    found = plain(*columns, *flags, gamma, clip, lambda_)
    return [np.asarray(part)[:, 0] for part in found]


STEPS = {"reward": [1, 2, 3], "value": [2, 4, 6], "next_value": [4, 6, 8]}  # each delta is 1 before its ratio


def test_rare_actions_count_less_and_pass_on_less():
    # rho = c = [.5, .25, 1]: delta = [.5, .25, 1]; v - V from behind: 1, .25 + .5*.25*1, .5 + .5*.5*.375
    target, advantage = traced([0.5, 0.25, 1.0], **STEPS)
    np.testing.assert_allclose(target, [2 + 0.59375, 4 + 0.375, 6 + 1], rtol=1e-6)
    # rho (r + gamma v_{s+1} - V): .5 (1 + .5*4.375 - 2), .25 (2 + .5*7 - 4), 3 + .5*8 - 6
    np.testing.assert_allclose(advantage, [0.5 * 1.1875, 0.25 * 1.5, 1.0], rtol=1e-6)


def test_ratios_are_cut_at_their_thresholds_and_traces_at_one():
    # rho = [2, 2, 1] for targets, [3, 3, 1] for advantages, c = 1: delta = [2, 2, 1]; v - V: 1, 2 + .5, 2 + .5*2.5
    target, advantage = traced([4.0, 4.0, 1.0], **STEPS, clip=(2.0, 3.0))
    np.testing.assert_allclose(target, [2 + 3.25, 4 + 2.5, 6 + 1], rtol=1e-6)
    np.testing.assert_allclose(advantage, [3 * (1 + 0.5 * 6.5 - 2), 3 * (2 + 0.5 * 7 - 4), 1], rtol=1e-6)


def test_a_termination_is_worth_nothing_after_and_lets_nothing_flow_in():
    steps = STEPS | {"next_value": [4, 100, 8]}
    target, advantage = traced([1, 0.5, 1], **steps, terminated=[False, True, False])
    # delta_1 = .5 (2 - 4); the third step belongs to another episode.
    np.testing.assert_allclose(target, [2 + 1 + 0.5 * -1, 4 - 1, 6 + 1], rtol=1e-6)
    np.testing.assert_allclose(advantage, [1 + 0.5 * 3 - 2, 0.5 * (2 - 4), 1], rtol=1e-6)


def test_a_truncation_is_bootstrapped_from_where_it_led():
    steps = STEPS | {"next_value": [4, 100, 8]}
    target, advantage = traced([1, 0.5, 1], **steps, truncated=[False, True, False])
    np.testing.assert_allclose(target, [2 + 1 + 0.5 * 24, 4 + 24, 6 + 1], rtol=1e-6)
    np.testing.assert_allclose(advantage, [1 + 0.5 * 28 - 2, 0.5 * (2 + 50 - 4), 1], rtol=1e-6)


@pytest.mark.parametrize("lambda_", [1.0, 0.6])
def test_of_the_policy_that_acted_targets_are_lambda_returns(lambda_):
    """Remark 1 of the paper: on-policy, V-trace is the Bellman target of n steps; with lambda, TD(lambda)."""
    random = np.random.default_rng(0)
    reward, value, next_value = random.normal(size=(3, 6, 4)).astype(np.float32)
    terminated, truncated = random.random((2, 6, 4)) < 0.2
    steps = (reward, value, next_value, terminated, truncated, 0.9)
    target, _ = jax.jit(vtrace)(np.zeros((6, 4), np.float32), *steps, lambda_=lambda_)
    np.testing.assert_allclose(target, value + generalized_advantages(*steps, lambda_), rtol=1e-4, atol=1e-5)


def test_rows_are_for_themselves_under_a_map():
    random = np.random.default_rng(1)
    ratio, reward, value, next_value = random.normal(size=(4, 5, 3)).astype(np.float32)
    flags = random.random((2, 5, 3)) < 0.3
    whole = vtrace(ratio, reward, value, next_value, *flags, 0.9)
    mapped = jax.vmap(lambda *parts: vtrace(*parts, 0.9), in_axes=1, out_axes=1)(
        *(part for part in (ratio, reward, value, next_value, *flags))
    )
    for one, other in zip(whole, mapped, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
