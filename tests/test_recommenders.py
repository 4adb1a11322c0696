"""Compiled recommenders, held to the rules of RecSim's and RLlib's in plain NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import athlete
from athlete.algorithms.bandit import BanditLinUCBConfig
from athlete.env.games.recommenders import make_recommender
from athlete.env.games.recommenders.interest_evolution import QUALITIES, InterestEvolution, moved_interest
from athlete.env.games.recommenders.long_term_satisfaction import LongTermSatisfaction
from athlete.env.games.recommenders.parametric import ParametricRecSys
from athlete.env.games.rllib import make_example
from athlete.env.registry import RECOMMENDERS, RLLIB
from athlete.env.twins import find_twin
from athlete.ops.random import wrap
from athlete.spaces import Discrete

KEY = wrap(np.array([0, 5], np.uint32))
ROWS = 20_000


@pytest.mark.parametrize("env_id", RECOMMENDERS)
def test_ids_are_found_and_keep_the_contract(env_id):
    env, _ = find_twin(env_id)
    assert env == make_recommender(env_id)
    athlete.check_env(env_id)
    with pytest.raises(ValueError, match="it has no 'nose'"):
        make_recommender(env_id, {"nose": 3})


def many_steps(env, state, action):
    """The same step from one state, drawn many times."""
    action = jnp.asarray(action)
    return jax.jit(jax.vmap(lambda key: env.step(state, action, key)))(jax.random.split(KEY, ROWS))


def interested(env: InterestEvolution, interests, budget: float, topics):
    state, _ = env.reset(KEY)
    topics = jnp.asarray(topics, jnp.int32)
    return state._replace(
        interests=jnp.zeros(20).at[: len(interests)].set(jnp.array(interests)),
        budget=jnp.float32(budget),
        topics=topics,
        qualities=jnp.asarray(QUALITIES)[topics],
    )


def test_a_user_watches_by_interest_and_pays_with_time_by_quality():
    """Weights 1.5, 0.5 and 2 for none; topic 0 has quality -3, topic 19 has 3."""
    env = InterestEvolution(num_candidates=3)
    state = interested(env, [0.5, -0.5], 50.0, [0, 1, 19])
    after, step = many_steps(env, state, [0, 1])
    click = np.asarray(step.obs["response"]["click"])
    np.testing.assert_allclose(click.mean(axis=0), [1.5 / 4, 0.5 / 4], atol=0.01)
    any_click = click.any(axis=1)
    np.testing.assert_array_equal(step.reward, np.where(any_click, 4.0, 0.0))
    np.testing.assert_allclose(step.obs["response"]["watch_time"].sum(axis=1), step.reward)
    spent = 50.0 - np.asarray(after.budget)
    of_topic = [4.0 * (1 - 0.9 / 3.4 * quality) for quality in QUALITIES[[0, 1]]]
    expected = np.where(click[:, 0], of_topic[0], np.where(click[:, 1], of_topic[1], 0.5))
    np.testing.assert_allclose(spent, expected, rtol=1e-5)
    moved = np.asarray(after.interests) - np.asarray(state.interests)
    assert (moved[~any_click] == 0).all() and (moved[:, 2:] == 0).all()
    grew = moved[click[:, 0] == 1, 0] > 0
    assert grew.mean() == pytest.approx(0.75, abs=0.02)
    assert not np.asarray(step.terminated).any()


def test_a_session_ends_when_the_time_is_used_up():
    env = InterestEvolution(num_candidates=3)
    state = interested(env, [1.0, 1.0, 1.0], 3.0, [0, 1, 2])
    after, step = many_steps(env, state, [0, 1])
    np.testing.assert_array_equal(np.unique(step.reward), [0.0, 3.0])
    np.testing.assert_array_equal(step.terminated, np.asarray(after.budget) <= 0)
    np.testing.assert_array_equal(step.terminated, np.asarray(step.reward) > 0)


@pytest.mark.parametrize(
    ("interest", "uniform", "expected"),
    [(0.0, 0.4, 0.3), (0.0, 0.6, -0.3), (0.5, 0.7, 0.575), (0.5, 0.8, 0.425), (-0.9, 0.5, -0.957), (1.0, 0.9, 1.0)],
)
def test_interest_grows_or_falls_by_what_it_is(interest, uniform, expected):
    assert float(moved_interest(jnp.float32(interest), jnp.float32(uniform))) == pytest.approx(expected, abs=1e-6)


def test_candidates_have_the_quality_of_their_topic():
    env = InterestEvolution(num_candidates=1000)
    state, obs = jax.jit(env.reset)(KEY)
    topics = np.asarray(obs["doc"]).argmax(axis=1)
    assert len(set(topics.tolist())) == 20
    noise = np.asarray(state.qualities) - QUALITIES[topics]
    assert noise.std() == pytest.approx(0.1, rel=0.1)
    assert QUALITIES[13] == QUALITIES[14] == 0 and QUALITIES[0] == -3 and QUALITIES[19] == 3
    for resample, same in ((True, False), (False, True)):
        env = InterestEvolution(resample_documents=resample)
        state, obs = env.reset(KEY)
        _, step = env.step(state, jnp.array([0, 1]), KEY)
        assert np.array_equal(obs["doc"], step.obs["doc"]) is same


def test_chocolate_engages_more_and_spoils_the_appetite():
    env = LongTermSatisfaction(num_candidates=2, sensitivity=0.5, kale_stddev=0.5)
    state, _ = env.reset(KEY)
    state = state._replace(exposure=jnp.float32(1.0), clickbait=jnp.array([0.75, 0.25]))
    after, step = many_steps(env, state, [0, 1])
    satisfaction = 1 / (1 + np.exp(-0.5))
    logs = np.log(np.asarray(step.reward))
    assert logs.mean() == pytest.approx((0.75 * 5 + 0.25 * 4) * satisfaction, abs=0.03)
    assert logs.std() == pytest.approx(0.875, rel=0.03)
    exposure = np.asarray(after.exposure)
    assert exposure.mean() == pytest.approx(0.7 - 0.5, abs=0.01)
    assert exposure.std() == pytest.approx(0.05, rel=0.05)
    np.testing.assert_array_equal(step.obs["response"]["click"], [[1, 0]] * ROWS)
    np.testing.assert_allclose(step.obs["response"]["engagement"][:, 0], np.minimum(step.reward, 100.0), rtol=1e-6)
    assert (np.asarray(after.budget) == 59).all() and not np.asarray(step.terminated).any()
    assert many_steps(env, state._replace(budget=jnp.float32(1.0)), [1, 0])[1].terminated.all()


def test_a_click_on_a_parametric_document_pays_one_minus_its_regret():
    env = ParametricRecSys(embedding_size=2, num_docs_to_select_from=3)
    state, _ = env.reset(KEY)
    state = state._replace(user=jnp.array([1.0, 0.5]), documents=jnp.array([[0.5, 1.0], [-0.5, 0.0], [0.0, 1.0]]))
    after, step = many_steps(env, state, [2])  # worth 1, -0.5, 0.5
    clicked = np.asarray(step.obs["response"]["click"])[:, 0] == 1
    assert clicked.mean() == pytest.approx(np.exp(0.5) / (np.exp(0.5) + 1), abs=0.01)
    np.testing.assert_allclose(step.reward, np.where(clicked, 0.5, 0.0))
    np.testing.assert_array_equal(after.budget, np.where(clicked, 59, 60))
    paid = [1 / (1 + np.exp(-worth)) * (1 - (1 - worth)) for worth in (1.0, 0.5)]
    np.testing.assert_allclose(step.info["regret"], paid[0] - paid[1], rtol=1e-5)
    assert step.reward.mean() == pytest.approx(paid[1], abs=0.01)


def test_databases_are_drawn_once_and_candidates_are_different_ones_of_them():
    env = ParametricRecSys(num_docs_in_db=12, num_users_in_db=1, db_seed=3)
    obs = [jax.jit(env.reset)(key)[1] for key in jax.random.split(KEY, 5)]
    assert all(np.array_equal(obs[0]["user"], each["user"]) for each in obs)
    rows = np.concatenate([np.asarray(each["doc"]) for each in obs])
    assert len(np.unique(rows, axis=0)) <= 12 and all(len(np.unique(each["doc"], axis=0)) == 10 for each in obs)
    other = ParametricRecSys(num_docs_in_db=12, num_users_in_db=1, db_seed=4).reset(KEY)[1]
    assert not np.array_equal(other["user"], obs[0]["user"])
    with pytest.raises(ValueError, match="num_docs_in_db=5 has fewer documents than num_docs_to_select_from=10"):
        ParametricRecSys(num_docs_in_db=5)


def test_slates_are_numbers_and_candidates_arms_where_that_is_asked_for():
    config = {"num_candidates": 4, "convert_to_discrete_action_space": True, "seed": 0}
    env = make_recommender("InterestEvolution-v0", config)
    assert env.action_space == Discrete(16)
    state, _ = env.reset(KEY)
    plain, numbered = many_steps(env.env, state, [3, 2]), many_steps(env, state, jnp.int32(3 + 4 * 2))
    jax.tree.map(np.testing.assert_array_equal, numbered, plain)
    arms = make_recommender("InterestEvolution-v0", config | {"wrap_for_bandits": True})
    assert arms.action_space == Discrete(4)
    _, obs = arms.reset(KEY)
    assert sorted(obs) == ["item", "response", "user"]
    _, step = arms.step(state, jnp.int32(3), KEY)
    np.testing.assert_array_equal(step.reward, env.env.step(state, jnp.array([3, 0]), KEY)[1].reward)


@pytest.mark.parametrize("name", ["InterestEvolutionRecSimEnv", "LongTermSatisfactionRecSimEnv", "ParametricRecSys"])
def test_rllibs_class_paths_are_served(name):
    made = make_example(f"{RLLIB}recommender_system.{name}", {"config": {"slate_size": 2}})
    assert made.action_space.shape == (2,)


def test_linucb_learns_what_a_user_likes():
    fields = {"num_users_in_db": 1, "num_docs_in_db": 100, "wrap_for_bandits": True}
    config = BanditLinUCBConfig().environment("ParametricRecSys-v0", env_config=fields).debugging(seed=0)
    with config.reporting(
        min_sample_timesteps_per_iteration=2000, metrics_num_episodes_for_smoothing=10
    ).build() as algo:
        algo.train()
        result = algo.train()
    assert result["custom_metrics"]["regret_mean"] < 0.05
    assert result["episode_reward_mean"] > 50  # 60 clicks, each of which pays at most 1; at random -45
