"""R2D2 by hand: targets across both endings inside a sequence, burn-in, stored states, rescaling, priorities."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tables as toys
from tables import KEY, QUICK, SPEC, Table, act, observe, steps_since_first, tables, update

from athlete.algorithms.dqn import DQNConfig
from athlete.algorithms.r2d2 import R2D2, R2D2Config
from athlete.core import ActingCarry, Model, Spec, hyper
from athlete.exploration import EpsilonGreedy
from athlete.memory.prioritized import Prioritized
from athlete.memory.replay import Replay
from athlete.models.attention import GTrXL
from athlete.models.recurrent import GRU, LSTM
from athlete.ops.tree import merge_time
from athlete.ops.values import signed_parabolic
from athlete.spaces import ACTION_MASK, Box, Dict, Discrete, MultiBinary

ONLINE = [[1.0, 2.0], [4.0, 3.0], [7.0, 6.0]]  # the best actions are 1, 0, 0
TARGET = [[10.0, 20.0], [30.0, 40.0], [50.0, 60.0]]  # of these the values are 20, 30, 50


def with_no_state(make):
    """Of a network without memory: what is stored of it is empty."""
    return lambda *arguments, **named: make(*arguments, **named)._replace(carry=ActingCarry((), ()))


window, transitions = with_no_state(toys.window), with_no_state(toys.transitions)


def agent_of(**settings) -> R2D2:
    plain = {"gamma": 0.5, "dueling": False, "use_h_function": False, "model": Table(), "max_seq_len": 4}
    return R2D2(**(plain | settings)).bind(SPEC)


def state_of(agent, online=ONLINE, target=TARGET):
    return agent.init(KEY)._replace(params=tables(advantage=online), target=tables(advantage=target))


def values_of(agent, heads):
    """Action values `[T * B, actions]` of heads `[T, B, outputs]`."""
    return agent._action_values(jax.tree.map(merge_time, heads))


def target_of(agent, state, batch):
    """The targets of one row's sequence."""

    def compute(agent, state, batch):
        carries, _ = agent._unroll(state.params, batch)
        return merge_time(agent._target(state.target, state.params, carries, batch))

    return jax.jit(compute, compiler_options=QUICK)(agent, state, batch)


# Targets ----------------------------------------------------------------------------------------------------------

# Two endings inside a sequence: cut after the second step, in state 2; terminated after the third.
ENDINGS = window(
    state=[0, 1, 0, 0],
    action=[0, 0, 0, 0],
    reward=[1.0, 2.0, 3.0, 4.0],
    next_state=[1, 2, 1, 1],
    terminated=np.array([0, 0, 1, 0], bool),
    truncated=np.array([0, 1, 0, 0], bool),
)


def test_every_step_has_a_double_q_target_right_for_both_endings():
    agent = agent_of()
    expected = [1 + 0.5 * 30, 2 + 0.5 * 50, 3, 4 + 0.5 * 30]
    np.testing.assert_allclose(target_of(agent, state_of(agent), ENDINGS), expected)
    single = agent_of(double_q=False)
    np.testing.assert_allclose(target_of(single, state_of(single), ENDINGS), [1 + 20, 2 + 30, 3, 4 + 20])


def test_n_steps_stop_with_the_episode_inside_a_sequence():
    """Three steps to learn from and one more, for the two rewards of the last one's target."""
    agent = agent_of(n_step=2, max_seq_len=3)
    expected = [1 + 0.5 * 2 + 0.25 * 50, 2 + 0.5 * 50, 3]
    np.testing.assert_allclose(target_of(agent, state_of(agent), ENDINGS), expected)


def test_the_target_is_made_of_plain_values_and_rescaled():
    agent, epsilon = agent_of(use_h_function=True, h_function_epsilon=0.001, max_seq_len=1), 0.001
    # The target network says 1.003, which is h(3): y = h(1 + 0.5 * 3) = sqrt(3.5) - 1 + 0.0025.
    state = state_of(agent, target=[[0, 0], [1.003, 0], [0, 0]])
    batch = transitions([0], [0], [1.0], [1])
    found = target_of(agent, state, batch)
    np.testing.assert_allclose(found, [np.sqrt(3.5) - 1 + 0.0025], rtol=1e-5)
    assert signed_parabolic(found[0], epsilon) == pytest.approx(2.5, rel=1e-4)
    measured = update(agent, state, batch)[1]
    assert measured["mean_q"] == pytest.approx(
        float(jnp.mean(signed_parabolic(jnp.array(ONLINE[0]), epsilon))), rel=1e-5
    )


