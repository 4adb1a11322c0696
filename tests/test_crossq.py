"""CrossQ by hand: one forward pass for values and targets, moments that follow, one policy update in several."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.algorithms.crossq import CrossQ, CrossQConfig
from athlete.core import Spec, Transition
from athlete.models.batch_norm import EPSILON, BatchNormMLP
from athlete.models.mlp import MLP
from athlete.ops.gradient import adam_init
from athlete.ops.random import wrap
from athlete.ops.td import CriticBatches
from athlete.spaces import Box, Discrete

QUICK = {"xla_backend_optimization_level": 0}
KEY = wrap(np.array([0, 1], np.uint32))
SPEC = Spec(Box(-1, 1, (2,)), Box(-1, 1, (1,)))
LINEAR = BatchNormMLP((), momentum=0.75)  # standardise, then one dense layer


def agent(**changes):
    return CrossQ(**{"policy_delay": 1, "policy_model": LINEAR, "q_model": LINEAR, **changes}).bind(SPEC)


def critics(learner, *kernels):
    """Critics of standardised (x, y, action), one row of weights for each."""
    found = learner.init(KEY).critics
    for critic, kernel in zip(found, kernels, strict=True):
        critic["learned"]["heads"]["q"]["kernel"] = jnp.asarray(kernel, jnp.float32)[:, None]
    return found


INPUTS = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, -0.5]])
NEXT_INPUTS = np.array([[2.0, 0.0, 1.0], [1.0, 3.0, 0.0]])
REWARD, DISCOUNT, WEIGHT = np.array([1.0, -1.0]), np.array([0.5, 0.0]), np.array([2.0, 0.5])
SAMPLES = CriticBatches(*(jnp.asarray(part, jnp.float32) for part in (INPUTS, NEXT_INPUTS, REWARD, DISCOUNT, WEIGHT)))
FIRST, SECOND = np.array([1.0, 2.0, 4.0]), np.array([3.0, 1.0, 0.0])


@functools.partial(jax.jit, compiler_options=QUICK)
def update_critics(learner, found, learning_rate=0.0):
    optimizer = adam_init([critic["learned"] for critic in found])
    return learner._update_critics(found, optimizer, SAMPLES, learning_rate)


def by_hand():
    """Standardised inputs `[4, 3]` of present and next together, values `[2, 4]`, errors `[2, 2]`."""
    both = np.concatenate([INPUTS, NEXT_INPUTS])
    standard = (both - both.mean(axis=0)) / np.sqrt(both.var(axis=0) + EPSILON)
    values = np.stack([standard @ FIRST, standard @ SECOND])
    target = REWARD + DISCOUNT * values[:, 2:].min(axis=0)
    return standard, values, values[:, :2] - target


# The critics --------------------------------------------------------------------------------------------------------


def test_present_and_next_are_standardised_together_and_the_smallest_next_value_is_the_target():
    learner = agent()
    _, metrics = update_critics(learner, critics(learner, FIRST, SECOND))
    _, values, errors = by_hand()
    assert metrics["mean_q"] == pytest.approx(values[:, :2].mean(), rel=1e-4)
    assert metrics["mean_td_error"] == pytest.approx(errors.mean(), rel=1e-4)
    assert metrics["critic_loss"] == pytest.approx(0.5 * (WEIGHT * errors**2).sum(axis=0).mean(), rel=1e-4)
    np.testing.assert_allclose(metrics["td_error"], np.abs(errors).mean(axis=0), rtol=1e-4)


def test_no_gradient_flows_into_the_targets():
    learner = agent()
    _, metrics = update_critics(learner, critics(learner, FIRST, SECOND))
    standard, _, errors = by_hand()
    squares = 0.0
    for kernel, error in zip((FIRST, SECOND), errors * WEIGHT, strict=True):
        of_kernel = (error[:, None] * standard[:2]).mean(axis=0)
        # What follows standardising: kernel, bias, and the normalisation's scale and shift.
        parts = [of_kernel, error.mean(), of_kernel * kernel, error.mean() * kernel]
        squares += sum(np.sum(np.square(part)) for part in parts)
    assert metrics["grad_gnorm"] == pytest.approx(np.sqrt(squares), rel=1e-4)


def test_the_running_moments_follow_present_and_next_together():
    learner = agent()
    (after, _), _ = update_critics(learner, critics(learner, FIRST, SECOND))
    both = np.concatenate([INPUTS, NEXT_INPUTS])
    for critic in after:
        np.testing.assert_allclose(critic["running"][0].mean, 0.25 * both.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(critic["running"][0].variance, 0.75 + 0.25 * both.var(axis=0), rtol=1e-5)


def test_batches_are_renormalised_from_the_update_that_was_said():
    plain = agent()
    found = critics(plain, FIRST, SECOND)
    q = [float(update_critics(agent(renormalize_after=after), found)[1]["mean_q"]) for after in (0.0, 1.0)]
    expected = np.mean([INPUTS @ FIRST, INPUTS @ SECOND]) / np.sqrt(1 + EPSILON)  # by running moments of 0 and 1
    assert q[0] == pytest.approx(expected, rel=1e-4)
    assert q[1] == pytest.approx(by_hand()[1][:, :2].mean(), rel=1e-4)


def test_with_one_critic_its_own_value_is_the_target():
    learner = agent(twin_q=False)
    _, metrics = update_critics(learner, critics(learner, FIRST))
    _, values, _ = by_hand()
    errors = values[0, :2] - (REWARD + DISCOUNT * values[0, 2:])
    np.testing.assert_allclose(metrics["td_error"], np.abs(errors), rtol=1e-4)


# The whole update ---------------------------------------------------------------------------------------------------


def batch_of(count):
    """Transitions `[1, count]` at random."""
    numbers = np.random.default_rng(3).normal(size=(6, 1, count)).astype(np.float32)
    never = np.zeros((1, count), bool)
    obs, next_obs = np.stack(numbers[:2], -1), np.stack(numbers[2:4], -1)
    return Transition(obs, never, np.tanh(numbers[4])[..., None], numbers[5], next_obs, never, never, (), {})


@functools.partial(jax.jit, compiler_options=QUICK)
def update(learner, state, batch):
    return learner.update(state, batch, KEY, 0.0)


def test_one_update_is_several_of_the_critics_and_then_one_of_the_policy():
    learner = agent(policy_delay=3)
    state = learner.init(KEY)
    found, metrics = update(learner, state, batch_of(3 * 8))
    assert (found.critic_optimizer.count, found.actor_optimizer.count) == (3, 1)
    assert metrics["td_error"].shape == (24,)
    # The policy saw the last of the batches, once; the critics saw all, each three quarters of what came before.
    last = batch_of(24).obs[0, 16:]
    np.testing.assert_allclose(found.actor["running"][0].mean, 0.25 * last.mean(axis=0), rtol=1e-4)
    mean = np.zeros(2)
    for part in range(3):
        rows = slice(8 * part, 8 * part + 8)
        both = np.concatenate([batch_of(24).obs[0, rows], batch_of(24).next_obs[0, rows]])
        mean = 0.75 * mean + 0.25 * both.mean(axis=0)
    np.testing.assert_allclose(found.critics[0]["running"][0].mean[:2], mean, rtol=1e-4, atol=1e-6)


def test_the_policy_climbs_the_smaller_value_as_acting_would_see_it_and_the_temperature_follows():
    learner = agent(critic_lr=0.0, actor_lr=0.1, alpha_lr=0.1, initial_alpha=0.5, target_entropy=5.0)
    state = learner.init(KEY)
    state = state._replace(critics=critics(learner, [0.0, 0.0, 4.0], [0.0, 0.0, -2.0]))
    state.actor["learned"]["heads"]["policy"]["kernel"] = jnp.zeros((2, 2))
    batch = batch_of(64)
    found, metrics = update(learner, state, batch)
    action, log_prob = learner._distribution(jnp.zeros((64, 2))).sample_and_log_prob(jax.random.split(KEY)[1])
    running = found.critics[0]["running"][0]  # of the update of the critics that came before
    standard = (np.asarray(action)[:, 0] - running.mean[2]) / np.sqrt(running.variance[2] + EPSILON)
    value = np.minimum(4.0 * standard, -2.0 * standard)
    assert metrics["actor_loss"] == pytest.approx(float(np.mean(0.5 * log_prob - value)), rel=1e-4)
    assert metrics["entropy"] == pytest.approx(float(-np.mean(log_prob)), rel=1e-4)
    assert found.temperature.alpha() == pytest.approx(0.5 * np.exp(0.1), rel=1e-3), "less than the target: it grows"


def test_acting_uses_running_moments_only():
    learner = agent(policy_model=BatchNormMLP((4,)))
    view = learner.view(learner.init(KEY), 0.0)
    obs = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    act = functools.partial(learner.act, view, (), key=KEY, explore=False)
    together = act(obs=obs, first=np.zeros(6, bool))[0]
    alone = [act(obs=obs[i : i + 1], first=np.zeros(1, bool))[0][0] for i in range(6)]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-6)


# Configuration ------------------------------------------------------------------------------------------------------


def made(**settings):
    config = CrossQConfig.from_dict({"env": "Pendulum-v1", **settings})
    config.validate()
    return config, config.make_agent(SPEC)


def test_by_default_critics_are_updated_once_a_timestep_and_the_policy_every_third():
    config, learner = made()
    assert (config.fragment_length(), learner.updates, learner.memory.batch_size) == (3, 1, 3 * 256)
    assert (learner.policy_delay, learner.adam_beta1) == (3, 0.5)


def test_networks_come_from_the_settings_of_the_model():
    _, learner = made(q_model_config={"fcnet_hiddens": [32]}, policy_model_config={"fcnet_activation": "tanh"})
    assert learner.q_model == BatchNormMLP((32,), "relu")
    assert learner.policy_model == BatchNormMLP((256, 256), "tanh")
    _, learner = made(q_model_config={"custom_model": LINEAR})
    assert learner.q_model == LINEAR


def test_networks_without_batch_normalisation_are_refused():
    with pytest.raises(ValueError, match=r"CrossQ needs networks with batch normalisation, and q_model is MLP"):
        CrossQ(q_model=MLP()).bind(SPEC)
    with pytest.raises(ValueError, match="CrossQ needs networks with batch normalisation, and policy_model is MLP"):
        made(policy_model_config={"use_layer_norm": True})


def test_other_action_spaces_are_refused_with_who_serves_them():
    with pytest.raises(ValueError, match=r"CrossQ serves Box .* this one is Discrete"):
        CrossQ().bind(Spec(SPEC.obs, Discrete(2)))
