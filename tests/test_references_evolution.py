"""The whole `tell` of the algorithms without gradients is that of a plain NumPy reference, over several generations."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import numpy as np
import pytest
import references_evolution as references
from references import Adam
from test_references import CONTINUOUS, FALLING, PROGRESS, QUICK, TINY

from athlete.algorithms.ars import ARS
from athlete.algorithms.cmaes import CMAES
from athlete.algorithms.es import ES
from athlete.algorithms.pgpe import PGPE
from athlete.core import Played
from athlete.ops.cma import adapt, constants_of, start_search
from athlete.ops.random import wrap

RANDOM = np.random.default_rng(5)


def played_of(members, policy_episodes):
    """Returns with ties, the policy's own after them."""
    number = members + policy_episodes
    returns = np.round(RANDOM.normal(size=number, scale=3.0)).astype(np.float32)
    return Played(returns, RANDOM.integers(1, 9, number).astype(np.int32), ())


def hold(agent, reference, held, drawn_of, number_of_members):
    """Three generations of both sides, of which parameters and metrics must agree."""
    agent = agent.bind(CONTINUOUS)
    jitted = {name: jax.jit(getattr(agent, name), compiler_options=QUICK) for name in ("init", "ask", "tell")}
    state = jitted["init"](wrap(np.array([0, 1], np.uint32)))
    held = held(np.asarray(state.parameters, np.float64))
    for number, progress in enumerate(PROGRESS):
        population, drawn = jitted["ask"](state, wrap(np.array([2, number], np.uint32)), progress)
        center, policy = np.asarray(state.parameters), agent.policy_episodes
        assert len(population) == number_of_members + policy
        np.testing.assert_array_equal(population[-policy:], np.tile(center, (policy, 1)))
        played = played_of(len(population) - policy, policy)
        state, metrics = jitted["tell"](state, drawn, played, progress)
        members = np.asarray(population, np.float64)[:-policy]
        expected = reference(
            agent,
            held,
            drawn_of(agent, center, members),
            played.returns[:-policy].astype(np.float64),
            played.lengths[:-policy],
            progress,
        )
        np.testing.assert_allclose(state.parameters, held.parameters, rtol=2e-4, atol=2e-5)
        for name, value in expected.items():
            assert float(metrics[name]) == pytest.approx(value, rel=1e-3, abs=1e-6), name
        assert float(metrics["population_reward_mean"]) == pytest.approx(played.returns[:-policy].mean(), rel=1e-5)
        assert float(metrics["population_reward_max"]) == played.returns[:-policy].max()
        assert float(metrics["population_reward_min"]) == played.returns[:-policy].min()
        assert float(metrics["population_len_mean"]) == pytest.approx(played.lengths[:-policy].mean(), rel=1e-5)
    return state


def pairs_of(agent, center, members):
    """The noise of mirrored pairs, which the two halves of the members must agree on."""
    plus, minus = np.split(members - center, 2)
    np.testing.assert_allclose(plus, -minus, atol=1e-6)
    return plus / float(agent.noise_stdev)


def test_es() -> None:
    agent = ES(
        stepsize=FALLING, noise_stdev=0.3, l2_coeff=0.1, episodes_per_batch=7, policy_episodes=2, model=TINY
    )  # seven episodes are four pairs

    def held(parameters):
        return SimpleNamespace(parameters=parameters, optimizer=Adam(parameters))

    hold(agent, references.es, held, pairs_of, 8)


@pytest.mark.parametrize("used", [4, 99])
def test_ars(used: int) -> None:
    agent = ARS(
        sgd_stepsize=FALLING, noise_stdev=0.3, num_rollouts=11, rollouts_used=used, offset=-0.5, model=TINY
    )  # eleven episodes are six pairs; the sign of the offset does not count

    def held(parameters):
        return SimpleNamespace(parameters=parameters)

    hold(agent, references.ars, held, pairs_of, 12)


def test_ars_stands_still_where_all_are_as_good() -> None:
    agent = ARS(num_rollouts=4, model=TINY).bind(CONTINUOUS)
    state = agent.init(wrap(np.array([0, 1], np.uint32)))
    population, drawn = agent.ask(state, wrap(np.array([0, 2], np.uint32)), 0.0)
    number = len(population)
    alike = Played(np.full(number, 3.0, np.float32), np.ones(number, np.int32), ())
    after, _ = agent.tell(state, drawn, alike, 0.0)
    np.testing.assert_array_equal(after.parameters, state.parameters)


def test_pgpe() -> None:
    agent = PGPE(stepsize=FALLING, stdev_init=0.3, stdev_learning_rate=2.0, popsize=7, policy_episodes=2, model=TINY)

    def held(parameters):
        stdev = np.full_like(parameters, 0.3)
        return SimpleNamespace(parameters=parameters, stdev=stdev, optimizer=Adam(parameters))

    def steps_of(agent, center, members):
        plus, minus = np.split(members - center, 2)
        np.testing.assert_allclose(plus, -minus, atol=1e-6)
        return plus

    held_at = {}

    def keeping(parameters):
        return held_at.setdefault("held", held(parameters))

    state = hold(agent, references.pgpe, keeping, steps_of, 8)
    np.testing.assert_allclose(state.stdev, held_at["held"].stdev, rtol=1e-3)
    assert np.abs(np.asarray(state.stdev) - 0.3).max() > 0.05


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_cma_es(covariance: str) -> None:
    agent = CMAES(sigma0=0.4, popsize=9, episodes_per_member=2, covariance=covariance, model=TINY)
    held_at = {}

    def held(parameters):
        n = len(parameters)
        covariance_at = np.ones(n) if agent.covariance == "diagonal" else np.eye(n)
        held_at["held"] = SimpleNamespace(
            parameters=parameters,
            sigma=0.4,
            covariance=covariance_at,
            path_sigma=np.zeros(n),
            path_c=np.zeros(n),
            generation=0,
        )
        return held_at["held"]

    def steps_of(agent, center, members):
        once, again = members[::2], members[1::2]
        np.testing.assert_array_equal(once, again)  # a member plays two episodes
        return (once - center) / held_at["held"].sigma

    state = hold(agent, references.cma_es, held, steps_of, 18)
    search, expected = state.search, held_at["held"]
    for name in ("sigma", "covariance", "path_sigma", "path_c"):
        np.testing.assert_allclose(getattr(search, name), getattr(expected, name), rtol=2e-3, atol=2e-4, err_msg=name)
    assert int(search.generation) == 3


def test_cma_es_lets_no_long_path_into_the_covariance() -> None:
    """Where the path of sigma is much longer than a random walk's, the other one stands still (h_sigma is 0)."""
    n, popsize = 5, 8
    steps, returns = RANDOM.normal(size=(popsize, n)), np.arange(8.0)
    search = start_search(np.ones(n, np.float32), 0.4)._replace(path_sigma=np.full(n, 9.0, np.float32))
    after = adapt(search, steps.astype(np.float32), returns.astype(np.float32), constants_of(n, popsize))
    held = SimpleNamespace(
        parameters=np.ones(n),
        sigma=0.4,
        covariance=np.eye(n),
        path_sigma=np.full(n, 9.0),
        path_c=np.zeros(n),
        generation=0,
    )
    references.cma_es(SimpleNamespace(popsize=popsize), held, steps, returns, None, 0.0)
    np.testing.assert_array_equal(after.path_c, np.zeros(n))
    np.testing.assert_allclose(after.covariance, held.covariance, rtol=1e-4, atol=1e-5)