def test_the_best_action_of_a_target_is_a_legal_one():
    spec = Spec(Dict({ACTION_MASK: MultiBinary(2), "state": Box(0, 1, (3,))}), Discrete(2))
    agent = dataclasses.replace(agent_of(max_seq_len=1), spec=spec)
    batch = transitions([0, 0], [0, 0], [1.0, 1.0], [1, 1])
    mask = np.array([[[1, 1], [0, 1]]], np.int8)
    legal = batch._replace(
        obs={ACTION_MASK: np.ones_like(mask), "state": batch.obs}, next_obs={ACTION_MASK: mask, "state": batch.next_obs}
    )
    np.testing.assert_allclose(target_of(agent, state_of(agent), legal), [1 + 0.5 * 30, 1 + 0.5 * 40])


# Memory -----------------------------------------------------------------------------------------------------------


@hyper
class Steps(Model):
    """Its carry counts the steps since `first`, this one included, and both values are that count."""

    def init(self, key, obs_space, heads):
        return {"scale": jnp.ones(())}

    def start(self, rows):
        return jnp.zeros(rows)

    def apply(self, params, carry, obs, first):
        counts = steps_since_first(carry, first)
        return counts, {"advantage": params["scale"] * jnp.stack([counts, counts], axis=-1)}


def sequence(length, **changes):
    """One row, 5 steps into its episode, which goes on; rewards 0."""
    zeros = [0] * length
    batch = window(state=zeros, action=zeros, reward=zeros, next_state=zeros)
    counts = np.arange(5, 5 + length, dtype=np.float32)[:, None]
    return batch._replace(carry=ActingCarry(counts, ()), **changes)


def flags(*values):
    return np.array(values, bool)[:, None]


def test_values_of_where_steps_led_follow_from_the_state_after_them_across_an_episodes_end():
    """Steps 6 and 7 of an episode, cut there; then steps 1 and 2 of the next. They lead to steps 7, 8, 2 and 3."""
    batch = sequence(4, first=flags(0, 0, 1, 0), truncated=flags(0, 1, 0, 0))
    agent = agent_of(model=Steps())
    state = agent.init(KEY)
    np.testing.assert_allclose(target_of(agent, state, batch), 0.5 * np.array([7, 8, 2, 3]))
    _, heads = agent._unroll(state.params, batch)
    np.testing.assert_allclose(heads["advantage"][:, 0, 0], [6, 7, 1, 2])


@pytest.mark.parametrize(("zero_init_states", "expected"), [(False, [8, 9]), (True, [3, 4])])
def test_a_burn_in_goes_before_what_is_learned_from_the_stored_state_or_from_none(zero_init_states, expected):
    agent = agent_of(model=Steps(), burn_in=2, max_seq_len=2, zero_init_states=zero_init_states)
    carries, heads = agent._unroll(agent.init(KEY).params, sequence(4))
    np.testing.assert_allclose(heads["advantage"][:, 0, 0], expected)
    np.testing.assert_allclose(carries[:, 0], [expected[0] - 1, *expected], err_msg="before the first, after each")


def test_the_burn_in_is_not_learned_from_but_for_the_state_that_it_leaves():
    agent = agent_of(model=GRU(4, (), "tanh"), burn_in=2, max_seq_len=2, lr=0.1, adam_epsilon=1e-8)
    state = jax.jit(agent.init)(KEY)
    never = np.zeros((4, 1), bool)
    batch = sequence(4)._replace(first=never, reward=np.ones((4, 1)))
    batch = batch._replace(carry=ActingCarry(np.full((4, 1, 4), 0.5, np.float32), ()))
    other = batch._replace(reward=np.array([[9.0], [9.0], [1.0], [1.0]]), action=np.array([[1], [1], [0], [0]]))
    seen = batch._replace(obs=np.concatenate([batch.obs[:1] + 1.0, batch.obs[1:]]))
    results = [update(agent, state, each)[1] for each in (batch, other, seen)]
    assert results[0]["loss"] == results[1]["loss"], "its rewards and actions do not count"
    assert results[0]["grad_gnorm"] == results[1]["grad_gnorm"]
    assert results[0]["loss"] != results[2]["loss"], "its observations do"


def test_no_gradient_flows_into_the_burn_in():
    """The counts 8 and 9 after it are constants: the slope of 0.5 (8 s - y)^2 is 8 (8 s - y), whatever made the 7."""
    agent = agent_of(model=Steps(), burn_in=2, max_seq_len=2, gamma=0.0)
    state, batch = agent.init(KEY), sequence(4, reward=np.full((4, 1), 3.0, np.float32))
    assert update(agent, state, batch)[1]["grad_gnorm"] == pytest.approx((8 * (8 - 3) + 9 * (9 - 3)) / 2)


