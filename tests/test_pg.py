"""PG by hand: returns with and without a baseline, the loss and its gradient, what a network without a critic is."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from chain import transitions
from tables import Table

from athlete.algorithms.on_policy import Batch
from athlete.algorithms.pg import PG, PGConfig
from athlete.core import Spec
from athlete.models.mlp import MLP
from athlete.models.separate import Separate
from athlete.ops.random import wrap
from athlete.spaces import Box, Discrete

KEY = wrap(np.array([0, 1], np.uint32))
SPEC = Spec(Box(0, 1, (3,)), Discrete(2))  # three states, one-hot
VALUES = {"network": {"policy": np.zeros((3, 2), np.float32), "value": np.array([[1], [2], [4]], np.float32)}}
NO_VALUES = {"network": {"policy": np.zeros((3, 2), np.float32)}}

# On the way to a truncation in state 2, that, on the way to a termination, that, and one that goes on.
BATCH = transitions(
    states=[0, 1, 0, 1, 0],
    next_states=[1, 2, 1, 2, 1],
    reward=[1, 2, 3, 4, 5],
    terminated=[False, False, False, True, False],
    truncated=[False, True, False, False, False],
)


def agent_of(**settings):
    return PG(**{"model": Table(), "gamma": 0.5, **settings}).bind(SPEC)


def test_with_a_baseline_returns_go_on_with_the_value_of_where_a_cut_led():
    found = jax.jit(agent_of()._prepare)(VALUES, BATCH)
    truncated, terminated, last = 2 + 0.5 * 4, 4, 5 + 0.5 * 2
    returns = np.array([1 + 0.5 * truncated, truncated, 3 + 0.5 * terminated, terminated, last])
    np.testing.assert_allclose(found.target[0], returns, rtol=1e-6)
    np.testing.assert_allclose(found.advantage[0], returns - np.array([1, 2, 1, 2, 1]), rtol=1e-6)


def test_without_one_they_are_what_was_earned():
    found = jax.jit(agent_of(use_critic=False)._prepare)(NO_VALUES, BATCH)
    returns = [1 + 0.5 * 2, 2, 3 + 0.5 * 4, 4, 5]
    np.testing.assert_allclose(found.target[0], returns, rtol=1e-6)
    np.testing.assert_array_equal(found.advantage, found.target)


PROBABILITY, ADVANTAGE = np.array([0.6, 0.25, 0.8]), np.array([2.0, -1.0, 0.5], np.float32)
SAMPLES = Batch(
    obs=np.eye(3, dtype=np.float32)[None],
    first=np.zeros((1, 3), bool),
    carry=(),
    action=np.zeros((1, 3), np.int32),
    value=np.array([[1, 2, 4]], np.float32),
    target=np.array([[0, 3, 6]], np.float32),
    advantage=ADVANTAGE[None],
)
POLICY = np.log(np.stack([PROBABILITY, 1 - PROBABILITY], axis=1)).astype(np.float32)


@pytest.mark.parametrize("use_critic", [True, False])
def test_the_loss_and_its_gradient_are_reinforce(use_critic):
    params = {"network": {**VALUES["network"], "policy": POLICY} if use_critic else {"policy": POLICY}}
    loss = jax.jit(jax.grad(agent_of(use_critic=use_critic)._loss, has_aux=True))
    gradient, (policy_loss, vf_loss, entropy, total) = loss(params, SAMPLES)
    assert policy_loss == pytest.approx(-(np.log(PROBABILITY) * ADVANTAGE).mean(), rel=1e-5)
    assert entropy == pytest.approx(
        -(PROBABILITY * np.log(PROBABILITY) + (1 - PROBABILITY) * np.log(1 - PROBABILITY)).mean(), rel=1e-5
    )
    # Values 1, 2 and 4 for returns of 0, 3 and 6.
    assert vf_loss == pytest.approx(2.0 if use_critic else 0.0)
    assert total == pytest.approx(float(policy_loss + 0.5 * vf_loss), rel=1e-5)
    # d log p / d logit of the action taken is 1 - p.
    np.testing.assert_allclose(gradient["network"]["policy"][:, 0], -(1 - PROBABILITY) * ADVANTAGE / 3, rtol=1e-5)
    if use_critic:
        np.testing.assert_allclose(gradient["network"]["value"][:, 0], np.array([1, -1, -2]) / 3, rtol=1e-5)


def test_an_update_makes_what_paid_likelier():
    state = agent_of().init(KEY)
    never = np.zeros(4, bool)
    batch = transitions(
        never * 0, never * 0, [0.0, 1.0, 0.0, 1.0], ~never, never, action=np.array([[0], [1], [0], [1]])
    )
    state, metrics = jax.jit(agent_of(lr=0.1).update)(state, batch, KEY, 0.0)
    policy = state.params["network"]["policy"][0]
    np.testing.assert_allclose(policy, [-0.1, 0.1], rtol=1e-3)  # the first step of Adam is the learning rate
    assert metrics["cur_lr"] == pytest.approx(0.1)
    assert int(state.optimizer.count) == 1


@pytest.mark.parametrize(
    ("settings", "model", "heads"),
    [
        ({}, Separate(MLP((7,))), {"policy", "value"}),
        ({"use_critic": False}, MLP((7,)), {"policy"}),
    ],
)
def test_without_a_critic_there_is_no_network_for_its_values(settings, model, heads):
    config = PGConfig().training(model={"fcnet_hiddens": [7]}, **settings).environment(normalize_rewards=False)
    agent = config.make_agent(SPEC)
    assert agent.model == model
    network = agent.init(KEY).params["network"]
    assert network.keys() == heads or network["heads"].keys() == heads
