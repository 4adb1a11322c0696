"""IMPALA and APPO by hand: what one update does to known numbers, and what they learn from old trajectories."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from chain import Chain, transitions
from modes import CARTPOLE
from tables import Table

from athlete.algorithms import get_config_class
from athlete.algorithms.appo import APPO
from athlete.algorithms.impala import IMPALA
from athlete.core import Spec
from athlete.loops.collect import spec_of
from athlete.loops.learn import init_run, iterate_many
from athlete.models.mlp import MLP
from athlete.ops.gradient import adam_init
from athlete.ops.random import wrap
from athlete.ops.schedule import Schedule
from athlete.spaces import Box, Discrete

KEY = wrap(np.array([0, 1], np.uint32))
SPEC = Spec(Box(0, 1, (3,)), Discrete(2))  # three states, one-hot
PROBABILITY, VALUE = np.array([0.6, 0.25, 0.8]), np.array([1.0, 2.0, 4.0])  # of action 0, which is taken
PARAMS = {
    "network": {
        "policy": np.log(np.stack([PROBABILITY, 1 - PROBABILITY], axis=1)).astype(np.float32),
        "value": VALUE[:, None].astype(np.float32),
    }
}
NEVER = np.zeros(2, bool)


def older(probability):
    """Two steps, from state 0 to 1 to 2, of a policy that took the action with these probabilities."""
    batch = transitions([0, 1], [1, 2], [1.0, 3.0], NEVER, NEVER)
    log_prob = np.log(np.array(probability, np.float32))[:, None]
    return batch._replace(extras={"log_prob": log_prob})


def state_of(agent):
    state = jax.jit(agent.init)(KEY)
    state = state._replace(params=PARAMS, optimizer=adam_init(PARAMS))
    return state._replace(target=PARAMS) if hasattr(state, "target") else state


@pytest.mark.parametrize("kind", [IMPALA, APPO])
def test_targets_and_advantages_are_corrected_for_who_acted(kind):
    agent = kind(model=Table(), gamma=0.5).bind(SPEC)
    found = jax.jit(agent._prepare)(PARAMS, PARAMS, older([0.8, 0.25]))
    # Ratios .6/.8 = .75 and 1: delta = .75 (1 + .5*2 - 1), 3 + .5*4 - 2 = 3; v_1 - V_1 = 3, v_0 - V_0 = .75 + .375*3
    np.testing.assert_allclose(found.target[0], [1 + 0.75 + 0.375 * 3, 5.0], rtol=1e-5)
    np.testing.assert_allclose(found.advantage[0], [0.75 * (1 + 0.5 * 5 - 1), 3.0], rtol=1e-5)


def test_an_update_of_impala_is_one_step_of_these():
    agent = IMPALA(model=Table(), gamma=0.5, lr=0.1, entropy_coeff=0.0, vf_loss_coeff=0.5).bind(SPEC)
    state, metrics = jax.jit(agent.update)(state_of(agent), older([0.8, 0.25]), KEY, 0.0)
    log_prob, advantage = np.log([0.6, 0.25]), np.array([1.875, 3.0])
    assert metrics["policy_loss"] == pytest.approx(-(log_prob * advantage).mean(), rel=1e-5)
    assert metrics["vf_loss"] == pytest.approx((1.875**2 + 3.0**2) / 2, rel=1e-5)
    # Adam's first step is the learning rate itself, upwards for both; state 2 was never left.
    moved = state.params["network"]["policy"][:, 0] - PARAMS["network"]["policy"][:, 0]
    np.testing.assert_allclose(moved, [0.1, 0.1, 0.0], rtol=1e-3, atol=1e-6)


def test_appo_lets_no_ratio_count_beyond_its_clip():
    """With a policy far from its target on an action that was good, the surrogate is flat: the policy stays."""
    agent = APPO(model=Table(), gamma=0.5, lr=0.1, entropy_coeff=0.0, clip_param=0.2).bind(SPEC)
    low = {"network": {**PARAMS["network"], "policy": PARAMS["network"]["policy"] - np.float32([2.0, 0.0])}}
    state = state_of(agent)._replace(target=low)  # the new policy takes the action far more often
    after, metrics = jax.jit(agent.update)(state, older([0.6, 0.25]), KEY, 0.0)
    np.testing.assert_array_equal(after.params["network"]["policy"], PARAMS["network"]["policy"])
    assert metrics["kl"] > 0.1
    np.testing.assert_array_equal(after.target["network"]["value"], after.params["network"]["value"])


@pytest.mark.parametrize("kind", [IMPALA, APPO])
def test_values_of_a_policy_are_learned(kind):
    env = Chain(1.0)
    lr = Schedule((0.0, 1.0), (0.3, 0.003))
    agent = kind(model=Table(), gamma=0.9, lr=lr, grad_clip=None).bind(Spec(env.observation_space, env.action_space))

    @jax.jit
    def train(agent, env):
        run = init_run(agent, env, 4, np.array([0, 1], np.uint32), 8)
        return iterate_many(agent, env, 8, 400, 400.0 * 8 * 4, run)

    run, _ = train(agent, env)
    np.testing.assert_allclose(run.state.params["network"]["value"][:, 0], [2.71, 1.9, 1.0], rtol=0.01)


def test_a_policy_learns_from_what_another_one_did():
    """Actions uniformly at random, of which the second is better, but the first was said to be: ratios tell them apart.

    All steps are terminal. The policy is far from the one that acted, and V-trace values are its own all the same.
    """
    agent = IMPALA(model=Table(), lr=0.02, entropy_coeff=0.0).bind(SPEC)
    number = 400
    states = np.zeros(number, int)
    action = np.random.default_rng(0).integers(0, 2, number)
    batch = transitions(states, states, action.astype(float), np.ones(number, bool), np.zeros(number, bool))
    batch = batch._replace(
        action=action[:, None].astype(np.int32), extras={"log_prob": np.full((number, 1), np.log(0.5), np.float32)}
    )
    state, update = state_of(agent), jax.jit(agent.update)
    for _ in range(300):
        state, _ = update(state, batch, KEY, 0.0)
    logits = state.params["network"]["policy"][0]
    assert logits[1] - logits[0] > 3.0
    assert state.params["network"]["value"][0, 0] > 0.9, "of the policy that learned; the one that acted earned 0.5"


@pytest.mark.parametrize("kind", [IMPALA, APPO])
def test_of_its_own_latest_steps_there_is_nothing_to_correct(kind):
    """What acting says of its actions is what learning says of them: corrected and not, the losses are one."""
    losses = []
    for corrects in (True, False):
        agent = kind(model=MLP((4,)), vtrace=corrects).bind(spec_of(CARTPOLE))
        run = init_run(agent, CARTPOLE, 2, np.array([0, 1], np.uint32), 8)
        _, report = jax.jit(functools.partial(iterate_many, agent, CARTPOLE, 8, 1, 100.0))(run)
        losses.append(dict(zip(report.metrics.names, report.metrics.values[0], strict=True)))
    for name in ("policy_loss", "vf_loss"):
        assert losses[0][name] == pytest.approx(float(losses[1][name]), rel=1e-4)


@pytest.mark.parametrize(("name", "clip"), [("IMPALA", None), ("APPO", 0.4)])
def test_defaults_are_rllibs(name, clip):
    config = get_config_class(name.lower())()
    found = {key: config[key] for key in ("lr", "grad_clip", "vf_loss_coeff", "entropy_coeff", "num_epochs", "vtrace")}
    assert found == {
        "lr": 5e-4, "grad_clip": 40.0, "vf_loss_coeff": 0.5, "entropy_coeff": 0.01, "num_epochs": 1, "vtrace": True
    }  # fmt: skip
    assert config.train_batch_size == 500 and config.fragment_length() == 50
    assert config.get("clip_param") == clip
    old = get_config_class(name)().training(num_sgd_iter=2, vtrace_drop_last_ts=False)
    assert old.num_epochs == 2
