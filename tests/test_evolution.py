"""Learning without gradients: a population that plays whole episodes, the same wherever it plays them."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from modes import CARTPOLE, KEY, PENDULUM, assert_close, assert_resumes

from athlete import PolicySpec
from athlete.algorithms import get_config_class
from athlete.algorithms.es import ES, ESConfig
from athlete.algorithms.evolution import Seen, with_shown
from athlete.algorithms.ppo import PPOConfig
from athlete.callbacks import DefaultCallbacks
from athlete.core import EnvWrapper, Played, hyper
from athlete.env import make_multi_agent
from athlete.loops.collect import spec_of
from athlete.loops.generations import CompiledWaves, GenerationTraining, HostedWaves
from athlete.loops.host import HostedEnv
from athlete.memory import room
from athlete.models.mlp import MLP
from athlete.models.recurrent import GRU
from athlete.ops.cma import adapt, constants_of, default_population, draw, start_search
from athlete.ops.moments import Moments, initial_moments, merge_moments, update_moments
from athlete.ops.random import wrap
from athlete.ops.ranks import centered_ranks

SMALL: dict[str, dict[str, Any]] = {
    "ES": {"episodes_per_batch": 6},
    "ARS": {"num_rollouts": 6, "rollouts_used": 4},
    "CMAES": {"popsize": 6},
    "PGPE": {"popsize": 6},
}
SETTINGS = {"model": {"fcnet_hiddens": [4]}, "eval_prob": 0.2}


@hyper
class AlwaysAlike(EnvWrapper):
    """Every episode of it begins alike, so that only who acts makes a difference."""

    def reset(self, key):
        return self.env.reset(wrap(np.array([0, 5], np.uint32)))


def small(name: str, env: Any = "CartPole-v1", **environment: Any) -> Any:
    config = get_config_class(name)().environment(env, env_config={"max_episode_steps": 9}, **environment)
    return config.training(**SMALL[name], **SETTINGS).debugging(seed=3).reporting(logdir=False)


def ended(config: Any, generations: int = 3) -> tuple[Any, list[Any]]:
    with config.build() as algorithm:
        results = [algorithm.train() for _ in range(generations)]
        return jax.device_get(algorithm.run), [
            [r["timesteps_total"], r["hist_stats"]["episode_reward"]] for r in results
        ]


# The same everywhere


@pytest.mark.parametrize(("env", "model"), [(CARTPOLE, MLP((4,))), (PENDULUM, GRU(3, (4,)))])
def test_compiled_and_hosted_generations_are_equal_whatever_the_number_of_rows(env: Any, model: Any) -> None:
    env = AlwaysAlike(env)
    agent = ES(
        episodes_per_batch=8, noise_stdev=0.5, stepsize=0.1, action_noise_std=0.0, standardizes=True, model=model
    )
    agent = agent.bind(spec_of(env))
    trainings = [
        GenerationTraining(agent, waves, 500.0, KEY)
        for waves in (CompiledWaves(env), HostedWaves(HostedEnv(env, 4)), HostedWaves(HostedEnv(env, 9)))
    ]
    begun = jax.device_get(trainings[0].run.state)
    for _ in range(2):
        first, *others = [training.advance(2) for training in trainings]
        for other in others:
            assert other.timesteps == first.timesteps and other.metrics == pytest.approx(first.metrics, rel=1e-4)
            np.testing.assert_allclose(other.returns, first.returns, rtol=1e-5)
    assert int(trainings[0].run.iteration) == 4
    for training in trainings[1:]:
        assert_close(trainings[0].run, training.run, 1e-4)
    assert np.abs(begun.parameters - trainings[0].run.state.parameters).max() > 0.1


def test_on_gymnasium_workers_play_what_one_process_plays_to_the_last_bit() -> None:
    config = small("ES", backend="gymnasium")
    alone = ended(config.copy().rollouts(num_envs_per_worker=4))
    shared = ended(config.copy().rollouts(num_rollout_workers=2, num_envs_per_worker=2))
    assert shared[1] == alone[1]
    for a, b in zip(jax.tree.leaves(alone[0]), jax.tree.leaves(shared[0]), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("backend", ["auto", "gymnasium"])
@pytest.mark.parametrize("name", SMALL)
def test_resuming_is_exact_on_gymnasium_too(name: str, backend: str, tmp_path: Any) -> None:
    assert_resumes(small(name, backend=backend), tmp_path)


# What is told


def test_episodes_of_the_policy_are_those_that_results_tell_of() -> None:
    config = small("ES").environment("CartPole-v1", env_config={"max_episode_steps": 100})
    with config.training(eval_prob=0.5, noise_stdev=1e-6, action_noise_std=0.0).build() as algorithm:
        result = algorithm.train()
    assert result["episodes_this_iter"] == 3  # half of six, besides these
    assert result["hist_stats"]["episode_reward"] == result["hist_stats"]["episode_lengths"], "CartPole gives 1 a step"
    assert result["timesteps_this_iter"] > 3 * 9
    learner = result["info"]["learner"]["default_policy"]["learner_stats"]
    assert learner["population_len_mean"] * 6 + sum(result["hist_stats"]["episode_lengths"]) == pytest.approx(
        result["timesteps_this_iter"]
    )


def test_without_episodes_of_the_policy_those_of_its_members_are_told() -> None:
    with small("ES").training(eval_prob=0.0).build() as algorithm:
        result = algorithm.train()
    assert result["episodes_this_iter"] == 6
    mean = result["info"]["learner"]["default_policy"]["learner_stats"]["population_reward_mean"]
    assert result["episode_reward_mean"] == pytest.approx(mean)


def test_a_mean_is_over_the_episodes_of_report_length_generations() -> None:
    config = small("ES").training(eval_prob=0.5, report_length=2)
    assert config.smoothing() == 6
    assert config.copy().reporting(metrics_num_episodes_for_smoothing=50).smoothing() == 50
    with config.build() as algorithm:
        for _ in range(3):
            result = algorithm.train()
    assert len(result["hist_stats"]["episode_reward"]) == 6


def test_an_iteration_is_as_many_generations_as_its_least_timesteps_take() -> None:
    with small("ES").reporting(min_sample_timesteps_per_iteration=200).build() as algorithm:
        result = algorithm.train()
        assert 200 <= result["timesteps_total"] < 200 + 7 * 9
        assert int(algorithm.run.iteration) > 2


# The filter


def test_the_filter_has_seen_every_observation_that_was_acted_on_once() -> None:
    with small("ES").build() as algorithm:
        algorithm.train()
        result = algorithm.train()
        state = jax.device_get(algorithm.run.state)
        action = algorithm.compute_single_action(np.zeros(4, np.float32))
    assert float(state.filter.count) == result["timesteps_total"]
    assert action in (0, 1)


def test_moments_of_first_episodes_are_gathered_row_by_row() -> None:
    random = np.random.default_rng(0)
    shown, first = random.normal(3.0, 2.0, (6, 2, 3)).astype(np.float32), np.zeros((6, 2), bool)
    first[0], first[4, 1] = True, True  # the second row begins anew and is not listened to any more
    seen = Seen(np.zeros(2, np.int32), np.zeros(2, np.float32), np.zeros((2, 3)), np.zeros((2, 3)))
    for t in range(6):
        seen = with_shown(seen, shown[t], first[t])
    for row, steps in enumerate((6, 4)):
        own = shown[:steps, row]
        assert seen.count[row] == steps
        np.testing.assert_allclose(seen.mean[row], own.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(seen.squares[row] / steps, own.var(axis=0), rtol=1e-4)


def test_moments_that_were_counted_apart_are_merged_as_if_they_had_been_seen_together() -> None:
    random = np.random.default_rng(1)
    before, one, two = (random.normal(size=(n, 1, 2)).astype(np.float32) * n for n in (5, 3, 7))
    moments = update_moments(initial_moments(np.zeros(2)), before)
    others = Moments(
        np.array([3.0, 7.0, 0.0]),
        np.stack([one.mean(axis=(0, 1)), two.mean(axis=(0, 1)), np.full(2, 9.0)]),
        np.stack([one.var(axis=(0, 1)), two.var(axis=(0, 1)), np.full(2, 9.0)]),
    )
    merged = merge_moments(moments, others)
    whole = np.concatenate([before, one, two])[:, 0]
    assert merged.count == 15
    np.testing.assert_allclose(merged.mean, whole.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(merged.variance, whole.var(axis=0), rtol=1e-5)
    nothing = Moments(np.zeros(3), others.mean, others.variance)
    for known in (moments, initial_moments(np.zeros(2))):
        for a, b in zip(merge_moments(known, nothing), known, strict=True):
            np.testing.assert_array_equal(a, b)


def test_ranks_are_centred_and_equal_returns_share_theirs() -> None:
    np.testing.assert_allclose(centered_ranks(np.array([3.0, -1.0, 3.0, 8.0, 0.0])), [0.125, -0.5, 0.125, 0.5, -0.25])
    np.testing.assert_allclose(centered_ranks(np.full(4, 2.0)), np.zeros(4))
    np.testing.assert_allclose(centered_ranks(np.array([7.0])), [0.0])


# Acting


def test_noise_is_on_the_actions_of_members_and_never_on_greedy_ones() -> None:
    agent = ES(action_noise_std=0.5, episodes_per_batch=2, model=MLP((4,))).bind(spec_of(PENDULUM))
    state = agent.init(wrap(KEY))
    population, _ = agent.ask(state, wrap(KEY), 0.0)
    obs, first = np.ones((3, 3), np.float32), np.ones(3, bool)

    def acted(view: Any, **settings: Any) -> Any:
        return agent.act(view, (), obs, first, wrap(KEY), **settings)[0]

    alike = agent.members(state, np.stack([state.parameters] * 3))
    still = acted(agent.view(state, 0.0), explore=False)
    np.testing.assert_allclose(acted(alike, explore=False), still, atol=1e-6)
    assert np.abs(acted(alike) - still).min() > 1e-3
    unlike = acted(agent.members(state, population), explore=False)
    assert np.unique(np.asarray(unlike).round(5)).size == 3


def test_members_see_what_a_function_makes_of_observations() -> None:
    config = small("ES").rollouts(observation_fn=lambda obs: obs[:2])
    with config.build() as algorithm:
        result = algorithm.train()
        state = jax.device_get(algorithm.run.state)
    assert state.filter.mean.shape == (2,) and float(state.filter.count) == result["timesteps_total"]
    assert state.parameters.size == 2 * 4 + 4 + 4 * 2 + 2


def test_members_like_the_policy_act_as_it_does_with_memory_and_filter() -> None:
    agent = ES(standardizes=True, action_noise_std=0.0, episodes_per_batch=2, model=GRU(3, (4,))).bind(
        spec_of(PENDULUM)
    )
    moments = Moments(np.float32(9.0), np.float32([1.0, -2.0, 0.5]), np.float32([4.0, 0.3, 1.0]))
    state = agent.init(wrap(KEY))._replace(filter=moments)
    policy, members = agent.view(state, 0.0), agent.members(state, np.stack([state.parameters] * 2))
    plain = dataclasses.replace(agent, standardizes=False)
    unfiltered = plain.view(state._replace(filter=()), 0.0)
    act = jax.jit(lambda view, carry, obs, first: agent.act(view, carry, obs, first, wrap(KEY)))
    carries = [agent.start(view, 2, wrap(KEY)) for view in (policy, members, unfiltered)]
    shown = np.random.default_rng(0).normal(size=(3, 2, 3)).astype(np.float32)
    for t in range(3):
        standard = (shown[t] - moments.mean) / np.sqrt(moments.variance + 1e-8)
        first, actions = np.full(2, t == 0), []
        for i, (view, obs) in enumerate([(policy, shown[t]), (members, shown[t]), (unfiltered, standard)]):
            action, carries[i], _ = act(view, carries[i], obs, first)
            actions.append(action)
        np.testing.assert_allclose(actions[1], actions[0], atol=1e-6)
        np.testing.assert_allclose(actions[2], actions[0], atol=1e-6)
    np.testing.assert_allclose(carries[1].model, carries[0], atol=1e-6)
    np.testing.assert_allclose(carries[1].seen.mean, shown.mean(axis=0), atol=1e-6)  # as they were, not standardised
    played = Played(np.zeros(3, np.float32), np.ones(3, np.int32), carries[1])
    after = agent.tell(agent.init(wrap(KEY)), agent.ask(state, wrap(KEY), 0.0)[1], played, 0.0)[0].filter
    np.testing.assert_allclose(after.mean, shown.mean(axis=(0, 1)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after.variance, shown.var(axis=(0, 1)), rtol=1e-4)


# Bad input


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"normalize_rewards": True}, "ES: normalize_rewards changes rewards, and members are judged by the returns"),
        ({"clip_rewards": True}, "ES: clip_rewards changes rewards"),
        ({"reward_scale": 2.0}, "ES: reward_scale changes rewards"),
        ({"exploration_config": {"type": "RND"}}, "ES: a bonus changes rewards"),
        ({"eval_prob": 1.5}, "ES: eval_prob=1.5 is a share of episodes; make it 1 or less"),
        ({"num_learners": 2}, "ES: num_learners=2: a population plays on one device"),
        ({"output": "there"}, "ES: output='there': no steps are kept"),
        ({"noise_stdev": 0.0}, "noise_stdev=0.0: expected a number of at least 1e-06"),
    ],
)
def test_what_does_not_fit_is_said(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ESConfig().environment("CartPole-v1").build(**settings)


def test_it_is_for_one_agent() -> None:
    with pytest.raises(ValueError, match="ES learns for one agent, and this environment has many"):
        ESConfig().environment(make_multi_agent("CartPole-v1")).build()


def test_a_full_covariance_of_a_large_network_is_refused_and_auto_takes_its_diagonal() -> None:
    config = get_config_class("CMAES")().environment("CartPole-v1").training(model={"fcnet_hiddens": [64, 64]})
    with pytest.raises(ValueError, match="covariance='full' of 4610 parameters is a matrix of 4610 x 4610; take 'diag"):
        config.copy().training(covariance="full").build()
    agent = config.make_agent(spec_of(CARTPOLE))
    assert jax.eval_shape(agent.init, wrap(KEY)).search.covariance.shape == (4610,)
    small = config.training(model={"fcnet_hiddens": [8]}).make_agent(spec_of(CARTPOLE))
    assert jax.eval_shape(small.init, wrap(KEY)).search.covariance.shape == (58, 58)


def test_a_population_that_does_not_fit_into_memory_is_refused_before_it_is_made(monkeypatch: Any) -> None:
    monkeypatch.setattr(room, "available_bytes", lambda: 100_000)
    config = ESConfig().environment("CartPole-v1").training(episodes_per_batch=1000)
    with pytest.raises(ValueError, match=r"a population: 38.0 MB, .* has 100.0 kB available; make episodes_per_batch"):
        config.build()


@pytest.mark.parametrize("n", [4, 12])
@pytest.mark.parametrize("diagonal", [False, True])
def test_cma_es_finds_the_minimum_of_an_ellipsoid(n: int, diagonal: bool) -> None:
    """Axes of unlike length, along those of the coordinates: the diagonal alone can learn them."""
    scales, population = np.logspace(0, 3, n).astype(np.float32), default_population(n)
    constants = constants_of(n, population, diagonal)

    def unfinished(search: Any) -> Any:
        return (search.mean**2 @ scales > 1e-8) & (search.generation < 300 * n)

    def generation(search: Any) -> Any:
        steps = draw(search, jax.random.fold_in(wrap(KEY), search.generation), population)
        points = search.mean + search.sigma * steps
        return adapt(search, steps, -(points**2 @ scales), constants)

    begun = start_search(np.ones(n, np.float32), 0.5, diagonal)
    found = jax.jit(lambda search: jax.lax.while_loop(unfinished, generation, search))(begun)
    assert found.generation < 300 * n
    deviations = np.sqrt(found.covariance if diagonal else np.diag(found.covariance))
    assert deviations[0] > 5 * deviations[-1]


def test_variances_that_float32_cannot_tell_from_none_are_kept_apart_from_it() -> None:
    flat = start_search(np.zeros(2, np.float32), 1.0)._replace(
        covariance=np.array([[1.0, 1.0], [1.0, 1.0]], np.float32)
    )
    after = adapt(flat, np.zeros((4, 2), np.float32), np.arange(4.0), constants_of(2, 4))
    assert np.linalg.eigvalsh(after.covariance).min() > 0 and after.scales.min() > 0


def test_constants_are_those_of_the_tutorials_table() -> None:
    """Worked out by hand for n = 2 and six members: mu = 3, log(3.5 / i) for the weights."""
    c = constants_of(2, 6)
    raw = np.log(3.5 / np.arange(1, 7))
    np.testing.assert_allclose(c.weights[:3], raw[:3] / raw[:3].sum(), rtol=1e-6)
    assert c.mu_eff == pytest.approx(2.0286, abs=1e-3)
    assert c.weights[:3].sum() == pytest.approx(1.0) and (c.weights[3:] < 0).all()
    assert c.chi == pytest.approx(np.sqrt(np.pi / 2), abs=0.01)  # of a standard normal vector in the plane
    assert default_population(10) == 10 and default_population(40) == 15


def test_hooks_of_batches_are_never_called_and_it_says_so() -> None:
    class Batches(DefaultCallbacks):
        def on_sample_end(self, **_: Any) -> None:
            pass

    with pytest.raises(ValueError, match="ES plays whole episodes, without the batches of on_sample_end"):
        small("ES", backend="gymnasium").callbacks(Batches).build()


def test_many_agents_cannot_have_such_a_policy() -> None:
    config = (
        PPOConfig()
        .environment(make_multi_agent("CartPole-v1"))
        .multi_agent(policies={"p": PolicySpec(policy_class="ES")}, policy_mapping_fn=lambda agent: "p")
    )
    with pytest.raises(ValueError, match=r"policies\['p'\]: ES learns from whole episodes of one agent"):
        config.build()
