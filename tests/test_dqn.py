"""DQN by hand: targets of each of Rainbow's parts, both endings, losses, priorities; what acts, what it refuses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import KEY, SPEC, Table, act, observe, tables, target, transitions, update, window

from athlete.algorithms.dqn import DQN, DQNConfig
from athlete.core.learning import learn
from athlete.exploration import EpsilonGreedy
from athlete.memory.prioritized import Prioritized
from athlete.ops.random import wrap

# Values of two actions in three states. The online network prefers actions 1 | 0 | 0, the target network 0 | 1 | 1.
ONLINE = [[0.0, 2.0], [3.0, 1.0], [5.0, 4.0]]
TARGET = [[4.0, 2.0], [2.0, 6.0], [0.0, 8.0]]


def agent_of(**settings) -> DQN:
    plain = {"gamma": 0.5, "double_q": False, "dueling": False}
    return DQN(model=Table(), **{**plain, **settings}).bind(SPEC)


def state_of(agent: DQN, online=ONLINE, other=TARGET):
    return agent.init(KEY)._replace(params=tables(advantage=online), target=tables(advantage=other))


FOUR = transitions(
    [0] * 4,
    [0] * 4,
    [1.0, 2.0, 3.0, 4.0],
    [0, 1, 2, 2],
    terminated=np.array([0, 0, 1, 0], bool),
    truncated=np.array([0, 0, 0, 1], bool),
)


def test_a_target_is_the_best_next_value_and_knows_both_endings():
    found = target(agent_of(), state_of(agent_of()), FOUR)
    np.testing.assert_allclose(found, [1 + 2, 2 + 3, 3, 4 + 4])


def test_with_double_q_the_online_network_chooses_and_the_target_network_values():
    agent = agent_of(double_q=True)
    found = target(agent, state_of(agent), FOUR)
    np.testing.assert_allclose(found, [1 + 1, 2 + 1, 3, 4 + 0])


@pytest.mark.parametrize(
    ("terminated", "truncated", "expected"),
    [
        ([0, 0, 0], [0, 0, 0], 1 + 1 + 1 + 8 / 8),
        ([0, 1, 0], [0, 0, 0], 1 + 1),
        ([0, 0, 0], [0, 1, 0], 1 + 1 + 6 / 4),  # from state 1, where step 1 led
        ([1, 0, 0], [0, 0, 1], 1),
    ],
    ids=["runs on", "terminated", "truncated", "terminated at once"],
)
def test_three_steps_stop_with_the_episode(terminated, truncated, expected):
    flags = {"terminated": np.array(terminated, bool), "truncated": np.array(truncated, bool)}
    batch = window(state=[0, 0, 1], action=[0, 0, 0], reward=[1.0, 2.0, 4.0], next_state=[0, 1, 2], **flags)
    agent = agent_of(n_step=3)
    np.testing.assert_allclose(target(agent, state_of(agent), batch), [expected])


def test_dueling_values_have_the_states_value_as_their_mean():
    agent = agent_of(dueling=True)
    params = tables(advantage=ONLINE, value=[[10.0]] * 3)
    np.testing.assert_allclose(agent._values(params, observe(0, 1, 2)), [[9, 11], [11, 9], [10.5, 9.5]])


# Steps that end, so that targets are the rewards: errors are 0 - 3 and 1 - 1.5 for the actions taken.
ENDED = transitions([0, 1], [0, 1], [3.0, 1.5], [0, 0], terminated=True)


def measured(batch=ENDED, **settings):
    agent = agent_of(lr=0.0, **settings)
    return jax.device_get(update(agent, state_of(agent), batch)[1])


def test_the_loss_is_hubers_or_the_square():
    assert measured()["loss"] == pytest.approx((2.5 + 0.125) / 2)
    assert measured(td_error_loss_fn="mse")["loss"] == pytest.approx((4.5 + 0.125) / 2)
    assert measured()["mean_td_error"] == pytest.approx((-3 - 0.5) / 2)


def test_weights_of_prioritised_replay_weigh_the_loss_but_not_the_priorities():
    found = measured(ENDED._replace(extras={"weight": np.array([[0.5, 0.1]], np.float32)}))
    assert found["loss"] == pytest.approx((0.5 * 2.5 + 0.1 * 0.125) / 2)
    np.testing.assert_allclose(found["td_error"], [-3.0, -0.5])


def test_errors_become_the_priorities_of_what_was_sampled():
    memory = Prioritized(alpha=1.0, epsilon=0.5, capacity=2, batch_size=2)
    agent = agent_of(lr=0.0, memory=memory)
    store = memory.init(jax.tree.map(lambda leaf: jnp.asarray(leaf[0, 0]), ENDED), 1)
    steps = jax.tree.map(lambda leaf: jnp.swapaxes(jnp.asarray(leaf), 0, 1), ENDED)  # of one row, one after the other
    _, store, _, metrics = learn(agent, state_of(agent), store, (), steps, KEY, jnp.zeros(()))
    np.testing.assert_allclose(store.tree[0][0, :2], [3.0 + 0.5, 0.5 + 0.5])  # one draw from each half of equal shares
    assert "td_error" not in metrics, "arrays are the memory's alone"


def test_the_target_network_waits_for_its_timesteps_and_moves_by_tau():
    agent = agent_of(target_network_update_freq=8.0, timesteps_per_update=4.0, tau=0.25, lr=0.0)
    first = state_of(agent)
    second, _ = update(agent, first, ENDED)
    third, _ = update(agent, second, ENDED)
    np.testing.assert_array_equal(second.target["advantage"], first.target["advantage"])
    np.testing.assert_allclose(third.target["advantage"], 0.75 * np.array(TARGET) + 0.25 * np.array(ONLINE))


# C51: three atoms at -1, 0 and 1.
CERTAIN = 50.0  # a logit that makes its atom certain
LEFT, MIDDLE, RIGHT = np.eye(3) * CERTAIN


def c51(**settings) -> DQN:
    return agent_of(num_atoms=3, v_min=-1.0, v_max=1.0, **settings)


def state_of_c51(agent: DQN):
    """Every state: action 0 is worth 0 for certain, action 1 is worth 1."""
    values = tables(advantage=[[MIDDLE, RIGHT]] * 3)
    return agent.init(KEY)._replace(params=values, target=values)


def test_the_next_distribution_is_projected_onto_the_atoms():
    """Worth 1 for certain, halved, is half way between 0 and 1; all atoms are alike at first, so the loss is log 3."""
    agent = c51(lr=0.0)
    state = state_of_c51(agent)._replace(params=tables(advantage=[[LEFT / CERTAIN, MIDDLE]] * 3))
    _, metrics = update(agent, state, transitions([0], [0], [0.0], [1]))
    log_softmax = np.array([1.0, 0.0, 0.0]) - np.log(np.e + 2)
    np.testing.assert_allclose(metrics["td_error"], [-0.5 * log_softmax[1] - 0.5 * log_softmax[2]], rtol=1e-5)


def test_the_loss_of_distributions_is_the_cross_entropy_which_is_the_priority_too():
    agent = c51(lr=0.0)
    state = state_of_c51(agent)._replace(params=tables(advantage=np.zeros((3, 2, 3))))  # all atoms alike
    _, metrics = update(agent, state, transitions([0], [0], [0.25], [1], terminated=True))
    assert float(metrics["loss"]) == pytest.approx(np.log(3.0), rel=1e-5)
    np.testing.assert_allclose(metrics["td_error"], [np.log(3.0)], rtol=1e-5)
    np.testing.assert_allclose(agent._values(state.params, observe(0)), [[0, 0]], atol=1e-6)


def test_noise_disturbs_what_explores_and_not_what_is_greedy():
    agent = agent_of(noisy=True, sigma0=2.0, exploration=EpsilonGreedy(0.0))
    state = agent.init(KEY)
    state = state._replace(params={**state.params, "mean": tables(advantage=ONLINE)})
    obs = observe(*[0, 1, 2] * 20)
    np.testing.assert_array_equal(act(agent, state, obs, explore=False), [1, 0, 0] * 20)
    draws = [np.asarray(act(agent, state, obs, key=wrap(np.array([0, seed], np.uint32)))) for seed in range(8)]
    assert any((draw != draws[0]).any() for draw in draws), "another key is another network"
    assert float(jnp.max(jnp.abs(state.params["sigma"]["advantage"]))) == pytest.approx(2.0 / np.sqrt(3), rel=1e-5)


def test_an_action_space_that_it_cannot_serve_is_refused_with_those_that_can():
    with pytest.raises(ValueError, match=r"DQN serves Discrete action spaces.*SAC"):
        DQNConfig().environment("Pendulum-v1").build()
