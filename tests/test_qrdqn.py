"""QR-DQN by hand: targets across both endings, the loss, the priorities; what acts and what it refuses."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from modes import CARTPOLE, assert_modes_are_equal, assert_resumes
from tables import KEY, QUICK, SPEC, Table, act, observe, tables, target, transitions, update, window

from athlete.algorithms.qrdqn import QRDQN, QRDQNConfig
from athlete.core import Spec
from athlete.exploration import EpsilonGreedy, SoftQ
from athlete.memory.prioritized import Prioritized
from athlete.models.mlp import MLP
from athlete.ops.schedule import Schedule
from athlete.spaces import Box

# Two quantiles for each of two actions in three states.
ONLINE = [[[0.0, 1.0], [2.0, 3.0]], [[1.0, 1.0], [0.0, 4.0]], [[9.0, 9.0], [0.0, 0.0]]]
TARGET = [[[1.0, 5.0], [2.0, 2.0]], [[0.0, 2.0], [3.0, 5.0]], [[1.0, 3.0], [4.0, 8.0]]]
# Means of the target network: 3, 2 | 1, 4 | 2, 6. The online network prefers 1 | 1 | 0.


def agent_of(**settings):
    return QRDQN(model=Table(), **{"num_quantiles": 2, "gamma": 0.5, **settings}).bind(SPEC)


def state_of(agent, online=ONLINE, other=TARGET):
    return agent.init(KEY)._replace(params=tables(advantage=online), target=tables(advantage=other))


ENDINGS = {"terminated": [0, 0, 1, 0], "truncated": [0, 0, 0, 1]}
ENDINGS = {name: np.array(flags, bool) for name, flags in ENDINGS.items()}
FOUR = transitions([0] * 4, [0] * 4, [1.0, 2.0, 3.0, 4.0], [0, 1, 2, 2], **ENDINGS)


def test_a_target_is_the_best_next_distribution_scaled_and_moved_and_knows_both_endings():
    found = target(agent_of(), state_of(agent_of()), FOUR)
    np.testing.assert_allclose(found, [2.5, 4, 3, 7])  # the means of 1 + (1, 5) / 2, 2 + (3, 5) / 2, 3, 4 + (4, 8) / 2


def test_with_double_q_the_online_network_chooses():
    agent = agent_of(double_q=True)
    found = target(agent, state_of(agent), FOUR)
    np.testing.assert_allclose(found, [2, 4, 3, 5])


@pytest.mark.parametrize(
    ("terminated", "truncated", "expected"),
    [
        ([0, 0, 0], [0, 0, 0], 3 + 0.75),  # on to state 2: (4, 8) / 8
        ([0, 1, 0], [0, 0, 0], 2),
        ([0, 0, 0], [0, 1, 0], 2 + 1),  # from state 1, where step 1 led: (3, 5) / 4
    ],
    ids=["runs on", "terminated", "truncated"],
)
def test_three_steps_stop_with_the_episode(terminated, truncated, expected):
    flags = {"terminated": np.array(terminated, bool), "truncated": np.array(truncated, bool)}
    batch = window(state=[0, 0, 1], action=[0, 0, 0], reward=[1.0, 2.0, 4.0], next_state=[0, 1, 2], **flags)
    agent = agent_of(n_step=3)
    np.testing.assert_allclose(target(agent, state_of(agent), batch), [expected])


# Two steps that end, so the targets are the rewards. Quantiles 0, 1 against 3 and 0, 4 against 2:
#   errors 3, 2: Huber 2.5, 1.5 at fractions 1/4, 3/4; errors 2, -2: 1.5, 1.5, the second from above
ENDED = transitions([0, 1], [0, 1], [3.0, 2.0], [0, 0], terminated=True)
LOSSES = [0.25 * 2.5 + 0.75 * 1.5, 0.25 * 1.5 + 0.25 * 1.5]


def measured(batch=ENDED, **settings):
    agent = agent_of(lr=0.0, **settings)
    return jax.device_get(update(agent, state_of(agent), batch)[1])


def test_the_loss_is_the_mean_of_quantile_regressions():
    found = measured()
    assert found["loss"] == pytest.approx(sum(LOSSES) / 2)
    assert found["mean_q"] == pytest.approx((0.5 + 2) / 2)
    assert found["mean_spread"] == pytest.approx((0.5 + 2) / 2)
    assert found["mean_td_error"] == pytest.approx((0.5 - 3 + 2 - 2) / 2)


def test_kappa_is_hubers_threshold():
    assert measured(kappa=4.0)["loss"] == pytest.approx(((0.25 * 4.5 + 0.75 * 2) + (0.25 * 2 + 0.25 * 2)) / 4 / 2)


def test_weights_of_prioritised_replay_weigh_the_loss_but_not_the_priorities():
    found = measured(ENDED._replace(extras={"weight": np.array([[0.5, 0.1]], np.float32)}))
    assert found["loss"] == pytest.approx((0.5 * LOSSES[0] + 0.1 * LOSSES[1]) / 2)
    np.testing.assert_allclose(found["td_error"], [-2.5, 0.0])


def test_only_the_quantiles_of_the_action_taken_move_towards_the_target():
    agent = agent_of(lr=0.125, grad_clip=None, adam_epsilon=0.0)
    state, _ = update(agent, state_of(agent), transitions([0], [1], [2.5], [0], terminated=True))
    moved = np.asarray(state.params["advantage"] - tables(advantage=ONLINE)["advantage"])
    expected = np.zeros((3, 4))
    expected[0, 2:] = [0.125, -0.125]  # Adam's first step
    np.testing.assert_allclose(np.nan_to_num(moved), expected, rtol=1e-5, atol=1e-6)


def test_the_target_network_waits_for_its_timesteps():
    agent = agent_of(target_network_update_freq=8.0, timesteps_per_update=4.0)
    first = state_of(agent)
    second, _ = update(agent, first, ENDED)
    third, _ = update(agent, second, ENDED)
    np.testing.assert_array_equal(second.target["advantage"], first.target["advantage"])
    np.testing.assert_allclose(third.target["advantage"], third.params["advantage"], atol=1e-6)


def test_dueling_quantiles_have_the_values_quantiles_as_their_mean_over_actions():
    agent = agent_of(dueling=True)
    params = tables(advantage=ONLINE, value=[[10.0, 20.0]] * 3)
    quantiles = agent._quantiles(params, observe(0, 1, 2))
    np.testing.assert_allclose(quantiles.mean(axis=1), [[10, 20]] * 3)
    np.testing.assert_allclose(quantiles[0], [[9, 19], [11, 21]])
    assert agent.init(KEY).params.keys() == {"advantage", "value"}


def test_it_acts_by_means_and_explores_by_its_type():
    agent = agent_of(exploration=EpsilonGreedy(Schedule((0.0, 1.0), (1.0, 0.0))))
    state, obs = state_of(agent), observe(*[0, 1, 2] * 100)
    best = [1, 1, 0] * 100
    np.testing.assert_array_equal(act(agent, state, obs, explore=False), best)
    np.testing.assert_array_equal(act(agent, state, obs, progress=1.0), best)
    assert (act(agent, state, obs, progress=0.0) == np.array(best)).mean() == pytest.approx(0.5, abs=0.1)
    soft = act(agent_of(exploration=SoftQ(2.0)), state, obs[::3])
    assert np.mean(soft) == pytest.approx(1 / (1 + np.exp(-1)), abs=0.1)  # means 0.5 and 2.5, temperature 2


SMALL = {"lr": 1e-2, "model": MLP((8,), "relu"), "num_steps_sampled_before_learning_starts": 16, "num_quantiles": 3}


def test_it_learns_the_same_compiled_and_hosted():
    memory = Prioritized(capacity=60, batch_size=8, window=2, unroll=3)
    agent = QRDQN(exploration=EpsilonGreedy(0.3), memory=memory, n_step=2, double_q=True, dueling=True, **SMALL)
    assert_modes_are_equal(CARTPOLE, agent, rows=2, length=3)


def test_a_training_resumes_to_the_last_bit_memory_included(tmp_path):
    settings = {
        "train_batch_size": 8,
        "num_steps_sampled_before_learning_starts": 16,
        "num_quantiles": 3,
        "model": {"fcnet_hiddens": [8]},
        "replay_buffer_config": {"type": "PrioritizedReplayBuffer", "capacity": 200},
        "min_sample_timesteps_per_iteration": 40,
    }
    assert_resumes(QRDQNConfig.from_dict({"env": "CartPole-v1", "seed": 7, **settings}), tmp_path)


def test_a_new_target_network_is_a_copy_of_its_own():
    state = jax.jit(QRDQN().bind(SPEC).init, compiler_options=QUICK)(KEY)
    for online, other in zip(jax.tree.leaves(state.params), jax.tree.leaves(state.target), strict=True):
        np.testing.assert_array_equal(online, other)
        assert online.unsafe_buffer_pointer() != other.unsafe_buffer_pointer()


def test_what_it_cannot_serve_is_refused():
    with pytest.raises(ValueError, match=r"^QRDQN serves Discrete action spaces, and this one is Box"):
        QRDQN().bind(Spec(SPEC.obs, Box(-1, 1, (1,))))
    with pytest.raises(ValueError, match=r"training\(num_quantiles=0\): expected a whole number of at least 1"):
        QRDQNConfig().training(num_quantiles=0)
    with pytest.raises(ValueError, match=r"training\(kappa=0\): expected a number of at least 1e-06"):
        QRDQNConfig().training(kappa=0)
    with pytest.raises(ValueError, match=r"QRDQN explores with EpsilonGreedy, SoftQ"):
        QRDQNConfig().exploration(exploration_config={"type": "ParameterNoise"})
