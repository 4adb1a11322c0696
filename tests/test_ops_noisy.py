"""Noisy networks: the sigmas they start with, and draws with the moments of equations 10 and 11."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest

from athlete.ops.noisy import noisy_init, noisy_sample
from athlete.ops.random import wrap

KEY = wrap(np.array([0, 1], np.uint32))
VARIANCE = 2 / math.pi  # of f(x) f(y): (E |x|)^2, as E f(x)^2 = E |x| = sqrt(2 / pi) for normal x


def layer(inputs, outputs):
    return {"kernel": np.zeros((inputs, outputs), np.float32), "bias": np.zeros(outputs, np.float32)}


def draws(params, number):
    """Samples of all parameters, each leaf `[number, ...]`."""
    return jax.device_get(jax.jit(jax.vmap(noisy_sample, in_axes=(None, 0)))(params, jax.random.split(KEY, number)))


def test_sigmas_start_at_sigma0_over_the_root_of_a_layers_inputs():
    params = noisy_init(layer(16, 4), 0.5)
    np.testing.assert_allclose(params["sigma"]["kernel"], np.full((16, 4), 0.5 / 4))
    np.testing.assert_allclose(params["sigma"]["bias"], np.full(4, 0.5 / 4))
    assert jax.tree.structure(params["mean"]) == jax.tree.structure(params["sigma"])


def test_without_sigma_a_draw_is_the_mean():
    mean = {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.ones(3, np.float32)}
    for name, leaf in noisy_sample(noisy_init(mean, 0.0), KEY).items():
        np.testing.assert_array_equal(leaf, mean[name])


def test_the_scale_and_shift_of_a_normalisation_are_left_alone():
    mean = {**layer(2, 3), "scale": np.ones(3, np.float32), "shift": np.zeros(3, np.float32)}
    params = noisy_init([mean, {"norm": {"scale": np.ones(2, np.float32), "bias": np.zeros(2, np.float32)}}], 0.5)
    drawn = noisy_sample(params, KEY)
    assert len(jax.tree.leaves(params["sigma"])) == 2, "nor do they get a noise by learning"
    for name in ("scale", "shift"):
        np.testing.assert_array_equal(drawn[0][name], mean[name])
    for name in ("scale", "bias"):
        np.testing.assert_array_equal(drawn[1]["norm"][name], params["mean"][1]["norm"][name])
    assert np.abs(drawn[0]["kernel"]).min() > 0 and np.abs(drawn[0]["bias"]).min() > 0


def test_a_bias_has_the_noise_of_its_layers_outputs():
    """Equations 10 and 11: kernel[i, j] has f(e_i) f(e_j), bias[j] has f(e_j)."""
    params = {"mean": layer(3, 4), "sigma": jax.tree.map(np.ones_like, layer(3, 4))}
    drawn = noisy_sample(params, KEY)
    into = drawn["kernel"] / drawn["bias"]
    np.testing.assert_allclose(into, np.broadcast_to(into[:, :1], (3, 4)), rtol=1e-5)


def test_convolutions_of_rank_four_are_layers():
    mean = {"kernel": np.zeros((3, 3, 2, 5), np.float32), "bias": np.zeros(5, np.float32)}
    params = noisy_init(mean, 0.5)
    np.testing.assert_allclose(params["sigma"]["bias"], np.full(5, 0.5 / math.sqrt(18)))
    drawn = noisy_sample(params, KEY)
    assert drawn["kernel"].shape == (3, 3, 2, 5)
    assert np.linalg.matrix_rank(drawn["kernel"].reshape(18, 5), rtol=1e-4) == 1


def test_draws_have_the_moments_of_factorised_noise():
    params = {
        "mean": {"kernel": np.full((3, 2), 5.0, np.float32), "bias": np.full(2, -1.0, np.float32)},
        "sigma": {"kernel": np.full((3, 2), 2.0, np.float32), "bias": np.full(2, 3.0, np.float32)},
    }
    found = draws(params, 20_000)
    np.testing.assert_allclose(found["kernel"].mean(axis=0), 5.0, atol=0.06)
    np.testing.assert_allclose(found["kernel"].var(axis=0), 4 * VARIANCE, rtol=0.06)
    np.testing.assert_allclose(found["bias"].mean(axis=0), -1.0, atol=0.08)
    np.testing.assert_allclose(found["bias"].var(axis=0), 9 * math.sqrt(VARIANCE), rtol=0.06)


def test_a_matrix_has_noise_of_rank_one_and_signs_of_both_kinds():
    noise = draws({"mean": {"w": np.zeros((4, 5), np.float32)}, "sigma": {"w": np.ones((4, 5), np.float32)}}, 200)["w"]
    assert np.linalg.matrix_rank(noise, rtol=1e-4).max() == 1
    assert 0.4 < (noise > 0).mean() < 0.6


def test_leaves_share_no_noise_and_keys_no_draws():
    params = noisy_init([layer(2, 2), layer(2, 2)], math.sqrt(2.0))
    found = draws(params, 5000)
    columns = np.concatenate([leaf.reshape(5000, -1) for leaf in jax.tree.leaves(found)], axis=1)
    between = np.corrcoef(columns[:, :6].T, columns[:, 6:].T)[:6, 6:]
    assert np.abs(between).max() < 0.08, "between the layers"
    assert len(np.unique(columns[:, 0])) > 4900


def test_gradients_reach_mean_and_sigma():
    params = noisy_init({"w": np.ones((2, 2), np.float32)}, 1.0)
    drawn = noisy_sample(params, KEY)["w"]
    gradients = jax.grad(lambda params: noisy_sample(params, KEY)["w"].sum())(params)
    np.testing.assert_array_equal(gradients["mean"]["w"], np.ones((2, 2)))
    noise = (drawn - params["mean"]["w"]) / params["sigma"]["w"]
    np.testing.assert_allclose(gradients["sigma"]["w"], noise, rtol=1e-5)
    assert np.abs(noise).min() > 0 and pytest.approx(float(gradients["sigma"]["w"].sum())) == float(noise.sum())