# Loss and priorities ----------------------------------------------------------------------------------------------


def ended():
    """Two rows of two steps, all of which end: targets are the rewards, errors 0 less than them: -3, 1; 0, 2."""
    reward = np.array([[4.0, 1.0], [0.0, -1.0]], np.float32)
    return transitions([[0, 0]] * 2, [[0, 0]] * 2, reward, [[0, 0]] * 2, terminated=True)


def measured(batch, **settings):
    agent = agent_of(lr=0.0, max_seq_len=2, **settings)
    return jax.device_get(update(agent, state_of(agent), batch)[1])


def test_the_loss_is_half_the_squared_error_and_a_sequence_has_one_priority():
    found = measured(ended())
    assert found["loss"] == pytest.approx((9 + 1 + 0 + 4) / 8)
    assert found["mean_td_error"] == pytest.approx((-3 + 1 + 0 + 2) / 4)
    np.testing.assert_allclose(found["td_error"], [0.9 * 3 + 0.1 * 2, 0.9 * 2 + 0.1 * 1], rtol=1e-6)


def test_weights_of_prioritised_replay_weigh_sequences_but_not_their_priorities():
    weighted = ended()._replace(extras={"weight": np.array([[0.5, 0.1]], np.float32)})
    found = measured(weighted)
    assert found["loss"] == pytest.approx((0.5 * (9 + 1) + 0.1 * 4) / 8)
    np.testing.assert_array_equal(found["td_error"], measured(ended())["td_error"])


def test_the_target_network_waits_for_its_timesteps():
    agent = agent_of(target_network_update_freq=8.0, timesteps_per_update=4.0, lr=0.0, max_seq_len=2)
    first = state_of(agent)
    second, _ = update(agent, first, ended())
    third, _ = update(agent, second, ended())
    np.testing.assert_array_equal(second.target["advantage"], TARGET)
    np.testing.assert_array_equal(third.target["advantage"], ONLINE)


def test_dueling_values_have_the_states_value_as_their_mean():
    agent = agent_of(dueling=True)
    heads = {"advantage": jnp.array([[[1.0, 2.0]], [[4.0, 0.0]]]), "value": jnp.array([[[10.0]], [[20.0]]])}
    np.testing.assert_allclose(values_of(agent, heads), [[9.5, 10.5], [22, 18]])


# Acting -----------------------------------------------------------------------------------------------------------


def test_it_explores_by_type_and_is_greedy_without():
    agent = agent_of(exploration=EpsilonGreedy(0.5))
    obs = observe(*[0] * 4000)
    assert (act(agent, state_of(agent), obs, explore=False) == 1).all()
    assert np.mean(act(agent, state_of(agent), obs)) == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize(
    "kind", [LSTM(8, ()), GRU(8, ()), GTrXL(dim=8, head_dim=8, memory=6)], ids=["lstm", "gru", "gtrxl"]
)
def test_what_is_learned_on_is_what_was_seen_in_acting(kind):
    """Values along a stored sequence, from its stored state, are those that were acted on; so are they by hand."""
    agent = agent_of(model=kind, burn_in=2, max_seq_len=3)
    state = jax.jit(agent.init)(KEY)
    view, rows = agent.view(state, 0.0), 2
    obs = jax.random.normal(KEY, (6, rows, 3))
    first = np.zeros((6, rows), bool)
    first[0], first[3, 1] = True, True
    carries, values, carry = [], [], agent.start(view, rows, KEY).model
    for t in range(6):
        carries.append(carry)
        after, heads = agent.model.apply(view.params, carry, obs[t : t + 1], first[t : t + 1])
        carry = jax.tree.map(lambda leaf: leaf[0], after)
        values.append(values_of(agent, heads))
        np.testing.assert_array_equal(
            agent.act(view, ActingCarry(carries[-1], ()), obs[t], first[t], KEY, explore=False)[0],
            np.argmax(values[-1], axis=-1),
        )
    batch = transitions(
        np.zeros((5, rows), int), np.zeros((5, rows), int), np.zeros((5, rows)), np.zeros((5, rows), int)
    )
    stored = jax.tree.map(lambda *leaves: np.stack(leaves), *carries[1:])
    batch = batch._replace(obs=obs[1:], first=first[1:], carry=ActingCarry(stored, ()))
    _, heads = agent._unroll(state.params, batch)
    np.testing.assert_allclose(values_of(agent, heads), np.concatenate(values[3:]), atol=1e-5)


