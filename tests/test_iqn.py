"""IQN by hand: the embedding of fractions, targets across both endings, the loss; what it refuses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import target, update

from athlete.algorithms.iqn import COSINES, IQN, IQNConfig
from athlete.core import Spec, Transition
from athlete.models.mlp import MLP
from athlete.ops.random import wrap
from athlete.spaces import Box, Discrete

SPEC = Spec(Box(-np.ones(1, np.float32), np.ones(1, np.float32)), Discrete(2))
KEY = wrap(np.array([0, 1], np.uint32))


def agent_of(**settings) -> IQN:
    return IQN(model=MLP(()), **{"embedding_size": 2, "hidden_size": 2, "gamma": 0.5, **settings}).bind(SPEC)


def params_of(cosine: int = 0, action_values: tuple = (1.0, 1.0)) -> dict:
    """A network whose features are (obs, 1) and whose embedding of a fraction is its cosine of this number, twice.

    An action's quantile is then (obs + 1) times that cosine, where positive, times the action's value: the hidden
    layer between them passes it on.
    """
    fraction = np.zeros((COSINES, 2), np.float32)
    fraction[cosine] = 1.0
    return {
        "torso": {
            "layers": [],
            "heads": {"features": {"kernel": np.array([[1.0, 0.0]], np.float32), "bias": np.array([0.0, 1.0])}},
        },
        "fraction": {"kernel": fraction, "bias": np.zeros(2, np.float32)},
        "hidden": {"kernel": np.eye(2, dtype=np.float32), "bias": np.zeros(2, np.float32)},
        "values": {"kernel": np.array([action_values, action_values], np.float32), "bias": np.zeros(2, np.float32)},
    }


def batch_of(reward, next_obs, terminated, truncated, action) -> Transition:
    """One step of several rows, all from observation 0."""
    rows = len(reward)
    return Transition(
        np.zeros((1, rows, 1), np.float32),
        np.zeros((1, rows), bool),
        np.array([action], np.int32),
        np.array([reward], np.float32),
        np.array(next_obs, np.float32).reshape(1, rows, 1),
        np.array([terminated], bool),
        np.array([truncated], bool),
        (),
        {},
    )


def test_a_fraction_is_embedded_by_its_cosines():
    """Equation 4: with one weight, phi(tau) = ReLU(cos(pi i tau))."""
    fractions = jnp.array([[0.0, 0.25, 1.0]])
    found = agent_of()._quantiles(params_of(cosine=1, action_values=(1.0, 3.0)), jnp.array([[1.0]]), fractions)
    cosines = np.array([1.0, np.cos(np.pi / 4), 0.0])  # that of 1 is -1, which ReLU cuts
    np.testing.assert_allclose(found, [[2 * cosines, 6 * cosines]], atol=1e-6)


def test_a_hidden_layer_behind_the_product_mixes_feature_and_fraction():
    """As in the paper's network: without it quantiles are sums of products of the two."""
    params = params_of(action_values=(1.0, 3.0))
    params["hidden"] = {"kernel": np.array([[2.0, -1.0], [0.0, 0.0]], np.float32), "bias": np.array([-3.0, 0.0])}
    fractions, obs = jnp.array([[0.5], [0.5]]), jnp.array([[1.0], [4.0]])
    found = agent_of()._quantiles(params, obs, fractions)
    # The product is (obs, 1): the first unit is ReLU(2 obs - 3), the second ReLU(-obs).
    np.testing.assert_allclose(found[:, :, 0], [[0.0, 0.0], [5.0, 15.0]], atol=1e-6)


def test_a_value_is_the_mean_over_evenly_spaced_fractions():
    values = agent_of(num_acting_fractions=2)._values(params_of(cosine=1), jnp.array([[1.0]]))
    np.testing.assert_allclose(values, [[np.cos(np.pi / 4)] * 2], atol=1e-6)  # (cos(pi / 4) + 0) / 2 * 2


def test_targets_know_both_endings():
    agent = agent_of(num_target_fractions=3)
    state = agent.init(KEY)._replace(params=params_of(), target=params_of(action_values=(1.0, 2.0)))
    batch = batch_of([1.0, 1.0, 1.0], [3.0, 3.0, 3.0], [False, True, False], [False, False, True], [0, 0, 0])
    # The embedding is 1 for every fraction: all samples of the better action are (3 + 1) * 2 = 8.
    np.testing.assert_allclose(target(agent, state, batch), [1 + 0.5 * 8, 1.0, 1 + 0.5 * 8], rtol=1e-6)


