"""The temperature by hand: which way it moves, how far, and what it aims at."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest

from athlete.ops.temperature import default_target_entropy, temperature_init, temperature_update
from athlete.spaces import Box, Discrete

update = jax.jit(temperature_update)


def test_it_begins_at_what_is_asked_for():
    assert temperature_init(0.2).alpha() == pytest.approx(0.2)


@pytest.mark.parametrize(("entropy", "direction"), [([1.0, 2.0], -1), ([-3.0, -1.0], 1)], ids=["above", "below"])
def test_it_moves_against_the_entropys_distance_from_the_target(entropy, direction):
    # Adam's first step is as long as the learning rate, in log alpha.
    moved = update(temperature_init(0.5), np.float32(entropy), 0.5, 0.1)
    assert moved.log_alpha == pytest.approx(math.log(0.5) + 0.1 * direction, rel=1e-4)


def test_the_gradient_is_the_mean_distance_whatever_alpha_is():
    for alpha in (1e-3, 10.0):
        moved = update(temperature_init(alpha), np.float32([1.0, 3.0]), 0.5, 0.1)
        np.testing.assert_allclose(moved.optimizer.mean[0], [0.1 * 1.5], rtol=1e-6)  # a tenth of it: Adam's moment


def test_without_a_learning_rate_it_stays():
    moved = update(temperature_init(0.3), np.float32([5.0]), -1.0, 0.0)
    assert moved.alpha() == pytest.approx(0.3)


def test_targets_are_the_papers_and_a_share_of_the_largest_entropy_for_discrete_actions():
    assert default_target_entropy(Box(-1, 1, (2, 3))) == -6.0
    assert default_target_entropy(Discrete(4)) == pytest.approx(0.3 * math.log(4))