# Configuration ----------------------------------------------------------------------------------------------------


def test_settings_reach_the_agent_and_its_memory():
    config = R2D2Config().environment("CartPole-v1").rollouts(num_envs_per_worker=2, rollout_fragment_length=10)
    config.training(
        model={"use_gru": True, "gru_cell_size": 7, "fcnet_hiddens": [5], "max_seq_len": 12},
        replay_buffer_config={
            "type": "ReplayBuffer",
            "capacity": 3000,
            "replay_burn_in": 6,
            "storage_unit": "sequences",
        },
        train_batch_size=100,
        training_intensity=None,
        n_step=3,
    )
    agent = config.make_agent(SPEC)
    assert agent.model == GRU(7, (5,))
    assert (agent.burn_in, agent.max_seq_len, agent.n_step) == (6, 12, 3)
    assert agent.memory == Replay(
        capacity=3000, batch_size=96, window=6 + 12 + 2, unroll=10, sequence=12, keep_carry=True
    )
    assert agent.timesteps_per_update == 20
    assert not config.training(zero_init_states=True).make_agent(SPEC).memory.keep_carry
    assert config.training(burn_in=4).make_agent(SPEC).burn_in == 4, "where RLlib had it first"


def test_it_has_memory_and_priorities_by_default():
    config = R2D2Config().environment("CartPole-v1")
    config.validate()
    agent = config.make_agent(SPEC)
    assert agent.model == LSTM(256, (64, 64))
    assert isinstance(agent.memory, Prioritized)
    assert (config.updates(), agent.memory.batch_size) == (1, 512)


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (
            DQNConfig,
            {"model": {"use_lstm": True}},
            r"DQN: model is recurrent \(LSTM\).*an algorithm that learns from sequences",
        ),
        (
            DQNConfig,
            {"replay_buffer_config": {"replay_burn_in": 4}},
            r"DQN: .*replay_burn_in=4.*no memory.*an algorithm that learns from sequences",
        ),
        (
            R2D2Config,
            {"model": {"use_lstm": False}},
            r"R2D2: model has no memory \(MLP\).*'use_lstm': True.*without memory",
        ),
        (
            R2D2Config,
            {"model": {"max_seq_len": 2000}},
            r"a sequence of replay_burn_in, max_seq_len and n_step steps=2008 is longer",
        ),
    ],
)
def test_what_does_not_fit_is_refused_at_build(config, settings, message):
    with pytest.raises(ValueError, match=message):
        config().environment("CartPole-v1").training(**settings).build()


def test_what_cannot_be_is_an_error_at_the_call():
    with pytest.raises(ValueError, match=r"replay_burn_in': -1.*whole number of at least 0"):
        R2D2Config().training(replay_buffer_config={"replay_burn_in": -1})
    with pytest.raises(ValueError, match=r"use_gru and use_lstm are both on"):
        R2D2Config().training(model={"use_gru": True, "use_lstm": True})
    with pytest.raises(ValueError, match=r"expected a number between 0 and 1"):
        R2D2Config().training(priority_eta=2.0)
    with pytest.raises(ValueError, match=r"R2D2 serves Discrete action spaces.*RNNSAC"):
        R2D2Config().environment("Pendulum-v1").build()


# Training ---------------------------------------------------------------------------------------------------------


def test_a_trained_policy_is_used_by_hand_with_its_state():
    config = (
        R2D2Config()
        .environment("StatelessCartPole-v1")
        .training(
            model={"lstm_cell_size": 8, "fcnet_hiddens": [8], "max_seq_len": 4},
            train_batch_size=16,
            training_intensity=1,
            num_steps_sampled_before_learning_starts=64,
        )
    )
    with config.reporting(min_sample_timesteps_per_iteration=64).debugging(seed=0).build() as algo:
        result = algo.train()
        assert np.isfinite(result["info"]["learner"]["default_policy"]["learner_stats"]["loss"])
        assert result["num_env_steps_trained"] == 16 * 4  # 80 steps, in which one update was made after each 20
        state = algo.get_policy().get_initial_state()
        action, after, _ = algo.compute_single_action(np.zeros(2, np.float32), state)
        assert action in (0, 1)
        assert not np.array_equal(after.model.hidden, state.model.hidden)
        assert algo.evaluate(episodes=2)["evaluation"]["episode_reward_mean"] >= 8
