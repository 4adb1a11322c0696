"""TRPO by hand: the constrained step where its answer is known, the value function apart, what it refuses."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from chain import transitions
from tables import Table

from athlete.algorithms.on_policy import Batch
from athlete.algorithms.trpo import TRPO, TRPOConfig, TRPOState, joined
from athlete.core import Spec
from athlete.ops.gradient import adam_init
from athlete.ops.random import wrap
from athlete.spaces import Box, Discrete

KEY = wrap(np.array([0, 1], np.uint32))
SPEC = Spec(Box(0, 1, (3,)), Discrete(2))  # three states, one-hot

# One state, logits 0: both actions equally likely. Action 0 is better than expected, action 1 worse.
ADVANTAGE = np.array([1.0, 1.0, -1.0, -1.0], np.float32)
SAMPLES = Batch(
    obs=np.ones((1, 4, 1), np.float32),
    first=np.zeros((1, 4), bool),
    carry={"policy": (), "value": ()},
    action=np.array([[0, 0, 1, 1]], np.int32),
    advantage=ADVANTAGE[None],
    value=np.zeros((1, 4), np.float32),
    target=np.array([[1, 2, 3, 4]], np.float32),
)
POLICY = {"network": {"policy": {"policy": np.zeros((1, 2), np.float32)}}}


def agent_of(**settings):
    return TRPO(**{"model": Table(), **settings}).bind(Spec(Box(0, 1, (1,)), Discrete(2)))


def test_the_step_is_along_the_natural_gradient_to_the_bound():
    """Logits of x and -x have a KL of log cosh x, x^2 / 2 to second order: the full step is sqrt(2 d), just inside."""
    bound = 0.02
    policy, metrics = jax.jit(agent_of(kl_target=bound, damping=0.0)._improve)(POLICY, SAMPLES)
    x = np.sqrt(2 * bound)
    np.testing.assert_allclose(policy["network"]["policy"]["policy"], [[x, -x]], rtol=1e-4)
    probability = 1 / (1 + np.exp(-2 * x))
    assert metrics["line_search_fraction"] == 1.0
    assert metrics["kl"] == pytest.approx(np.log(np.cosh(x)), rel=1e-3)
    assert metrics["surrogate_gain"] == pytest.approx(2 * probability - 1, rel=1e-4)
    assert metrics["kl"] <= bound
    assert metrics["entropy"] == pytest.approx(np.log(2))
    assert metrics["grad_gnorm"] == pytest.approx(np.sqrt(0.5), rel=1e-5)


def test_where_all_actions_are_as_good_the_policy_stays():
    same = SAMPLES._replace(advantage=np.zeros((1, 4), np.float32))
    policy, metrics = jax.jit(agent_of()._improve)(POLICY, same)
    np.testing.assert_array_equal(policy["network"]["policy"]["policy"], np.zeros((1, 2)))
    assert (metrics["line_search_fraction"], metrics["kl"], metrics["surrogate_gain"]) == (0.0, 0.0, 0.0)


def test_the_value_function_is_fitted_to_its_targets_and_to_nothing_else():
    state = TRPOState(POLICY, {"value": np.zeros((1, 1), np.float32)}, None)
    state = state._replace(optimizer=adam_init(state.value))
    agent = agent_of(num_epochs=200, minibatch_size=4)
    value, optimizer, _ = jax.jit(agent._fit)(state, SAMPLES, KEY, 0.1)
    assert value["value"][0, 0] == pytest.approx(2.5, abs=0.02), "the mean of the targets"
    assert int(optimizer.count) == 200
    assert jax.jit(agent._value_loss)(value, SAMPLES) == pytest.approx(1.25, abs=0.01), "their variance"


def test_targets_are_right_for_both_endings_and_advantages_standardised():
    """On the way to a truncation in state 2, that, on the way to a termination, that, a last step; values 1, 2, 4."""
    batch = transitions(
        states=[0, 1, 0, 1, 0],
        next_states=[1, 2, 1, 2, 1],
        reward=[1, 2, 3, 4, 5],
        terminated=[False, False, False, True, False],
        truncated=[False, True, False, False, False],
        carry={"policy": (), "value": ()},
    )
    agent = TRPO(model=Table(), gamma=0.5, lambda_=0.5).bind(SPEC)
    policy = {"network": {"policy": {"policy": np.zeros((3, 2), np.float32)}}}
    state = TRPOState(policy, {"value": np.array([[1], [2], [4]], np.float32)}, ())
    found = jax.jit(agent._prepare)(state, batch)
    truncated, terminated, last = 2 + 0.5 * 4 - 2, 4 - 2, 5 + 0.5 * 2 - 1
    advantage = np.array([1 + 0.25 * truncated, truncated, 3 + 0.25 * terminated, terminated, last])
    np.testing.assert_allclose(found.target[0], advantage + np.array([1, 2, 1, 2, 1]), rtol=1e-6)
    np.testing.assert_allclose(found.advantage[0], (advantage - advantage.mean()) / advantage.std(), rtol=1e-5)


def test_policy_and_values_have_a_network_each_and_act_together():
    agent = TRPOConfig().training(model={"fcnet_hiddens": [5]}).environment(normalize_rewards=False).make_agent(SPEC)
    state = agent.init(KEY)
    assert state.policy["network"].keys() == {"policy"}
    assert agent.view(state, 0.0)["network"].keys() == {"policy", "value"}
    assert joined(state.policy, state.value)["network"]["value"] is state.value
    assert state.value["heads"]["value"]["kernel"].shape == (5, 1)


def test_shared_layers_are_refused():
    config = TRPOConfig().training(model={"vf_share_layers": True})
    with pytest.raises(ValueError, match=r"TRPO: model=.*vf_share_layers.*fitted apart.*leave vf_share_layers out"):
        config.make_agent(SPEC)
