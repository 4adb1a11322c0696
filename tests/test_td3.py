"""TD3 by hand: targets across both endings, smoothing, the loss, the delay, the policy gradient; what it refuses."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import Table

from athlete.algorithms.deterministic import Networks
from athlete.algorithms.td3 import TD3, TD3Config
from athlete.core import Spec, Transition
from athlete.exploration import GaussianNoise, ParameterNoise
from athlete.ops.random import wrap
from athlete.spaces import Box, MultiDiscrete

QUICK = {"xla_backend_optimization_level": 0}  # tiny programs: compiling is all they cost
KEY = wrap(np.array([0, 1], np.uint32))


# Three states, one-hot, and one action: pi(s) is a table, Q_i(s, a) = V_i(s) + slope_i a.
SPEC = Spec(Box(0, 1, (3,)), Box(-1, 1, (1,)))
ACTIONS = np.array([0.5, -0.5, 0.9])
CRITICS = [(np.array([1.0, 2.0, 3.0]), 2.0), (np.array([0.0, 4.0, 5.0]), -1.0)]
#   Q_1(s, pi(s)) = 1 + 1, 2 - 1, 3 + 1.8 = 2, 1, 4.8
#   Q_2(s, pi(s)) = 0 - 0.5, 4 + 0.5, 5 - 0.9 = -0.5, 4.5, 4.1
SMALLER = np.array([-0.5, 1.0, 4.1])


def networks(actions=ACTIONS, critics=CRITICS):
    actor = {"action": np.arctanh(np.asarray(actions, float))[:, None].astype(np.float32)}
    tables = [np.append(values, slope)[:, None].astype(np.float32) for values, slope in critics]
    return Networks(actor, [{"q": table} for table in tables])


def agent_of(**settings):
    chosen = {"policy_model": Table(), "q_model": Table(), "smooth_target_policy": False, "gamma": 0.5, **settings}
    return TD3(**chosen).bind(SPEC)


def state_of(agent, online=None, target=None):
    """A fresh state with these networks, the hand-made ones by default."""
    online, target = (networks() if given is None else given for given in (online, target))
    return agent.init(KEY)._replace(online=jax.tree.map(jnp.asarray, online), target=jax.tree.map(jnp.asarray, target))


def transitions(state, action, reward, next_state, terminated=False, truncated=False, extras=None):
    """A batch `[T, B, ...]` of numbered states; one step where lists are flat."""
    state, next_state, action = (np.atleast_2d(part) for part in (state, next_state, action))
    reward = np.atleast_2d(np.asarray(reward, np.float32))
    flags = [np.broadcast_to(np.atleast_2d(flag), reward.shape) for flag in (terminated, truncated)]
    one_hot = np.eye(3, dtype=np.float32)
    first = np.zeros(reward.shape, bool)
    return Transition(
        one_hot[state],
        first,
        action[..., None].astype(np.float32),
        reward,
        one_hot[next_state],
        *flags,
        (),
        extras or {},
    )


@functools.partial(jax.jit, compiler_options=QUICK)
def target(agent, state, batch):
    """What the critics should have said, `[B]`: 16, which they are made to say, less their errors."""
    critics = jax.tree.map(lambda table: jnp.full_like(table, 16.0).at[3:].set(0.0), state.online.critics)
    state = state._replace(online=state.online._replace(critics=critics))
    return 16.0 - agent.update(state, batch, KEY, jnp.zeros(()))[1]["td_error"]


@functools.partial(jax.jit, compiler_options=QUICK)
def update(agent, state, batch):
    return agent.update(state, batch, KEY, jnp.zeros(()))


# Targets ----------------------------------------------------------------------------------------------------------


def test_a_target_takes_the_smaller_of_both_critics_and_knows_both_endings():
    batch = transitions(
        [0, 0, 0, 0],
        [0.0] * 4,
        [1.0, 2.0, 3.0, 4.0],
        [0, 1, 2, 2],
        terminated=[False, False, True, False],
        truncated=[False, False, False, True],
    )
    agent = agent_of()
    expected = [1 + 0.5 * -0.5, 2 + 0.5 * 1.0, 3, 4 + 0.5 * 4.1]
    np.testing.assert_allclose(target(agent, state_of(agent), batch), expected, rtol=1e-5)


def test_with_one_critic_its_value_is_the_target():
    agent = agent_of(twin_q=False)
    online = networks(critics=CRITICS[:1])
    batch = transitions([0, 0, 0], [0.0] * 3, [1.0, 2.0, 3.0], [0, 1, 2])
    found = target(agent, state_of(agent, online, online), batch)
    np.testing.assert_allclose(found, [1 + 0.5 * 2, 2 + 0.5 * 1, 3 + 0.5 * 4.8], rtol=1e-5)


def test_targets_come_from_the_target_networks_alone():
    agent = agent_of()
    other = networks([0.1, 0.2, 0.3], [(np.full(3, 9.0), 9.0), (np.full(3, -9.0), 9.0)])
    batch = transitions([0], [0.0], [1.0], [0])
    assert target(agent, state_of(agent, online=other), batch)[0] == pytest.approx(1 + 0.5 * -0.5)


@pytest.mark.parametrize(
    ("terminated", "truncated", "expected"),
    [
        ([False] * 3, [False] * 3, 1 + 0.5 * 2 + 0.25 * 4 + 0.125 * 4.1),
        ([False, True, False], [False] * 3, 1 + 0.5 * 2),
        ([False] * 3, [False, True, False], 1 + 0.5 * 2 + 0.25 * 1.0),  # from state 1, where step 1 led
    ],
    ids=["runs on", "terminated", "truncated"],
)
def test_three_steps_stop_with_the_episode(terminated, truncated, expected):
    agent = agent_of(n_step=3)
    columns = ([0, 0, 1], [0.0] * 3, [1.0, 2.0, 4.0], [0, 1, 2])
    batch = transitions(
        *([[number] for number in column] for column in columns),
        terminated=np.array(terminated)[:, None],
        truncated=np.array(truncated)[:, None],
    )
    assert target(agent, state_of(agent), batch)[0] == pytest.approx(expected)


def test_smoothing_disturbs_the_next_action_within_its_clip_and_within_the_bounds():
    # Q = a, and noise so large that it is always clipped: to 0.25 either way, and 0.9 + 0.25 to 1.
    agent = agent_of(twin_q=False, smooth_target_policy=True, target_noise=1e6, target_noise_clip=0.25, gamma=1.0)
    online = networks(critics=[(np.zeros(3), 1.0)])
    batch = transitions([0] * 200, [0.0] * 200, [0.0] * 200, [0] * 100 + [2] * 100)
    found = np.asarray(target(agent, state_of(agent, online, online), batch)).round(4)
    assert set(found[:100].tolist()) == {0.25, 0.75}
    assert set(found[100:].tolist()) == {np.float32(0.65).item(), 1.0}
    assert 30 < (found[:100] == 0.75).sum() < 70


def test_smoothing_noise_has_its_standard_deviation():
    agent = agent_of(twin_q=False, smooth_target_policy=True, target_noise=0.05, target_noise_clip=0.5, gamma=1.0)
    online = networks(critics=[(np.zeros(3), 1.0)])
    batch = transitions([0] * 2000, [0.0] * 2000, [0.0] * 2000, [0] * 2000)
    found = np.asarray(target(agent, state_of(agent, online, online), batch))
    assert found.mean() == pytest.approx(0.5, abs=0.005)
    assert found.std() == pytest.approx(0.05, rel=0.06)


# Learning ---------------------------------------------------------------------------------------------------------

# Two steps that end: the target is the reward. Errors of the first critic 1 + 2 * 0.5 - 1 = 1 and 2 - 2 - 4 = -4, of
# the second 0 - 0.5 - 1 = -1.5 and 4 + 1 - 4 = 1.
STEPS = transitions([0, 1], [0.5, -1.0], [1.0, 4.0], [0, 0], terminated=True)


def measured(settings, batch=STEPS):
    agent = agent_of(critic_lr=0.0, **settings)
    state, metrics = update(agent, state_of(agent), batch)
    return state, jax.device_get(metrics)


def test_the_loss_is_half_the_squared_error_of_both_critics():
    _, found = measured({})
    assert found["critic_loss"] == pytest.approx((0.5 * (1 + 2.25) + 0.5 * (16 + 1)) / 2)
    assert found["mean_td_error"] == pytest.approx((1 - 4 - 1.5 + 1) / 4)
    assert found["mean_q"] == pytest.approx((2 + 0 - 0.5 + 5) / 4)
    np.testing.assert_allclose(found["td_error"], [(1 + 1.5) / 2, (4 + 1) / 2], rtol=1e-6)


def test_hubers_loss_counts_large_errors_by_their_size():
    _, found = measured({"use_huber": True, "huber_threshold": 1.0})
    # 0.5, 1 (4 - 0.5); 1.5 - 0.5, 0.5
    assert found["critic_loss"] == pytest.approx((0.5 + 1.0 + 3.5 + 0.5) / 2)


def test_weights_of_prioritised_replay_weigh_the_loss_but_not_the_priorities():
    weight = np.array([[0.5, 0.1]], np.float32)
    _, found = measured({}, STEPS._replace(extras={"weight": weight}))
    assert found["critic_loss"] == pytest.approx((0.5 * 0.5 * (1 + 2.25) + 0.1 * 0.5 * (16 + 1)) / 2)
    np.testing.assert_allclose(found["td_error"], [1.25, 2.5], rtol=1e-6)


def test_the_actor_climbs_the_first_critic_by_the_chain_rule():
    _, found = measured({"policy_delay": 1})
    assert found["actor_loss"] == pytest.approx(-(2.0 + 1.0) / 2)
    # d Q_1 / d logit = slope (1 - a^2) = 2 * 0.75 in both states, each half the batch.
    assert found["actor_gnorm"] == pytest.approx(np.hypot(2 * 0.75 / 2, 2 * 0.75 / 2), rel=1e-5)


def test_the_actor_moves_by_its_own_learning_rate_towards_larger_values():
    state, _ = measured({"policy_delay": 1, "actor_lr": 0.125})
    moved = np.asarray(state.online.actor["action"]) - networks().actor["action"]
    np.testing.assert_allclose(moved[:, 0], [0.125, 0.125, 0.0], rtol=1e-4)  # Adam's first step; no one was in state 2


def test_the_penalty_on_weights_is_in_both_gradients():
    plain, found = (measured({"policy_delay": 1, "l2_reg": coefficient})[1] for coefficient in (0.0, 3.0))
    actor = np.arctanh(ACTIONS)
    gradient = np.array([-0.75, -0.75, 0.0])
    assert plain["actor_gnorm"] == pytest.approx(np.linalg.norm(gradient), rel=1e-5)
    assert found["actor_gnorm"] == pytest.approx(np.linalg.norm(gradient + 3 * actor), rel=1e-5)
    # Of the first critic: errors 1 and -4 in states 0 and 1 with actions 0.5 and -1; of the second -1.5 and 1.
    first, second = np.array([1, -4, 0, 0.5 + 4]) / 2, np.array([-1.5, 1, 0, -0.75 - 1]) / 2
    weights = [np.append(values, slope) for values, slope in CRITICS]
    both = np.concatenate([first + 3 * weights[0], second + 3 * weights[1]])
    assert found["critic_gnorm"] == pytest.approx(np.linalg.norm(both), rel=1e-5)


def differs(a, b):
    return any(not np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def test_actor_and_targets_learn_at_every_policy_delay_th_update_only():
    agent = agent_of(policy_delay=3, tau=0.25)
    states = [state_of(agent)]
    metrics = []
    for _ in range(6):
        state, found = update(agent, states[-1], STEPS)
        states.append(state)
        metrics.append(found)
    changes = [
        (
            differs(a.online.critics, b.online.critics),
            differs(a.online.actor, b.online.actor),
            differs(a.target, b.target),
        )
        for a, b in itertools.pairwise(states)
    ]
    assert changes == [(True, False, False), (True, False, False), (True, True, True)] * 2
    assert [int(state.actor_optimizer.count) for state in states] == [0, 0, 0, 1, 1, 1, 2]
    old, online, new = (
        np.asarray(part.critics[0]["q"]) for part in (states[2].target, states[3].online, states[3].target)
    )
    np.testing.assert_allclose(new, 0.75 * old + 0.25 * online, rtol=1e-6)
    losses = [float(found["actor_loss"]) for found in metrics]
    assert losses[:2] == [0, 0] and losses[2] == losses[3] == losses[4] != 0, "in between, the last one is told"


def test_targets_wait_for_their_frequency_in_timesteps_too():
    agent = agent_of(policy_delay=1, target_network_update_freq=8.0, timesteps_per_update=4.0)
    state, moved = state_of(agent), []
    for _ in range(4):
        new, _ = update(agent, state, STEPS)
        moved.append(differs(state.target, new.target))
        state = new
    assert moved == [False, True, False, True]


def test_targets_begin_as_copies_and_critics_apart():
    agent = TD3().bind(SPEC)
    state = jax.jit(agent.init, compiler_options=QUICK)(KEY)
    assert not differs(state.online, state.target)
    assert len(state.online.critics) == 2
    assert differs(*state.online.critics)
    actions = agent._policy(state.online.actor, np.eye(3, dtype=np.float32))
    assert np.abs(actions).max() < 0.1, "where tanh is steep"


# Acting -----------------------------------------------------------------------------------------------------------


def acted(agent, explore, rows=500, stddev=0.0):
    state = state_of(agent)._replace(stddev=jnp.float32(stddev))
    obs = np.eye(3, dtype=np.float32)[np.arange(rows) % 3]
    first = np.ones(rows, bool)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def act(agent, state):
        view = agent.view(state, jnp.zeros(()))
        return agent.act(view, agent.start(view, rows, KEY), obs, first, KEY, explore)

    return np.asarray(act(agent, state)[0])[:, 0], ACTIONS[np.arange(rows) % 3]


@pytest.mark.parametrize("exploration", [GaussianNoise(0.3), ParameterNoise(0.3)], ids=["actions", "parameters"])
def test_noise_is_added_where_it_explores_and_only_there(exploration):
    agent = agent_of(exploration=exploration)
    greedy, policy = acted(agent, False, stddev=0.3)
    np.testing.assert_allclose(greedy, policy, rtol=1e-5)
    noisy, _ = acted(agent, True, stddev=0.3)
    off = (noisy - policy)[policy == 0.5]
    assert 0.15 < off.std() < 0.3
    assert np.abs(noisy).max() <= 1


def test_an_update_adapts_parameter_noise():
    agent = agent_of(exploration=ParameterNoise(0.1, target=1e-6))
    state, _ = update(agent, state_of(agent), STEPS)
    assert state.stddev == pytest.approx(0.1 / 1.01)


def test_actions_of_any_rank_are_served():
    agent = TD3(policy_model=Table(), q_model=Table(), policy_delay=1).bind(Spec(SPEC.obs, Box(-3, 3, (2, 2))))
    state = agent.init(KEY)
    view = agent.view(state, jnp.zeros(()))
    obs = np.eye(3, dtype=np.float32)
    action, _, _ = agent.act(view, agent.start(view, 3, KEY), obs, np.ones(3, bool), KEY)
    assert action.shape == (3, 2, 2)
    flat = transitions([0, 1, 2], [0.0] * 3, [1.0] * 3, [0, 1, 2])
    _, metrics = update(agent, state, flat._replace(action=np.asarray(action)[None]))
    assert np.isfinite(metrics["critic_loss"])


# What it refuses --------------------------------------------------------------------------------------------------


def test_other_action_spaces_are_refused():
    for space in (MultiDiscrete((2, 2)), Box(-np.inf, np.inf, (2,)), Box(0, 9, (2,), np.int32)):
        with pytest.raises(ValueError, match=r"^TD3 serves Box action spaces of floats with finite bounds") as error:
            TD3().bind(Spec(SPEC.obs, space))
        assert f"this one is {space}" in str(error.value)


def test_settings_that_cannot_be_are_refused_where_they_are_set():
    with pytest.raises(ValueError, match=r"training\(policy_delay=0\): expected a whole number of at least 1"):
        TD3Config().training(policy_delay=0)
    with pytest.raises(ValueError, match=r"training\(target_noise=-1\): expected a number of at least 0"):
        TD3Config().training(target_noise=-1)
    with pytest.raises(ValueError, match=r"TD3 explores with GaussianNoise, OrnsteinUhlenbeckNoise, ParameterNoise"):
        TD3Config().exploration(exploration_config={"type": "EpsilonGreedy"})