def test_two_steps_stop_with_the_episode_and_go_on_from_where_the_last_one_led():
    agent = agent_of(n_step=2)
    state = agent.init(KEY)._replace(params=params_of(), target=params_of(action_values=(1.0, 2.0)))
    first = batch_of([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [False, True, False], [False, False, True], [0, 0, 0])
    second = batch_of([2.0, 2.0, 2.0], [3.0, 3.0, 3.0], [False] * 3, [False] * 3, [1, 1, 1])
    batch = jax.tree.map(lambda *parts: np.concatenate(parts), first, second)
    # On to 3, whose better action is worth (3 + 1) * 2; the truncated one is cut at 1, worth (1 + 1) * 2.
    np.testing.assert_allclose(target(agent, state, batch), [1 + 1 + 8 / 4, 1, 1 + 4 / 2], rtol=1e-6)


def test_weights_of_prioritised_replay_weigh_the_loss():
    agent, batch = agent_of(lr=0.0), batch_of([3.0, 5.0], [0.0, 0.0], [True, True], [False, False], [1, 0])
    state = agent.init(KEY)._replace(params=params_of(), target=params_of())
    alone = [
        update(agent, state, batch._replace(extras={"weight": np.float32([weight])}))[1]["loss"]
        for weight in ([1.0, 0.0], [0.0, 1.0], [0.5, 0.25])
    ]
    assert alone[2] == pytest.approx(float(0.5 * alone[0] + 0.25 * alone[1]), rel=1e-6)
    assert alone[0] != pytest.approx(float(alone[1]))


def test_the_target_network_follows_at_its_time():
    agent = agent_of(lr=0.5, target_network_update_freq=2.0)
    state = agent.init(KEY)._replace(params=params_of(), target=params_of())
    batch = batch_of([3.0], [0.0], [True], [False], [1])
    once, _ = update(agent, state, batch)
    twice, _ = update(agent, once, batch)
    np.testing.assert_array_equal(once.target["values"]["kernel"], state.target["values"]["kernel"])
    np.testing.assert_allclose(twice.target["values"]["kernel"], twice.params["values"]["kernel"], rtol=1e-6)
    assert not np.allclose(twice.target["values"]["kernel"], state.target["values"]["kernel"])


def test_with_double_q_the_online_network_chooses():
    agent = agent_of(double_q=True, num_target_fractions=1)
    online, other = params_of(action_values=(2.0, 1.0)), params_of(action_values=(1.0, 5.0))
    state = agent.init(KEY)._replace(params=online, target=other)
    found = target(agent, state, batch_of([0.0], [1.0], [False], [False], [0]))
    np.testing.assert_allclose(found, [0.5 * 2 * 1], rtol=1e-6)


def test_the_loss_is_the_quantile_hubers_and_an_update_lowers_the_error():
    agent = agent_of(num_fractions=4, num_target_fractions=4, lr=0.0)
    params = params_of(action_values=(1.0, 1.0))
    state = agent.init(KEY)._replace(params=params, target=params)
    new, metrics = agent.update(state, batch_of([3.0], [0.0], [True], [False], [1]), KEY, jnp.zeros(()))
    # Quantiles are all 1 and samples all 3: each counts |tau - 0| (2 - 1 / 2), summed over four random tau.
    assert float(metrics["td_error"][0]) == pytest.approx(-2.0)
    assert 0.0 < float(metrics["loss"]) < 4 * 1.5
    assert float(metrics["mean_spread"]) == pytest.approx(0.0, abs=1e-6)
    learned, _ = agent_of(lr=0.1).update(new, batch_of([3.0], [0.0], [True], [False], [1]), KEY, jnp.zeros(()))
    assert float(agent._values(learned.params, jnp.zeros((1, 1)))[0, 1]) > 1.0


def test_an_action_space_that_it_cannot_serve_is_refused_with_those_that_can():
    with pytest.raises(ValueError, match=r"IQN serves Discrete action spaces.*SAC"):
        IQNConfig().environment("Pendulum-v1").build()
