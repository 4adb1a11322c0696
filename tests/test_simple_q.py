"""SimpleQ is DQN without its parts, under RLlib's names: what it builds, how it learns, what it refuses."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from modes import CARTPOLE, assert_modes_are_equal, assert_resumes
from tables import KEY, SPEC, Table, act, observe, tables, target, transitions, update

from athlete.algorithms.dqn import DQN, DQNConfig
from athlete.algorithms.simple_q import SimpleQConfig
from athlete.exploration import EpsilonGreedy
from athlete.memory.replay import Replay
from athlete.models.mlp import MLP
from athlete.ops.schedule import Schedule

ONLINE = [[0.0, 1.0], [3.0, 2.0], [5.0, 5.5]]
TARGET = [[1.0, 2.0], [4.0, -1.0], [6.0, 8.0]]
SIMPLE_Q = SimpleQConfig().training(hiddens=[]).make_agent(SPEC)


def agent_of(**settings) -> DQN:
    return dataclasses.replace(SIMPLE_Q, model=Table(), **{"gamma": 0.5, **settings})


def state_of(agent):
    return agent.init(KEY)._replace(params=tables(advantage=ONLINE), target=tables(advantage=TARGET))


# From state 0 with action 0, to states 0, 1, 2, 2; the third step ends the episode, the fourth is cut.
# Targets 1 + 1, 2 + 2, 3, 4 + 4; all minus Q(0, 0) = 0.
FOUR = transitions(
    [0] * 4, [0] * 4, [1.0, 2.0, 3.0, 4.0], [0, 1, 2, 2], [False, False, True, False], [False, False, False, True]
)


def test_it_is_dqn_with_each_of_its_parts_off():
    off = {"double_q": False, "dueling": False, "noisy": False, "n_step": 1, "num_atoms": 1, "tau": 1.0}
    found = {field.name: getattr(SIMPLE_Q, field.name) for field in dataclasses.fields(DQN)}
    assert found.items() >= off.items()
    shared = SimpleQConfig().to_dict().keys() & DQNConfig().to_dict().keys()
    assert (
        not shared & {*off, "sigma0", "v_min", "v_max"}
        and {"lr", "td_error_loss_fn", "target_network_update_freq"} <= shared
    )
    state = jax.jit(SIMPLE_Q.init)(KEY)
    assert state.params["heads"].keys() == {"advantage"}, "one head, which are the values"


def test_a_target_is_reward_and_best_next_value_unless_the_episode_is_over():
    agent = agent_of()
    np.testing.assert_allclose(target(agent, state_of(agent), FOUR), [2, 4, 3, 8])


def test_the_loss_is_hubers_of_the_action_taken():
    agent = agent_of(lr=0.0)
    _, found = update(agent, state_of(agent), FOUR)
    assert found["loss"] == pytest.approx((1.5 + 3.5 + 2.5 + 7.5) / 4)
    assert found["mean_td_error"] == pytest.approx(-(2 + 4 + 3 + 8) / 4)
    assert found["mean_q"] == pytest.approx(0.5)
    assert found["grad_gnorm"] == pytest.approx(1.0)  # four errors beyond 1, a quarter each


def test_the_loss_may_be_half_the_square():
    agent = agent_of(lr=0.0, td_error_loss_fn="mse")
    _, found = update(agent, state_of(agent), FOUR)
    assert found["loss"] == pytest.approx((4 + 16 + 9 + 64) / 2 / 4)


def test_only_the_value_of_the_action_taken_moves():
    agent = agent_of(lr=0.125)
    state, _ = update(agent, state_of(agent), transitions([1], [1], [9.0], [0], terminated=True))
    expected = np.array(ONLINE)
    expected[1, 1] += 0.125  # Adam's first step
    np.testing.assert_allclose(state.params["advantage"], expected, rtol=1e-5)


def test_the_target_network_is_renewed_after_its_timesteps():
    agent = agent_of(target_network_update_freq=8.0, timesteps_per_update=4.0)
    first = state_of(agent)
    second, _ = update(agent, first, FOUR)
    third, _ = update(agent, second, FOUR)
    np.testing.assert_array_equal(second.target["advantage"], first.target["advantage"])
    np.testing.assert_allclose(third.target["advantage"], third.params["advantage"], atol=1e-6)


def test_it_is_greedy_but_for_epsilon():
    agent = agent_of(exploration=EpsilonGreedy(Schedule((0.0, 1.0), (1.0, 0.0))))
    state, obs, best = state_of(agent), observe(*[0, 1, 2] * 100), np.array([1, 0, 1] * 100)
    np.testing.assert_array_equal(act(agent, state, obs, explore=False), best)
    np.testing.assert_array_equal(act(agent, state, obs, progress=1.0), best)
    assert (act(agent, state, obs, progress=0.0) == best).mean() == pytest.approx(0.5, abs=0.1)


def test_it_learns_the_same_compiled_and_hosted():
    agent = dataclasses.replace(
        SIMPLE_Q,
        spec=None,
        lr=1e-2,
        exploration=EpsilonGreedy(0.3),
        model=MLP((8,), "relu"),
        memory=Replay(64, 8, unroll=4),
        num_steps_sampled_before_learning_starts=16,
        timesteps_per_update=4.0,
        target_network_update_freq=8.0,
    )
    assert_modes_are_equal(CARTPOLE, agent, rows=1, length=4, iterations=4)


def test_a_training_resumes_to_the_last_bit_memory_included(tmp_path):
    settings = {
        "train_batch_size": 8,
        "num_steps_sampled_before_learning_starts": 16,
        "model": {"fcnet_hiddens": [8]},
        "replay_buffer_config": {"capacity": 200},
        "min_sample_timesteps_per_iteration": 40,
    }
    assert_resumes(SimpleQConfig.from_dict({"env": "CartPole-v1", "seed": 7, **settings}), tmp_path)


def test_what_it_cannot_serve_is_refused():
    with pytest.raises(ValueError, match=r"^SimpleQ serves Discrete action spaces, and this one is Box.*TD3.* serve"):
        SimpleQConfig().environment("Pendulum-v1").build()
    with pytest.raises(ValueError, match=r"'PrioritizedReplayBuffer'}: SimpleQ learns from ReplayBuffer"):
        SimpleQConfig().training(replay_buffer_config={"type": "PrioritizedReplayBuffer"})
    with pytest.raises(ValueError, match=r"SimpleQ has no 'n_step'"):
        SimpleQConfig().training(n_step=3)
