"""The whole `tell` of the algorithms without gradients is that of a plain NumPy reference, over several generations."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import numpy as np
import pytest
import references_evolution as references
from references import Adam
from test_references import CONTINUOUS, FALLING, PROGRESS, QUICK, TINY

from athlete.algorithms.es import ES
from athlete.core import Played
from athlete.ops.random import wrap

RANDOM = np.random.default_rng(5)


def played_of(members, policy_episodes):
    """Returns with ties, the policy's own after them."""
    number = members + policy_episodes
    returns = np.round(RANDOM.normal(size=number, scale=3.0)).astype(np.float32)
    return Played(returns, RANDOM.integers(1, 9, number).astype(np.int32), ())


def hold(agent, reference, held, drawn_of):
    """Three generations of both sides, of which parameters and metrics must agree."""
    agent = agent.bind(CONTINUOUS)
    jitted = {name: jax.jit(getattr(agent, name), compiler_options=QUICK) for name in ("init", "ask", "tell")}
    state = jitted["init"](wrap(np.array([0, 1], np.uint32)))
    held = held(np.asarray(state.parameters, np.float64))
    for number, progress in enumerate(PROGRESS):
        population, drawn = jitted["ask"](state, wrap(np.array([2, number], np.uint32)), progress)
        center, policy = np.asarray(state.parameters), agent.policy_episodes
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

    hold(agent, references.es, held, pairs_of)
