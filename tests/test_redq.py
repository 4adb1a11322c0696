"""REDQ and DroQ by hand: targets across both endings, the smallest of some critics, one policy update in several."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.algorithms import get_config_class
from athlete.algorithms.redq import REDQ, DroQConfig, Ensemble, REDQConfig
from athlete.core import Model, Spec, Transition, hyper
from athlete.memory.replay import Replay
from athlete.models.dropout import with_dropout
from athlete.models.mlp import MLP
from athlete.models.recurrent import GRU
from athlete.ops.features import feature_size
from athlete.ops.gradient import adam_init
from athlete.ops.random import wrap
from athlete.ops.td import CriticBatches, soft_critic_batches
from athlete.spaces import Box, Discrete

QUICK = {"xla_backend_optimization_level": 0}
KEY = wrap(np.array([0, 1], np.uint32))
SPEC = Spec(Box(-1, 1, (2,)), Box(-1, 1, (1,)))


@hyper
class Table(Model):
    """Each head is a table: outputs are inputs @ table."""

    def init(self, key, obs_space, heads):
        return {
            name: scale * jax.random.normal(key, (feature_size(obs_space), outputs))
            for name, (outputs, scale) in heads.items()
        }

    def apply(self, params, carry, obs, first):
        return (), {name: obs @ table for name, table in params.items()}


def agent(**changes):
    given = {"num_critics": 2, "policy_delay": 1, "policy_model": Table(), "q_model": Table(), **changes}
    return REDQ(**given).bind(SPEC)


def ensemble(*tables):
    """Critics and targets: q = table @ (x, y, action), one row of numbers for each critic."""
    critics = {"q": jnp.asarray(tables, jnp.float32)[:, :, None]}
    return Ensemble(critics, jax.tree.map(jnp.copy, critics), adam_init(critics))


@functools.partial(jax.jit, compiler_options=QUICK)
def update_critics(agent, ensemble, samples, learning_rate=0.0):
    return agent._update_critics(ensemble, samples, KEY, learning_rate)


def samples(**changes):
    """Two samples: inputs (observation of two numbers, action)."""
    given = {
        "inputs": [[1.0, 0.0, 0.5], [0.0, 1.0, -0.5]],
        "next_inputs": [[2.0, 0.0, 1.0], [0.0, 2.0, 0.0]],
        "reward": [1.0, -1.0],
        "discount": [0.5, 0.0],
        "weight": [1.0, 1.0],
        **changes,
    }
    return CriticBatches(**{name: jnp.asarray(value, jnp.float32) for name, value in given.items()})


# The critics --------------------------------------------------------------------------------------------------------

FIRST, SECOND = (1.0, 2.0, 4.0), (3.0, 1.0, 0.0)


def test_targets_take_the_smallest_value_and_every_critic_learns_from_it():
    # Next values: 2 + 4 = 6 and 4 by the first critic, 6 and 2 by the second: the smallest are 6 and 2.
    # Targets: 1 + 0.5 * 6 = 4 and -1. Values: 3 and 0 by the first, 3 and 1 by the second.
    _, metrics = update_critics(agent(), ensemble(FIRST, SECOND), samples())
    np.testing.assert_allclose(metrics["td_error"], [(1 + 1) / 2, (1 + 2) / 2])
    assert metrics["critic_loss"] == pytest.approx(np.mean([0.5 * (1 + 1) / 2, 0.5 * (1 + 4) / 2]))
    assert metrics["mean_q"] == pytest.approx((3 + 0 + 3 + 1) / 4)
    assert metrics["mean_td_error"] == pytest.approx((-1 + 1 - 1 + 2) / 4)


def test_the_gradient_is_that_of_half_the_mean_square_and_the_weight_counts():
    # Of the first critic: mean over samples of weight * error * inputs, errors -1 and 1 as above.
    weighted = samples(weight=[2.0, 0.5])
    _, metrics = update_critics(agent(), ensemble(FIRST, SECOND), weighted)
    first = np.mean([2.0 * -1 * np.array([1, 0, 0.5]), 0.5 * 1 * np.array([0, 1, -0.5])], axis=0)
    second = np.mean([2.0 * -1 * np.array([1, 0, 0.5]), 0.5 * 2 * np.array([0, 1, -0.5])], axis=0)
    assert metrics["grad_gnorm"] == pytest.approx(np.sqrt(np.sum(first**2) + np.sum(second**2)), rel=1e-5)


def test_targets_follow_the_critics_by_tau():
    before = ensemble(FIRST, SECOND)
    after, _ = update_critics(agent(tau=0.25), before, samples(), 0.1)
    moved = after.critics["q"] - before.critics["q"]
    assert np.abs(moved).max() == pytest.approx(0.1, rel=1e-4), "Adam's first step is as long as the learning rate"
    np.testing.assert_allclose(after.targets["q"], before.targets["q"] + 0.25 * moved, rtol=1e-5)


def test_the_critics_of_a_target_are_random_and_no_two_the_same():
    chooser = agent(num_critics=4, num_critics_in_target=2)
    targets = {"q": jnp.arange(4.0)}
    keys = jax.random.split(KEY, 300)
    pairs = np.sort(jax.jit(jax.vmap(lambda key: chooser._chosen(targets, key)["q"]))(keys), axis=1)
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    np.testing.assert_array_equal(found, [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]])
    assert counts.min() > 25 and counts.max() < 80


# The whole update ---------------------------------------------------------------------------------------------------


def batch_of(count):
    """Transitions `[1, count]` at random."""
    rng = np.random.default_rng(3)
    numbers = rng.normal(size=(6, 1, count)).astype(np.float32)
    never = np.zeros((1, count), bool)
    obs, next_obs = np.stack(numbers[:2], -1), np.stack(numbers[2:4], -1)
    return Transition(obs, never, np.tanh(numbers[4])[..., None], numbers[5], next_obs, never, never, (), {})


@functools.partial(jax.jit, compiler_options=QUICK)
def update(agent, state, batch):
    return agent.update(state, batch, KEY, 0.0)


def test_one_update_is_several_of_the_critics_and_then_one_of_the_policy():
    learner = agent(policy_delay=3, critic_lr=0.1, actor_lr=0.1)
    state = learner.init(KEY)
    batch = batch_of(3 * 4)
    found, metrics = update(learner, state, batch)
    assert (found.ensemble.optimizer.count, found.optimizer.count) == (3, 1)

    next_key, critics_key, _ = jax.random.split(KEY, 3)
    alpha = state.temperature.alpha()
    policy = functools.partial(learner._policy, state.actor)
    parts = soft_critic_batches(
        batch, SPEC, lambda obs: policy(obs).sample_and_log_prob(next_key), alpha, learner.gamma, 3
    )
    keys, by_hand, errors = jax.random.split(critics_key, 3), state.ensemble, []
    for i in range(3):
        part = jax.tree.map(lambda leaf, i=i: leaf[i], parts)
        by_hand, found_metrics = learner._update_critics(by_hand, part, keys[i], 0.1)
        errors.append(found_metrics["td_error"])
    np.testing.assert_allclose(found.ensemble.critics["q"], by_hand.critics["q"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["td_error"], np.concatenate(errors), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(parts.inputs[1, :, :2], batch.obs[0, 4:8], "batches keep the order of the memory")


def test_the_policy_climbs_the_mean_of_all_critics_and_the_temperature_follows_the_entropy():
    learner = agent(critic_lr=0.0, tau=0.0, actor_lr=0.1, alpha_lr=0.1, initial_alpha=0.5, target_entropy=-1.0)
    # The policy's means are 0, and its standard deviation is 1 everywhere: entropies are those of tanh of a normal.
    state = learner.init(KEY)._replace(ensemble=ensemble((0.0, 0.0, 4.0), (0.0, 0.0, -2.0)))
    state = state._replace(actor={"policy": jnp.zeros((2, 2))})
    batch = batch_of(512)
    found, metrics = update(learner, state, batch)
    action, log_prob = learner._policy(state.actor, batch.obs[0]).sample_and_log_prob(
        jax.random.split(jax.random.split(KEY, 3)[2])[0]
    )
    expected = np.mean(0.5 * np.asarray(log_prob)) - np.mean(1.0 * np.asarray(action))
    assert metrics["actor_loss"] == pytest.approx(expected, abs=1e-5)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    entropy = 0.5 * np.log(2 * np.pi * np.e) - np.average(2 * np.log(np.cosh(nodes)), weights=weights)
    assert metrics["entropy"] == pytest.approx(entropy, abs=0.1)
    assert entropy > -1.0, "more than the target: the temperature falls"
    assert found.temperature.alpha() == pytest.approx(0.5 * np.exp(-0.1), rel=1e-3)


# Dropout ------------------------------------------------------------------------------------------------------------


def test_dropout_leaves_the_mean_and_drops_as_often_as_it_says():
    params = MLP((300, 200), "relu").init(KEY, Box(-1, 1, (2,)), {"q": (1, 1.0)})
    kept = [np.asarray(layer["keep"]) for layer in with_dropout(params, 64, 0.25, KEY)["layers"]]
    assert [mask.shape for mask in kept] == [(64, 300), (64, 200)]
    for mask in kept:
        np.testing.assert_allclose(np.unique(mask), [0.0, 4 / 3], rtol=1e-6)
        assert (mask == 0.0).mean() == pytest.approx(0.25, abs=0.02)
    assert not (kept[0][:, :200] == kept[1]).all(), "layers must not share a mask"
    assert all((layer["keep"] == 1.0).all() for layer in with_dropout(params, 64, 0.0, KEY)["layers"])


def test_dropout_comes_before_the_layers_normalisation_and_its_activation():
    model = MLP((3,), "relu", layer_norm=True)
    params = model.init(KEY, Box(-1, 1, (2,)), {"q": (1, 1.0)})
    params["layers"][0]["keep"] = keep = np.array([[2.0, 0.0, 2.0]], np.float32)
    x = np.array([[[0.5, -1.0]]], np.float32)
    hidden = (x[0] @ params["layers"][0]["kernel"]) * keep
    normal = (hidden - hidden.mean()) / np.sqrt(hidden.var() + 1e-6)
    head = params["heads"]["q"]
    expected = np.maximum(normal, 0.0) @ head["kernel"]
    _, heads = model.apply(params, (), x, np.zeros((1, 1), bool))
    np.testing.assert_allclose(heads["q"][0], expected, rtol=1e-4, atol=1e-6)


def test_every_critic_draws_its_own_dropout():
    learner = agent(q_model=MLP((16,), "relu"), dropout=0.5)
    one = learner.init(KEY).ensemble.critics
    same = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], leaf.shape), one)
    values = np.asarray(learner._values(same, jnp.ones((8, 3)), KEY))
    assert values.shape == (2, 8)
    assert len(np.unique(values.round(5))) > 8, "units are dropped for each critic and sample apart"


# Configuration ------------------------------------------------------------------------------------------------------


def test_both_names_are_found_and_droq_is_two_critics_with_dropout_and_layer_normalisation():
    assert (get_config_class("REDQ"), get_config_class("droq")) == (REDQConfig, DroQConfig)
    redq, droq = (config().environment("Pendulum-v1").make_agent(SPEC) for config in (REDQConfig, DroQConfig))
    assert (redq.num_critics, redq.num_critics_in_target, redq.dropout, redq.q_model.layer_norm) == (10, 2, None, False)
    assert (droq.num_critics, droq.num_critics_in_target, droq.dropout, droq.q_model.layer_norm) == (2, 2, 0.01, True)
    assert not droq.policy_model.layer_norm
    assert redq.policy_delay == droq.policy_delay == 20


@pytest.mark.parametrize(
    ("settings", "updates"),
    [({}, 1), ({"training_intensity": 20 * 8}, 1), ({"training_intensity": 40 * 8, "num_envs_per_worker": 2}, 4)],
)
def test_an_update_learns_from_policy_delay_batches(settings, updates):
    config = REDQConfig.from_dict({"env": "Pendulum-v1", "train_batch_size": 8, **settings})
    config.validate()
    made = config.make_agent(SPEC)
    assert (made.memory.batch_size, made.updates) == (20 * 8, updates)


def test_too_little_training_intensity_for_one_update_is_refused():
    config = REDQConfig.from_dict({"env": "Pendulum-v1", "train_batch_size": 8, "training_intensity": 8})
    with pytest.raises(ValueError, match=r"REDQ: training_intensity=8 .* one update of 160 timesteps .* at least 20"):
        config.validate()


def test_other_action_spaces_are_refused_with_who_serves_them():
    with pytest.raises(ValueError, match=r"REDQ serves Box .* this one is Discrete"):
        REDQ().bind(Spec(SPEC.obs, Discrete(2)))


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"num_critics_in_target=3: .* there are num_critics=2"):
        REDQ(num_critics=2, num_critics_in_target=3).bind(SPEC)
    with pytest.raises(ValueError, match=r"dropout=0.1 is for critics that are MLPs, and q_model is GRU"):
        REDQ(dropout=0.1, q_model=GRU()).bind(SPEC)
    with pytest.raises(ValueError, match=r"dropout=1.0.*between 0 and 0.9"):
        DroQConfig().training(dropout=1.0)


def test_actions_are_within_bounds_and_greedy_ones_always_the_same():
    learner = agent(memory=Replay())
    view = learner.init(KEY).actor
    obs, first = np.ones((3, 2), np.float32), np.zeros(3, bool)
    keys = jax.random.split(KEY, 2)
    explored = [learner.act(view, (), obs, first, key)[0] for key in keys]
    greedy = [learner.act(view, (), obs, first, key, explore=False)[0] for key in keys]
    assert explored[0].shape == (3, 1) and (np.abs(explored[0]) < 1).all()
    assert not np.array_equal(*explored)
    np.testing.assert_array_equal(*greedy)
