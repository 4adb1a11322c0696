"""Estimators of what a policy would be worth: worked out by hand, against each other, and against what is true."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.algorithms import get_config_class
from athlete.algorithms.bc import BCConfig
from athlete.algorithms.fixed import RandomPolicy
from athlete.algorithms.fqe import FQE
from athlete.core import Spec, Transition
from athlete.estimation import Told, bounds_of_values, estimate
from athlete.models.forward import forward
from athlete.offline.columns import from_columns
from athlete.offline.dataset import DataError
from athlete.offline.estimators import (
    behaviour_values,
    doubly_robust,
    importance_sampling,
    interval,
    interval_of_fits,
    missing_share,
    side_by_side,
    weighted_importance_sampling,
    weighted_interval,
)
from athlete.ops.random import wrap
from athlete.policy import Policy
from athlete.spaces import Box, Discrete

KEY = wrap(np.array([0, 1], np.uint32))
REWARD, LENGTHS = np.array([1.0, 2.0, 4.0, 8.0, 16.0]), np.array([3, 2])
RATIO = np.array([0.5, 2.0, 3.0, 0.25, 4.0])
EPISODES = side_by_side(REWARD, LENGTHS, 0.5)


def test_episodes_stand_side_by_side():
    assert EPISODES.reward.tolist() == [[1, 2, 4], [8, 16, 0]]
    assert EPISODES.discount.tolist() == [[1, 0.5, 0.25], [1, 0.5, 0]]
    assert behaviour_values(EPISODES).tolist() == [1 + 1 + 1, 8 + 8]


def test_importance_sampling_counts_each_reward_by_how_it_was_come_to():
    assert importance_sampling(EPISODES, RATIO).tolist() == [0.5 * 1 + 1.0 * 1 + 3.0 * 1, 0.25 * 8 + 1.0 * 8]
    assert importance_sampling(EPISODES, RATIO, "episode").tolist() == [3.0 * 3, 1.0 * 16]


def test_weights_are_divided_by_their_mean_at_each_step():
    """Products are 0.5, 1, 3 and 0.25, 1, 1: the second episode is over and counts on."""
    means = np.array([0.375, 1.0, 2.0])
    expected = [0.5 / 0.375 * 1 + 1.0 * 1 + 3.0 / 2.0 * 1, 0.25 / 0.375 * 8 + 1.0 * 8]
    np.testing.assert_allclose(weighted_importance_sampling(EPISODES, RATIO), expected)
    whole = [3.0 / means[2] * 3, 1.0 / means[2] * 16]
    np.testing.assert_allclose(weighted_importance_sampling(EPISODES, RATIO, "episode"), whole)


def test_doubly_robust_is_the_recursion_from_the_end():
    value, state = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    last = 0.3 + 3.0 * (4 - 3)
    middle = 0.2 + 2.0 * (2 + 0.5 * last - 2)
    first = 0.1 + 0.5 * (1 + 0.5 * middle - 1)
    other = 0.4 + 0.25 * (8 + 0.5 * (0.5 + 4.0 * (16 - 5)) - 4)
    np.testing.assert_allclose(doubly_robust(EPISODES, RATIO, value, state, 0.5), [first, other])


def test_where_the_policy_is_the_behaviour_all_are_its_returns():
    same = np.ones(5)
    for found in (importance_sampling(EPISODES, same), weighted_importance_sampling(EPISODES, same)):
        np.testing.assert_allclose(found, behaviour_values(EPISODES))
    right = np.array([1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4, 4, 8 + 0.5 * 16, 16])
    np.testing.assert_allclose(doubly_robust(EPISODES, same, right, right, 0.5), behaviour_values(EPISODES))


def test_importance_sampling_is_right_on_average():
    """Two steps of a bandit with two arms, all four courses with their probabilities: no draw, no tolerance."""
    behaviour, policy, paid = np.array([0.3, 0.7]), np.array([0.8, 0.2]), np.array([1.0, 5.0])
    total = 0.0
    for arms in itertools.product((0, 1), repeat=2):
        arms = np.array(arms)
        episodes = side_by_side(paid[arms], np.array([2]), 0.9)
        for per in ("step", "episode"):
            found = importance_sampling(episodes, policy[arms] / behaviour[arms], per)[0]
            total += 0.5 * np.prod(behaviour[arms]) * found
    assert total == pytest.approx((1 + 0.9) * policy @ paid)


def test_intervals_hold_the_mean_and_narrow_with_episodes():
    random = np.random.default_rng(0)
    few, many = random.normal(3.0, 1.0, 20), random.normal(3.0, 1.0, 2000)
    wide, narrow = interval(few), interval(many)
    assert wide[0] < few.mean() < wide[1] and narrow[0] < 3.0 < narrow[1]
    assert narrow[1] - narrow[0] == pytest.approx(2 * 1.96 / np.sqrt(2000), rel=0.1)
    low, high = weighted_interval(EPISODES, RATIO, "step")
    assert low <= weighted_importance_sampling(EPISODES, RATIO).mean() <= high


def test_the_interval_covers_what_is_true_nineteen_times_in_twenty():
    random = np.random.default_rng(1)
    bounds = [interval(random.normal(0.0, 1.0, 60), seed) for seed in range(200)]
    assert 0.88 < np.mean([low < 0.0 < high for low, high in bounds]) < 0.99


def test_the_weighted_interval_holds_what_the_episodes_cannot_tell():
    """The policy does what was recorded a tenth as often: what else it does may be paid as the best step was."""
    episodes, ratio = side_by_side(np.full(40, 1.0), np.full(20, 2), 0.5), np.full(40, 0.1)
    assert weighted_importance_sampling(episodes, ratio).mean() == pytest.approx(1.5)
    rewards = np.where(np.arange(40) < 2, 3.0, 1.0)
    low, high = weighted_interval(side_by_side(rewards, np.full(20, 2), 0.5), ratio, "step")
    assert low <= 1.5 and high > 0.9 * (1 + 0.5) * 3.0
    same = weighted_interval(side_by_side(rewards, np.full(20, 2), 0.5), np.ones(40), "step")
    assert same[0] >= 1.5 and same[1] < 2.0  # of the behaviour itself the data hold all


def test_values_lie_between_what_rewards_can_add_up_to():
    assert bounds_of_values(np.array([0.5, 1.0]), 0.98) == (0.0, pytest.approx(50.0))
    assert bounds_of_values(np.array([-16.0, -1.0]), 0.9) == (pytest.approx(-160.0), 0.0)
    assert bounds_of_values(np.array([0.0, 1.0]), 1.0) == (0.0, np.inf)


# Fitted Q evaluation --------------------------------------------------------------------------------------------------


def fqe_batch(action):
    zeros = np.zeros((1, 4), np.float32)
    obs = np.arange(8, dtype=np.float32).reshape(1, 4, 2)
    flags = np.array([[False, True, False, False]]), np.array([[False, False, True, False]])
    return Transition(obs, zeros > 1, action, zeros + 1.5, obs + 1, *flags, (), {})


def test_targets_stay_within_what_rewards_can_add_up_to():
    spec = Spec(Box(-9, 9, (2,)), Discrete(3))
    policy, batch = RandomPolicy().bind(spec), fqe_batch(np.zeros((1, 4), np.int32))
    free = FQE(policy, (), np.zeros(2, np.float32), np.ones(2, np.float32)).bind(spec)
    state = free.init(KEY)
    value = np.asarray(free.values(state.params, batch.obs[0], batch.action[0]))
    _, metrics = dataclasses.replace(free, least=2.0, most=2.0).update(state, batch, KEY, 0.0)
    assert metrics["loss"] == pytest.approx(np.mean(0.5 * (value - 2.0) ** 2), rel=1e-5)


@pytest.mark.parametrize("action_space", [Discrete(3), Box(-1, 1, (1,))], ids=["discrete", "continuous"])
def test_fitted_values_learn_towards_what_the_policy_does_next(action_space):
    spec = Spec(Box(-9, 9, (2,)), action_space)
    algorithm = get_config_class("PPO" if isinstance(action_space, Discrete) else "TD3")()
    policy = algorithm.training(model={"fcnet_hiddens": [4]}).make_agent(spec)
    view = policy.view(policy.init(KEY), jnp.zeros(()))
    agent = FQE(policy, view, np.float32([1.0, 2.0]), np.float32([2.0, 3.0]), gamma=0.8, tau=0.25).bind(spec)
    state = agent.init(KEY)
    action = np.array([[0, 1, 2, 0]], np.int32)
    batch = fqe_batch(action if isinstance(action_space, Discrete) else action[..., None].astype(np.float32) / 2)
    after, metrics = jax.jit(lambda: agent.update(state, batch, KEY, 0.0))()
    value = agent.values(state.params, batch.obs[0], batch.action[0])
    if isinstance(action_space, Discrete):
        seen = (batch.obs[0] - np.array([1.0, 2.0])) / np.array([2.0, 3.0])
        standard = forward(agent.model, state.params, jnp.asarray(seen, jnp.float32))["q"]
        np.testing.assert_allclose(value, standard[np.arange(4), action[0]], rtol=1e-5)
    next_value = agent.state_values(state.target, batch.next_obs[0], KEY)
    target = 1.5 + 0.8 * np.where([False, True, False, False], 0.0, next_value)
    assert metrics["loss"] == pytest.approx(np.mean(0.5 * (np.asarray(value) - target) ** 2), rel=1e-4)
    for old, new, moved in zip(*map(jax.tree.leaves, (state.params, after.params, after.target)), strict=True):
        np.testing.assert_allclose(moved, old + 0.25 * (new - old), rtol=1e-4, atol=1e-6)


def test_the_mean_over_discrete_actions_is_exact():
    spec = Spec(Box(-9, 9, (2,)), Discrete(2))
    policy = RandomPolicy().bind(spec)
    agent = FQE(policy, (), np.zeros(2, np.float32), np.ones(2, np.float32)).bind(spec)
    assert policy.distribution((), (), np.zeros((3, 2)), np.ones(3, bool)) is not None
    params, obs = agent.init(KEY).params, np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    each = [agent.values(params, obs, np.full(3, action)) for action in (0, 1)]
    np.testing.assert_allclose(agent.state_values(params, obs, KEY), np.mean(each, axis=0), rtol=1e-5)


# Together -------------------------------------------------------------------------------------------------------------


def bandit(steps=4000, seed=0):
    """Episodes of one step: arm 1 pays 1, arm 0 nothing, and arm 1 was taken one time in four."""
    random = np.random.default_rng(seed)
    arm = (random.uniform(size=steps) < 0.25).astype(int)
    return {
        "obs": random.normal(size=(steps, 1)),
        "new_obs": random.normal(size=(steps, 1)),
        "actions": arm,
        "rewards": arm.astype(float),
        "terminateds": np.ones(steps, bool),
        "action_prob": np.where(arm == 1, 0.25, 0.75),
    }


METHODS = {
    "is": {"type": "ImportanceSampling"},
    "wis": {"type": "ray.rllib.offline.estimators.WeightedImportanceSampling"},
    "dm": {"type": "DirectMethod", "q_model_config": {"updates": 500, "lr": 5e-3, "hiddens": [16]}},
    "dr": {"type": "DoublyRobust", "q_model_config": {"updates": 500, "lr": 5e-3, "hiddens": [16]}},
}


def test_all_of_them_tell_what_half_and_half_is_worth():
    data = from_columns(bandit(), "x")
    agent = RandomPolicy().bind(Spec(Box(-np.inf, np.inf, (1,)), Discrete(2)))
    found = estimate(Policy(agent, (), 0), data, METHODS)
    for name, numbers in found.items():
        assert numbers["v_target"] == pytest.approx(0.5, abs=0.03), name
        assert numbers["v_behavior"] == pytest.approx(0.25, abs=0.02)
        assert numbers["v_delta"] == pytest.approx(numbers["v_target"] - numbers["v_behavior"])
    for name in METHODS:
        assert found[name]["v_target_low"] < 0.5 < found[name]["v_target_high"], name
    assert found["dr"]["v_target_std"] < found["is"]["v_target_std"]


def test_what_mean_weights_lack_of_one_the_data_have_nothing_of():
    """Of `RATIO` the mean weights are 0.375, 1 and 2: what was left at the first step is not come back to."""
    assert missing_share(EPISODES, np.ones(5)) == 0.0
    assert missing_share(EPISODES, RATIO) == pytest.approx(0.625)
    assert missing_share(EPISODES, np.array([0.5, 1.0, 0.5, 0.5, 0.5])) == pytest.approx(0.5 + 0.125 / 2 + 0.125 / 4)


@pytest.mark.parametrize("method", ["dm", "dr"])
def test_values_may_be_off_where_the_policy_does_what_the_data_do_not_hold(method):
    """Half of what a policy by chance does is there where one action was certain: V differs by its deviation there."""
    agent = RandomPolicy().bind(Spec(Box(-np.inf, np.inf, (1,)), Discrete(2)))
    policy, columns = Policy(agent, (), 0), bandit(200)
    fitting = METHODS["dm"]["q_model_config"] | {"updates": 200, "fits": 1}
    state_value, bounds = None, {}
    for probability in (0.5, 1.0):
        data = from_columns(
            columns | {"actions": np.zeros(200, np.int64), "action_prob": np.full(200, probability)}, "x"
        )
        told = Told(policy, data, 0.99, 0)
        found = told.by(method, METHODS[method] | {"q_model_config": fitting})
        bounds[probability] = np.array([found["v_target_low"], found["v_target_high"]]) - found["v_target"]
        (fit,) = told._fit(fitting)
        state_value = fit.state_value
    wider = bounds[1.0] - bounds[0.5]
    if method == "dm":  # whose numbers are the same, with the probabilities or without
        assert wider == pytest.approx([-0.5 * np.std(state_value), 0.5 * np.std(state_value)], rel=1e-3)
    assert np.std(state_value) > 0.01
    assert bounds[1.0][0] < -0.5 * np.std(state_value)
    assert bounds[1.0][1] > 0.5 * np.std(state_value)


def test_fits_to_bootstrap_samples_tell_how_far_fitted_values_err():
    """The first states are all alike here: of one fit the interval is a point, beside what is true."""
    data = from_columns(bandit(200) | {"obs": np.zeros((200, 1)), "new_obs": np.zeros((200, 1))}, "x")
    agent = RandomPolicy().bind(Spec(Box(-np.inf, np.inf, (1,)), Discrete(2)))
    fitting = METHODS["dm"]["q_model_config"] | {"updates": 200}
    methods = {str(fits): METHODS["dm"] | {"q_model_config": fitting | {"fits": fits}} for fits in (1, 4)}
    found = estimate(Policy(agent, (), 0), data, methods)
    assert found["1"]["v_target_high"] - found["1"]["v_target_low"] < 1e-5
    assert found["4"]["v_target_high"] - found["4"]["v_target_low"] > 1e-4
    assert interval_of_fits([1.0, 2.0, 3.0]) == pytest.approx((2.0 - 4.30, 2.0 + 4.30))


def test_a_step_counts_its_weight_in_a_fit():
    spec = Spec(Box(-9, 9, (2,)), Discrete(3))
    policy = RandomPolicy().bind(spec)
    agent = FQE(policy, (), np.zeros(2, np.float32), np.ones(2, np.float32)).bind(spec)
    state, batch = agent.init(KEY), fqe_batch(np.array([[0, 1, 2, 0]], np.int32))
    weight = np.array([[0.0, 3.0, 1.0, 0.0]], np.float32)
    _, weighted = jax.jit(lambda: agent.update(state, batch._replace(extras={"weight": weight}), KEY, 0.0))()
    _, twice = jax.jit(lambda: agent.update(state, rows_of(batch, [1, 1, 1, 2]), KEY, 0.0))()
    assert float(weighted["loss"]) == pytest.approx(float(twice["loss"]), rel=1e-5)


def rows_of(batch, rows):
    return jax.tree.map(lambda leaf: leaf[:, np.array(rows)], batch)


def test_an_evaluation_has_them_without_an_environment():
    config = BCConfig().offline_data(input_=bandit(400)).training(train_batch_size=50, model={"fcnet_hiddens": [8]})
    methods = {"wis": {"type": "WeightedImportanceSampling", "per": "episode"}}
    config.evaluation(off_policy_estimation_methods=methods, evaluation_interval=1)
    with config.reporting(min_sample_timesteps_per_iteration=100).debugging(seed=0).build() as algo:
        found = algo.train()["evaluation"]["off_policy_estimator"]["wis"]
        assert found["v_target_low"] <= found["v_target"] <= found["v_target_high"]


@pytest.mark.parametrize(
    ("methods", "data", "told"),
    [
        ({"x": {"type": "Magic"}}, {}, "{'x': {'type': 'Magic'}}: there are ImportanceSampling, Weighted"),
        ({"x": {"type": "ImportanceSampling", "per": "day"}}, {}, "{'per': 'day'}}: 'step' or 'episode'"),
        ({"x": {"type": "ImportanceSampling", "y": 1}}, {}, "{'y': ...}}: there is no such setting"),
        (
            {"x": {"type": "DirectMethod", "q_model_config": {"y": 1}}},
            {},
            "q_model_config={'y': ...}: there is no such",
        ),
        (
            {"x": {"type": "DoublyRobust", "q_model_config": {"updates": 1}}},
            {"action_prob": None},
            "walker.json: DoublyRobust needs the probability of each action under what chose it",
        ),
    ],
)
def test_what_cannot_be_estimated_is_told(methods, data, told):
    columns = {name: value for name, value in (bandit(40) | data).items() if value is not None}
    agent = RandomPolicy().bind(Spec(Box(-np.inf, np.inf, (1,)), Discrete(2)))
    with pytest.raises((ValueError, DataError)) as raised:
        estimate(Policy(agent, (), 0), from_columns(columns, "walker.json"), methods)
    assert told in str(raised.value)


def test_there_must_be_data():
    config = get_config_class("DQN")().environment("CartPole-v1")
    config.evaluation(off_policy_estimation_methods={"is": {"type": "ImportanceSampling"}}, evaluation_duration=1)
    with (
        config.build() as algo,
        pytest.raises(ValueError, match="off_policy_estimation_methods: there are no recorded"),
    ):
        algo.evaluate()
