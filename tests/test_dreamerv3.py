"""DreamerV3: its update is that of a plain NumPy reference, `references_dreamerv3.py`; its settings are RLlib's."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references_dreamerv3 as references
from references import Adam
from test_references import (
    CONTINUOUS,
    DISCRETE,
    FALLING,
    assert_equal,
    assert_same_moments,
    batches_of,
    blank,
    follow,
    numbers,
    random_like,
)

from athlete.algorithms import get_config_class
from athlete.algorithms.dreamerv3 import DreamerV3, DreamerV3Config
from athlete.models.mlp import MLP
from athlete.models.rssm import RSSM, balanced_kl, draw, unimix
from athlete.ops.random import wrap
from athlete.ops.schedule import Schedule

TINY = {"rssm": RSSM(deter=2, groups=2, classes=3, units=3), "model": MLP((3,), "silu", layer_norm=True), "num_bins": 9}
LIMITS = {f"{part}_grad_clip_by_global_norm": 0.3 for part in ("world_model", "actor", "critic")}
RATES = {"world_model_lr": FALLING, "actor_lr": Schedule((0.0, 1.0), (0.03, 0.005)), "critic_lr": 0.02}


def draws_of(agent, key, batch):
    """The noise of every draw of an update, by the keys that it is said to split."""
    states, dream = jax.random.split(key)
    begin, states = jax.random.split(states)
    length, rows = batch.reward.shape
    groups = agent.rssm.groups, agent.rssm.classes
    number = (length + 1) * rows
    discrete, actions = batch.action.dtype.kind == "i", 3 if batch.action.dtype.kind == "i" else batch.action.shape[-1]
    noise = jax.random.gumbel if discrete else jax.random.normal
    keys = [jax.random.split(each) for each in jax.random.split(dream, agent.horizon_H)]
    return {
        "begin": jax.random.gumbel(begin, (length * rows, *groups)).reshape(length, rows, *groups),
        "states": jnp.stack([jax.random.gumbel(each, (rows, *groups)) for each in jax.random.split(states, length)]),
        "actions": jnp.stack([noise(each[0], (number, actions)) for each in keys]),
        "dream": jnp.stack([jax.random.gumbel(each[1], (number, *groups)) for each in keys]),
    }


# Whether the range of returns, which begins at `start`, stays below 1 and divides nothing, or not.
@pytest.mark.parametrize(
    ("spec", "decay", "start"), [(CONTINUOUS, 0.6, 2.0), (DISCRETE, 0.99, 0.2)], ids=["continuous", "discrete"]
)
def test_the_whole_update_is_the_references(spec, decay, start):
    agent = DreamerV3(
        **TINY, **LIMITS, **RATES, gamma=0.9, gae_lambda=0.7, horizon_H=3, entropy_scale=0.2, free_nats=0.25,
        return_normalization_decay=decay,
    ).bind(spec)  # fmt: skip
    state = blank(agent)
    parts = {name: random_like(getattr(state, name), seed) for seed, name in enumerate(state._fields[:4])}
    state = state._replace(**parts, return_range=np.float32(start))
    held = SimpleNamespace(**{name: numbers(part) for name, part in parts.items()}, return_range=start)
    for name in ("world", "actor", "critic"):
        setattr(held, f"{name}_optimizer", Adam(getattr(held, name), clip=0.3))
    batches = batches_of(spec, steps=3, rows=4, weighted=False)
    state = follow(agent, state, held, references.dreamer, batches, functools.partial(draws_of, agent))
    for name in parts:
        assert_equal(getattr(state, name), getattr(held, name), name)
    for name in ("world_optimizer", "actor_optimizer", "critic_optimizer"):
        assert_same_moments(getattr(state, name), getattr(held, name), name)
    assert (held.return_range < 1.0) == (start < 1.0), "the test would not see both"
    assert float(state.return_range) == pytest.approx(held.return_range, rel=1e-4)


def acting(spec):
    """`act` with random parameters, of carry, observations, first and explore, and the carry that rows start with."""
    agent = DreamerV3(**TINY).bind(spec)
    state = blank(agent)
    view = agent.view(random_like(state, 0), 0.0)
    key = wrap(np.array([0, 5], np.uint32))
    act = jax.jit(agent.act, static_argnames="explore")
    return functools.partial(act, view, key=key), agent.start(view, 64, key)


def test_it_acts_from_an_empty_memory_where_an_episode_begins():
    act, empty = acting(DISCRETE)
    obs = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    full = jax.tree.map(lambda leaf: leaf + 1.0, empty)
    for explore in (True, False):
        begun = act(full, obs, np.ones(64, bool), explore=explore)
        jax.tree.map(np.testing.assert_array_equal, begun, act(empty, obs, np.zeros(64, bool), explore=explore))
    action, carry, extras = begun
    assert extras == {}
    np.testing.assert_array_equal(carry.action, np.eye(3)[action])
    before, after = act(full, obs, np.zeros(64, bool))[1].latent, begun[1].latent
    assert np.abs(before.deter - after.deter).max() > 0.1


def test_it_acts_within_the_bounds_and_greedily_by_the_mean():
    act, empty = acting(CONTINUOUS)
    obs = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    action, carry, _ = act(empty, obs, np.ones(64, bool))
    assert np.abs(action).max() == 1.0, "what is drawn beyond is clipped"
    np.testing.assert_array_equal(carry.action, action)
    greedy = act(empty, obs, np.ones(64, bool), explore=False)[0]
    assert np.abs(greedy).max() < 1.0 and np.abs(greedy - action).max() > 0.1


def test_a_hundredth_of_every_distribution_is_uniform():
    np.testing.assert_allclose(np.exp(unimix(jnp.log(jnp.array([1e-30, 1.0])))), [0.005, 0.995], rtol=1e-5)


def test_draws_are_one_hot_and_their_gradient_is_that_of_the_probabilities():
    log_probs = jnp.log(jnp.array([[[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]]]))
    key = wrap(np.array([0, 1], np.uint32))
    hot, back = jax.vjp(lambda log_probs: draw(log_probs, key), log_probs)
    assert hot.shape == (1, 6) and set(np.ravel(hot).tolist()) == {0.0, 1.0}
    np.testing.assert_allclose(hot.reshape(2, 3).sum(axis=-1), [1, 1])
    np.testing.assert_allclose(back(jnp.ones((1, 6)))[0], np.exp(log_probs), rtol=1e-6)


def test_prior_and_posterior_learn_each_from_its_half_of_the_divergence():
    posterior, prior = jnp.log(jnp.array([[0.5, 0.5]])), jnp.log(jnp.array([[0.9, 0.1]]))
    expected = 0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1)
    both = jax.jit(jax.jacobian(lambda *each: jnp.stack(balanced_kl(*each, 0.0)), argnums=(0, 1)))
    np.testing.assert_allclose(balanced_kl(posterior, prior, 0.0), [expected, expected], rtol=1e-5)
    of_posterior, of_prior = both(posterior, prior)
    np.testing.assert_array_equal(of_posterior[0], 0.0)
    np.testing.assert_array_equal(of_prior[1], 0.0)
    np.testing.assert_allclose(of_prior[0], [[-0.5, -0.5]], rtol=1e-5)
    assert np.abs(of_posterior[1]).max() > 0
    np.testing.assert_array_equal(balanced_kl(posterior, prior, 1.0), [1.0, 1.0])
    np.testing.assert_array_equal(jax.jacobian(lambda prior: balanced_kl(posterior, prior, 1.0)[0])(prior), 0.0)


def test_dreamer_is_another_name_of_it():
    assert get_config_class("Dreamer") is get_config_class("DREAMER") is DreamerV3Config


def test_a_fragment_is_as_long_as_one_update_needs():
    config = DreamerV3Config().environment("CartPole-v1").rollouts(num_envs_per_worker=4)
    config.training(batch_size_B=8, batch_length_T=16, training_ratio=8, num_steps_sampled_before_learning_starts=128)
    ready = config.ready()
    assert (ready.fragment_length(), ready.updates(), ready.learned_per_update()) == (4, 1, 128)
    assert config.rollouts(rollout_fragment_length=12).ready().updates() == 3


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"train_batch_size": 64}, "DreamerV3 has no 'train_batch_size'; did you mean 'batch_size_B'"),
        ({"lr": 1e-3}, "DreamerV3 has no 'lr'"),
        ({"model_size": "tiny"}, "expected one of 'nano', 'micro'"),
        ({"symlog_obs": "yes"}, "True, False or 'auto'"),
        ({"model": {"use_lstm": True}}, "remembered by the model of the world"),
        ({"replay_buffer_config": {"type": "PrioritizedReplayBuffer"}}, "DreamerV3 learns from"),
        ({"training_ratio": 1, "rollout_fragment_length": 1}, "training_ratio=1 is less than one update of 1024"),
    ],
)
def test_what_cannot_be_is_told(settings, told):
    with pytest.raises(ValueError, match=told):
        DreamerV3Config.from_dict({"env": "CartPole-v1", **settings}).build()


def test_images_are_seen_by_convolutions_and_not_squashed():
    from athlete.core import Spec
    from athlete.spaces import Box, Discrete

    spec = Spec(Box(0, 255, (10, 10, 3), np.uint8), Discrete(2))
    agent = DreamerV3Config().environment("x").training(model_size="nano").make_agent(spec)
    assert type(agent.model).__name__ == "ConvNet"
    white = np.full((2, 10, 10, 3), 255, np.uint8)
    np.testing.assert_array_equal(agent._shown(white), np.ones((2, 300)))
