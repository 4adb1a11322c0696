"""C51's projection by hand, and against the loop of the paper's algorithm 1."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from athlete.ops.projection import atoms, project

SUPPORT = np.array([-1.0, 0.0, 1.0, 2.0], np.float32)
jitted = jax.jit(project)


def projected(returns, probabilities=(1.0,)):
    """The mass on each of the four atoms, of one distribution."""
    return np.asarray(jitted(np.array([probabilities], np.float32), np.array([returns], np.float32), SUPPORT))[0]


def test_atoms_are_evenly_spaced_from_end_to_end():
    np.testing.assert_allclose(atoms(-1.0, 2.0, 4), SUPPORT)
    np.testing.assert_allclose(atoms(0.0, 1.0, 2), [0, 1])
    assert atoms(-10.0, 10.0, 51)[25] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("return_", "expected"),
    [
        (0.0, [0, 1, 0, 0]),  # hits an atom
        (-1.0, [1, 0, 0, 0]),
        (2.0, [0, 0, 0, 1]),
        (0.25, [0, 0.75, 0.25, 0]),  # three times as near to 0 as to 1
        (1.5, [0, 0, 0.5, 0.5]),
        (-9.0, [1, 0, 0, 0]),  # held within the support
        (9.0, [0, 0, 0, 1]),
    ],
)
def test_a_return_gives_its_mass_to_its_neighbours(return_, expected):
    np.testing.assert_allclose(projected([return_]), expected, atol=1e-6)


def test_masses_of_several_returns_add_up():
    # 0.5 at -0.5 -> 0.25 each to -1 and 0; 0.3 at 0 -> 0; 0.2 at 7 -> 2.
    np.testing.assert_allclose(projected([-0.5, 0.0, 7.0], [0.5, 0.3, 0.2]), [0.25, 0.55, 0, 0.2], atol=1e-6)


def test_a_terminated_distribution_is_its_reward():
    """Where the discount is 0 all returns are the same number."""
    np.testing.assert_allclose(projected([0.5] * 4, [0.1, 0.2, 0.3, 0.4]), [0, 0.5, 0.5, 0], atol=1e-6)


def test_within_the_support_the_mean_is_kept():
    random = np.random.default_rng(0)
    returns = random.uniform(-1, 2, (5, 7)).astype(np.float32)
    probabilities = random.dirichlet(np.ones(7), 5).astype(np.float32)
    found = np.asarray(jitted(probabilities, returns, SUPPORT))
    np.testing.assert_allclose(found @ SUPPORT, (probabilities * returns).sum(axis=1), rtol=1e-4, atol=1e-6)


def scatter(probabilities, returns, support):
    """Algorithm 1 of Bellemare et al., atom by atom in float64."""
    spacing = (support[-1] - support[0]) / (len(support) - 1)
    mass = np.zeros(len(support))
    for probability, return_ in zip(probabilities, returns, strict=True):
        b = (np.clip(return_, support[0], support[-1]) - support[0]) / spacing
        lower, upper = int(np.floor(b)), int(np.ceil(b))
        if lower == upper:  # an exact hit: both shares below would be 0
            mass[lower] += probability
        else:
            mass[lower] += probability * (upper - b)
            mass[upper] += probability * (b - lower)
    return mass


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(0.01, 1.0), min_size=5, max_size=5),
    st.floats(-20, 20),
    st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    st.sampled_from([(-1.0, 1.0), (-10.0, 10.0), (0.0, 200.0), (-2.0, -1.0)]),
)
def test_it_is_the_papers_algorithm(weights, reward, gamma, ends):
    support = np.linspace(*ends, 5)
    probabilities = np.array(weights) / np.sum(weights)
    returns = reward + gamma * support
    found = np.asarray(
        jitted(probabilities[None].astype(np.float32), returns[None].astype(np.float32), support.astype(np.float32))
    )[0]
    np.testing.assert_allclose(found, scatter(probabilities, returns, support), atol=2e-4)
    assert found.sum() == pytest.approx(1.0, abs=1e-5)
    assert found.min() >= 0
