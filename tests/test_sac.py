"""SAC by hand, with both kinds of actions: soft values, targets across both endings, losses, the policy's gradient."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import Table

from athlete.algorithms.sac import SAC, SACConfig
from athlete.core import ActingCarry, Spec, Transition
from athlete.exploration import GaussianNoise, OrnsteinUhlenbeckNoise
from athlete.ops.random import wrap
from athlete.ops.temperature import temperature_init
from athlete.spaces import Box, Discrete, MultiDiscrete

QUICK = {"xla_backend_optimization_level": 0}  # tiny programs: compiling is all they cost
KEY = wrap(np.array([0, 1], np.uint32))
NOTHING = 1e-6  # a temperature at which entropy does not count


# Three states, one-hot. Two discrete actions: probabilities and values are tables.
STATES = Box(0, 1, (3,))
PROBABILITIES = np.array([[0.25, 0.75], [0.5, 0.5], [0.9, 0.1]])
VALUES = [np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([[0.0, 4.0], [4.0, 2.0], [9.0, 9.0]])]
SMALLER = np.array([[0.0, 2.0], [3.0, 2.0], [5.0, 6.0]])
ENTROPY = -np.sum(PROBABILITIES * np.log(PROBABILITIES), axis=1)

# One continuous action: the policy's mean is a table, Q_i(s, a) = V_i(s) + slope_i a.
MEANS = np.array([0.5, -0.5, 0.9])  # after tanh
CRITICS = [([1.0, 2.0, 3.0], 2.0), ([0.0, 4.0, 5.0], -1.0)]
#   Q_1(s, mean) = 1 + 1, 2 - 1, 3 + 1.8; Q_2 = 0 - 0.5, 4 + 0.5, 5 - 0.9
CERTAIN = -30.0  # log standard deviation, held at -20


def table(numbers):
    return jnp.asarray(numbers, jnp.float32)


def discrete(alpha=NOTHING, **settings):
    agent = SAC(policy_model=Table(), q_model=Table(), gamma=0.5, **settings).bind(Spec(STATES, Discrete(2)))
    critics = [{"q": table(values)} for values in VALUES[: 2 if agent.twin_q else 1]]
    actor = {"policy": table(np.log(PROBABILITIES))}
    state = agent.init(KEY)._replace(temperature=temperature_init(alpha))
    return agent, state._replace(actor=actor, critics=critics, targets=jax.tree.map(jnp.copy, critics))


def continuous(alpha=NOTHING, log_std=CERTAIN, **settings):
    agent = SAC(policy_model=Table(), q_model=Table(), gamma=0.5, **settings).bind(Spec(STATES, Box(-1, 1, (1,))))
    critics = [{"q": table([*values, slope])[:, None]} for values, slope in CRITICS[: 2 if agent.twin_q else 1]]
    actor = {"policy": jnp.stack([table(np.arctanh(MEANS)), jnp.full(3, log_std)], axis=1)}
    state = agent.init(KEY)._replace(temperature=temperature_init(alpha))
    return agent, state._replace(actor=actor, critics=critics, targets=jax.tree.map(jnp.copy, critics))


def transitions(state, action, reward, next_state, terminated=False, truncated=False, extras=None):
    """A batch `[T, B, ...]` of numbered states; one step where lists are flat. Floats are continuous actions."""
    state, next_state, action = (np.atleast_2d(part) for part in (state, next_state, action))
    reward = np.atleast_2d(np.asarray(reward, np.float32))
    flags = [np.broadcast_to(np.atleast_2d(flag), reward.shape) for flag in (terminated, truncated)]
    action = action[..., None].astype(np.float32) if action.dtype.kind == "f" else action.astype(np.int32)
    one_hot, first = np.eye(3, dtype=np.float32), np.zeros(reward.shape, bool)
    return Transition(one_hot[state], first, action, reward, one_hot[next_state], *flags, (), extras or {})


@functools.partial(jax.jit, compiler_options=QUICK)
def target(agent, state, batch):
    """What the critics should have said, `[B]`: 16, which they are made to say, less their errors."""
    critics = jax.tree.map(lambda table: jnp.full_like(table, 16.0).at[3:].set(0.0), state.critics)
    return 16.0 - agent.update(state._replace(critics=critics), batch, KEY, jnp.zeros(()))[1]["td_error"]


@functools.partial(jax.jit, compiler_options=QUICK)
def update(agent, state, batch):
    return agent.update(state, batch, KEY, jnp.zeros(()))


@functools.partial(jax.jit, compiler_options=QUICK)
def slopes(agent, state):
    """Of the sum of all states' soft values, to the policy's outputs."""

    def total(actor):
        policy = agent._policy(actor, jnp.eye(3))
        return jnp.sum(agent._soft_value(policy, state.critics, jnp.eye(3), state.temperature.alpha(), KEY)[0])

    return jax.grad(total)(state.actor)["policy"]


ENDINGS = {"terminated": [False, False, True, False], "truncated": [False, False, False, True]}


# Targets ----------------------------------------------------------------------------------------------------------


def test_the_target_of_discrete_actions_sums_over_them_and_knows_both_endings():
    alpha = 0.1
    value = np.sum(PROBABILITIES * SMALLER, axis=1) + alpha * ENTROPY
    batch = transitions([0] * 4, [0] * 4, [1.0, 2.0, 3.0, 4.0], [0, 1, 2, 2], **ENDINGS)
    expected = [1 + 0.5 * value[0], 2 + 0.5 * value[1], 3, 4 + 0.5 * value[2]]
    np.testing.assert_allclose(target(*discrete(alpha), batch), expected, rtol=1e-5)


def test_the_target_of_continuous_actions_is_the_smaller_value_of_a_sampled_one():
    batch = transitions([0] * 4, [0.0] * 4, [1.0, 2.0, 3.0, 4.0], [0, 1, 2, 2], **ENDINGS)
    expected = [1 + 0.5 * -0.5, 2 + 0.5 * 1.0, 3, 4 + 0.5 * 4.1]
    np.testing.assert_allclose(target(*continuous(), batch), expected, rtol=1e-4)


def test_with_one_critic_its_value_is_the_target():
    batch = transitions([0, 0], [0.0, 0.0], [1.0, 2.0], [0, 2])
    np.testing.assert_allclose(target(*continuous(twin_q=False), batch), [1 + 0.5 * 2, 2 + 0.5 * 4.8], rtol=1e-4)


def test_a_sampled_actions_log_probability_is_paid_for_at_the_temperature():
    # With values of 0 the target is -gamma alpha log pi, on average gamma alpha times the entropy. A standard deviation
    # of 0.1 around 0 is hardly squashed: log(0.1) + 0.5 log(2 pi e), less 0.01 for the slope of tanh.
    agent, state = continuous(alpha=2.0, log_std=math.log(0.1))
    state = state._replace(
        actor={"policy": state.actor["policy"].at[:, 0].set(0.0)}, targets=jax.tree.map(jnp.zeros_like, state.targets)
    )
    batch = transitions([0] * 4000, [0.0] * 4000, [0.0] * 4000, [0] * 4000)
    entropy = math.log(0.1) + 0.5 * math.log(2 * math.pi * math.e) - 0.01
    assert np.mean(target(agent, state, batch)) == pytest.approx(0.5 * 2.0 * entropy, abs=0.05)


def test_targets_come_from_the_target_critics_and_the_current_policy():
    agent, state = continuous()
    other = jax.tree.map(lambda leaf: leaf + 7, state.critics)
    batch = transitions([0], [0.0], [1.0], [0])
    assert target(agent, state._replace(critics=other), batch)[0] == pytest.approx(1 + 0.5 * -0.5, rel=1e-4)


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
    columns = ([0, 0, 1], [0.0] * 3, [1.0, 2.0, 4.0], [0, 1, 2])
    batch = transitions(
        *([[number] for number in column] for column in columns),
        terminated=np.array(terminated)[:, None],
        truncated=np.array(truncated)[:, None],
    )
    assert target(*continuous(n_step=3), batch)[0] == pytest.approx(expected, rel=1e-4)


# Learning ---------------------------------------------------------------------------------------------------------

# Two steps that end: the target is the reward. With continuous actions the errors of the first critic are
# 1 + 2 * 0.5 - 1 = 1 and 2 - 2 - 4 = -4, of the second 0 - 0.5 - 1 = -1.5 and 4 + 1 - 4 = 1.
STEPS = transitions([0, 1], [0.5, -1.0], [1.0, 4.0], [0, 0], terminated=True)


def test_the_loss_is_half_the_squared_errors_of_all_critics_and_weights_weigh_it():
    _, found = update(*continuous(critic_lr=0.0), STEPS)
    assert found["critic_loss"] == pytest.approx((0.5 * (1 + 2.25) + 0.5 * (16 + 1)) / 2)
    assert found["mean_td_error"] == pytest.approx((1 - 4 - 1.5 + 1) / 4)
    assert found["mean_q"] == pytest.approx((2 + 0 - 0.5 + 5) / 4)
    np.testing.assert_allclose(found["td_error"], [(1 + 1.5) / 2, (4 + 1) / 2], rtol=1e-6)
    weighted = STEPS._replace(extras={"weight": np.float32([[0.5, 0.1]])})
    _, found = update(*continuous(critic_lr=0.0), weighted)
    assert found["critic_loss"] == pytest.approx((0.5 * 0.5 * (1 + 2.25) + 0.1 * 0.5 * (16 + 1)) / 2)
    np.testing.assert_allclose(found["td_error"], [1.25, 2.5], rtol=1e-6)


def test_the_loss_of_discrete_actions_is_that_of_the_one_taken():
    batch = transitions([0, 1], [1, 0], [1.0, 4.0], [0, 0], terminated=True)
    # Values 2 and 3 by the first critic, 4 and 4 by the second.
    _, found = update(*discrete(critic_lr=0.0), batch)
    assert found["critic_loss"] == pytest.approx((0.5 * (1 + 9) + 0.5 * (1 + 0)) / 2)
    np.testing.assert_allclose(found["td_error"], [(1 + 3) / 2, (1 + 0) / 2], rtol=1e-6)


def test_the_policy_of_discrete_actions_climbs_the_exact_soft_value():
    # d V / d logit_i = p_i (q_i - alpha log p_i - V).
    alpha = 0.3
    soft = SMALLER - alpha * np.log(PROBABILITIES)
    value = np.sum(PROBABILITIES * soft, axis=1, keepdims=True)
    np.testing.assert_allclose(slopes(*discrete(alpha)), PROBABILITIES * (soft - value), atol=1e-5)


def test_the_policy_of_continuous_actions_climbs_the_smaller_critic_by_the_chain_rule():
    # d Q / d mean = slope (1 - a^2); the smaller critics are the second, the first and the second.
    expected = np.array([-1.0, 2.0, -1.0]) * (1 - MEANS**2)
    np.testing.assert_allclose(slopes(*continuous())[:, 0], expected, rtol=1e-3)


def test_losses_of_the_policy_are_minus_its_soft_value_under_the_new_critics():
    batch = transitions([0, 1], [0, 0], [0.0, 0.0], [0, 0], terminated=True)
    _, found = update(*discrete(0.1, critic_lr=0.0), batch)
    value = np.sum(PROBABILITIES * SMALLER, axis=1) + 0.1 * ENTROPY
    assert found["actor_loss"] == pytest.approx(-value[:2].mean(), rel=1e-5)
    assert found["entropy"] == pytest.approx(ENTROPY[:2].mean(), rel=1e-5)
    # Both tables of critics fall by the learning rate where an action was taken: action 0, 4 -> 3 in state 1.
    _, found = update(*discrete(0.1, critic_lr=1.0), batch)
    lower = SMALLER[:2] - [[1, 0], [1, 0]]
    value = np.sum(PROBABILITIES[:2] * lower, axis=1) + 0.1 * ENTROPY[:2]
    value[0] += 0.25  # the second critic's 0 is right already; the first's 1 - 1 is then the same
    assert found["actor_loss"] == pytest.approx(-value.mean(), rel=1e-4)


def test_alpha_falls_while_the_policy_is_more_random_than_its_target_and_rises_otherwise():
    batch = transitions([1, 1], [0, 0], [0.0, 0.0], [0, 0])
    for target_entropy, direction in ((0.5, -1), (0.69, -1), (0.7, 1)):  # the entropy is log 2 = 0.693
        state, found = update(*discrete(1.0, target_entropy=target_entropy, alpha_lr=0.1), batch)
        assert state.temperature.log_alpha == pytest.approx(0.1 * direction, rel=1e-2)
        assert found["target_entropy"] == pytest.approx(target_entropy)
        assert found["alpha_value"] == 1.0, "that of before the update"
    state, _ = update(*discrete(0.2, alpha_lr=0.0), batch)
    assert state.temperature.alpha() == pytest.approx(0.2)


def test_targets_move_by_tau_when_their_timesteps_have_passed():
    agent, state = continuous(critic_lr=0.5, tau=0.25, target_network_update_freq=3.0, timesteps_per_update=2.0)
    online, moved = state.critics[0]["q"], []
    for _ in range(3):
        before = state.targets[0]["q"]
        state, _ = update(agent, state, STEPS)
        moved.append(float(jnp.abs(state.targets[0]["q"] - before).max()))
        online = state.critics[0]["q"]
    assert moved[0] == 0 and moved[1] > 0 and moved[2] > 0  # after 2, 4 and 6 timesteps
    np.testing.assert_allclose(state.targets[0]["q"], before + 0.25 * (online - before), rtol=1e-5)


# Acting -----------------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames=("explore",), compiler_options=QUICK)
def act(agent, state, carry, key=KEY, explore=True, rows=3):
    view = agent.view(state, jnp.zeros(()))
    return agent.act(view, carry, jnp.eye(3), jnp.zeros(3, bool), key, explore)


def fresh(agent):
    return agent.start(None, 3, KEY)


def test_greedy_actions_are_the_mode():
    agent, state = discrete()
    np.testing.assert_array_equal(act(agent, state, fresh(agent), explore=False)[0], [1, 0, 0])
    agent, state = continuous(log_std=0.0)
    np.testing.assert_allclose(act(agent, state, fresh(agent), explore=False)[0][:, 0], MEANS, rtol=1e-5)


def test_exploring_samples_the_policy():
    agent, state = discrete()
    keys = jax.random.split(KEY, 500)
    drawn = np.stack([act(agent, state, fresh(agent), key)[0] for key in keys])
    np.testing.assert_allclose(drawn.mean(axis=0), PROBABILITIES[:, 1], atol=0.07)
    agent, state = continuous(log_std=1.0)
    drawn = np.stack([act(agent, state, fresh(agent), key)[0] for key in keys[:50]])
    assert drawn.shape == (50, 3, 1) and np.abs(drawn).max() <= 1 and drawn.std(axis=0).min() > 0.3


def test_noise_that_drifts_comes_on_top_of_samples_and_is_carried_on():
    agent, state = continuous(exploration=OrnsteinUhlenbeckNoise(theta=0.5, sigma=0.0, base_scale=0.5))
    carry = ActingCarry((), jnp.full((3, 1), 0.4))
    action, carry, _ = act(agent, state, carry)
    np.testing.assert_allclose(carry.exploration, 0.2)
    np.testing.assert_allclose(action[:, 0], np.minimum(MEANS + 2 * 0.5 * 0.2, 1.0), rtol=1e-4)  # of a range of 2


def test_actions_have_the_shape_of_their_space():
    agent = SAC(policy_model=Table(), q_model=Table()).bind(Spec(STATES, Box(-1, 1, (2, 2))))
    action, _, _ = act(agent, agent.init(KEY), fresh(agent))
    assert action.shape == (3, 2, 2)
    one_hot, number = np.eye(3, dtype=np.float32)[None], np.zeros((1, 3), np.float32)
    flag = np.zeros((1, 3), bool)
    batch = Transition(one_hot, flag, np.asarray(action)[None], number, one_hot, flag, flag, (), {})
    _, found = update(agent, agent.init(KEY), batch)
    assert math.isfinite(found["critic_loss"]) and found["target_entropy"] == -4


# What it refuses and understands ------------------------------------------------------------------------------------


def test_other_action_spaces_are_refused_with_who_serves_them():
    with pytest.raises(ValueError, match=r"SAC serves Box .* and Discrete .*, and this one is MultiDiscrete"):
        SAC().bind(Spec(STATES, MultiDiscrete([2, 2])))
    with pytest.raises(ValueError, match="SAC serves Box action spaces of floats with finite bounds"):
        SAC().bind(Spec(STATES, Box(-np.inf, np.inf, (1,))))
    with pytest.raises(ValueError, match=r"GaussianNoise is noise on continuous actions.*StochasticSampling"):
        SAC(exploration=GaussianNoise()).bind(Spec(STATES, Discrete(2)))


def test_rllibs_spellings():
    config = SACConfig().training(
        optimization={"actor_learning_rate": 1e-4, "critic_learning_rate": [[0, 1e-3], [100, 0]]}, target_entropy=-2.0
    )
    assert config.actor_lr == 1e-4 and config.critic_lr == [[0, 1e-3], [100, 0]] and config.alpha_lr == 3e-4
    assert config.training(target_entropy="auto").target_entropy is None
    assert config.horizon() == 100
    assert SACConfig.from_dict({"optimization": {"entropy_learning_rate": 0.0}}).alpha_lr == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 1e-3}, r"training\(lr=0.001\): SAC has a learning rate for each .* actor_lr, critic_lr, alpha_lr"),
        ({"optimization": {"actor_lr": 1e-3}}, r"there is no 'actor_lr'"),
        ({"target_entropy": "none"}, "expected a number"),
        ({"initial_alpha": 0.0}, "expected a number of at least 1e-06"),
        ({"alpha_lr": -1.0}, "expected a number of at least 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SACConfig().training(**settings)
