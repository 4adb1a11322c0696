"""Adam, step by step, beside the paper's algorithm 1 in NumPy."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from athlete.ops.gradient import LARGE, Adam, adam, adam_init, from_parts, l2_penalized, to_parts

PARAMS = {"w": np.array([[1.0, -2.0], [0.5, 3.0]], np.float32), "b": np.array([0.1], np.float32)}
one_step = jax.jit(functools.partial(adam, epsilon=1e-5))
unclipped = jax.jit(functools.partial(adam, grad_clip=None, epsilon=1e-5))


def gradients_at(step):
    random = np.random.default_rng(step)
    return jax.tree.map(lambda leaf: (5 * random.normal(size=leaf.shape)).astype(np.float32), PARAMS)


def reference(params, steps, learning_rate, clip):
    """Kingma & Ba's algorithm 1 in float64, leaf by leaf, and the gradient norms before clipping."""
    params = {name: leaf.astype(float) for name, leaf in params.items()}
    mean, square = ({name: np.zeros(leaf.shape) for name, leaf in params.items()} for _ in range(2))
    norms = []
    for t in range(1, steps + 1):
        gradients = {name: leaf.astype(float) for name, leaf in gradients_at(t).items()}
        norms.append(np.sqrt(sum((leaf**2).sum() for leaf in gradients.values())))
        scale = 1.0 if clip is None else min(1.0, clip / norms[-1])
        for name, gradient in gradients.items():
            gradient = scale * gradient
            mean[name] = 0.9 * mean[name] + 0.1 * gradient
            square[name] = 0.999 * square[name] + 0.001 * gradient**2
            unbiased = mean[name] / (1 - 0.9**t), square[name] / (1 - 0.999**t)
            params[name] -= learning_rate * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-5)
    return params, norms


@pytest.mark.parametrize("clip", [None, 0.5, 11.0, 1e6])
def test_five_steps_are_those_of_the_paper(clip):
    params, state, norms = PARAMS, adam_init(PARAMS), []
    for t in range(1, 6):
        if clip is None:
            params, state, norm = unclipped(params, gradients_at(t), state, 0.1)
        else:
            params, state, norm = one_step(params, gradients_at(t), state, 0.1, clip)
        norms.append(float(norm))
    expected, expected_norms = reference(PARAMS, 5, 0.1, clip)
    np.testing.assert_allclose(norms, expected_norms, rtol=1e-6)
    assert clip != 11.0 or min(norms) < clip < max(norms), "some steps are clipped and some are not"
    for name in PARAMS:
        assert params[name].shape == PARAMS[name].shape
        np.testing.assert_allclose(params[name], expected[name], rtol=1e-4)
    assert int(state.count) == 5


def test_large_leaves_stand_alone_and_move_like_small_ones():
    tree = {"a": np.arange(LARGE, dtype=np.float32).reshape(2, -1), "b": np.float32([1, 2]), "c": np.float32([[3]])}
    parts = to_parts(tree)
    assert [part.shape for part in parts] == [(3,), (2, LARGE // 2)]
    np.testing.assert_array_equal(parts[0], [1, 2, 3])
    again = from_parts(parts, tree)
    assert again.keys() == tree.keys()
    assert all(np.array_equal(again[name], tree[name]) for name in tree)
    # The same numbers cut into leaves of another size: every step must be the same.
    pieces = {"a": [tree["a"][:, : LARGE // 4], tree["a"][:, LARGE // 4 :]], "b": tree["b"], "c": tree["c"]}
    moved, state, norm = one_step(tree, tree, adam_init(tree), 0.1, 5.0)
    moved, _, _ = one_step(moved, tree, state, 0.1, 5.0)
    cut, state, cut_norm = one_step(pieces, pieces, adam_init(pieces), 0.1, 5.0)
    cut, _, _ = one_step(cut, pieces, state, 0.1, 5.0)
    np.testing.assert_allclose(np.concatenate(cut["a"], axis=1), moved["a"], rtol=1e-6)
    np.testing.assert_allclose(norm, cut_norm, rtol=1e-5)


def test_the_first_step_has_the_length_of_the_learning_rate_whatever_the_gradient():
    gradients = {"w": np.array([[100.0, -100.0], [0.01, 0.0]], np.float32), "b": np.array([-3.0], np.float32)}
    moved, _, norm = unclipped(PARAMS, gradients, adam_init(PARAMS), 0.25)
    np.testing.assert_allclose(moved["w"] - PARAMS["w"], [[-0.25, 0.25], [-0.25, 0.0]], rtol=2e-3)
    np.testing.assert_allclose(moved["b"] - PARAMS["b"], [0.25], rtol=1e-4)
    assert norm == pytest.approx(np.sqrt(2 * 100**2 + 0.01**2 + 3**2))


def test_momentum_is_beta1():
    # Gradients 1 and then 0: the mean is 1 - beta1, then beta1 (1 - beta1); the square 0.001, then 0.000999.
    params, state = {"w": np.zeros(1, np.float32)}, adam_init({"w": np.zeros(1, np.float32)})
    step = jax.jit(functools.partial(adam, grad_clip=None, beta1=0.5, epsilon=0.0))
    first, state, _ = step(params, {"w": np.ones(1, np.float32)}, state, 1.0)
    second, _, _ = step(first, {"w": np.zeros(1, np.float32)}, state, 1.0)
    np.testing.assert_allclose(first["w"], [-1.0], rtol=1e-4)
    unbiased = (0.25 / 0.75) / np.sqrt(0.000999 / (1 - 0.999**2))
    np.testing.assert_allclose(second["w"], [-1.0 - unbiased], rtol=1e-4)


def test_clipping_is_by_the_norm_over_all_leaves_together():
    # Global norm of (3, 4) is 5: clipped to 1 it is (0.6, 0.8), which the first moment shows a tenth of.
    gradients = {"a": np.array([3.0], np.float32), "b": np.array([4.0], np.float32)}
    _, state, norm = one_step(gradients, gradients, adam_init(gradients), 0.1, 1.0)
    assert norm == pytest.approx(5.0)
    np.testing.assert_allclose(state.mean[0], [0.06, 0.08], rtol=1e-5)


def test_a_gradient_of_zero_moves_nothing_and_stays_finite():
    zero = jax.tree.map(np.zeros_like, PARAMS)
    moved, _, norm = one_step(PARAMS, zero, adam_init(PARAMS), 0.1, 0.5)
    assert norm == 0
    np.testing.assert_array_equal(moved["w"], PARAMS["w"])


def test_gradients_are_averaged_over_a_named_axis():
    gradients = {"w": np.array([[[1.0, 2.0], [3.0, 4.0]], [[3.0, 4.0], [5.0, 6.0]]], np.float32)}
    gradients["b"] = np.array([[0.0], [8.0]], np.float32)
    over_devices = jax.vmap(
        lambda gradient: adam(PARAMS, gradient, adam_init(PARAMS), 0.1, None, axis_name="devices"), axis_name="devices"
    )
    moved, _, norm = jax.jit(over_devices)(gradients)
    expected, _, expected_norm = unclipped(
        PARAMS, jax.tree.map(lambda leaf: leaf.mean(axis=0), gradients), adam_init(PARAMS), 0.1
    )
    np.testing.assert_allclose(norm, [expected_norm] * 2, rtol=1e-6)
    np.testing.assert_allclose(moved["w"], np.stack([expected["w"]] * 2), rtol=1e-3)


def test_the_penalty_is_the_gradient_of_half_the_squares_of_matrices():
    gradients = gradients_at(1)
    found = jax.jit(l2_penalized)(gradients, PARAMS, 3.0)
    np.testing.assert_allclose(found["w"], gradients["w"] + 3 * PARAMS["w"], rtol=1e-6)
    np.testing.assert_array_equal(found["b"], gradients["b"])
    assert l2_penalized(gradients, PARAMS, None) is gradients


def losses_of(params):
    """Three samples whose gradients are b, 2 b and 3 b."""
    return np.float32([0.5, 1.0, 1.5]) * params["b"] ** 2, {"seen": params["b"]}


B = {"b": np.array([2.0], np.float32)}


@pytest.mark.parametrize(("weight", "mean"), [(None, 2.0), ([1.0, 1.0, 1.0], 2.0), ([1.0, 0.5, 0.0], 2 / 3)])
def test_minimize_goes_down_the_weighted_mean_of_the_losses(weight, mean):
    weight = None if weight is None else np.array(weight, np.float32)
    found = jax.jit(lambda: Adam(None).minimize(losses_of, B, adam_init(B), 0.25, weight))()
    assert found.loss == pytest.approx(0.5 * mean * 4)
    assert found.norm == pytest.approx(mean * 2)
    assert found.params["b"] == pytest.approx(2.0 - 0.25), "Adam's first step"
    assert found.aux["seen"] == 2.0, "what the losses were computed with"
    assert int(found.state.count) == 1


def test_minimize_clips_penalises_and_keeps_its_other_settings():
    params = {"w": np.array([[3.0]], np.float32)}
    optimizer = Adam(grad_clip=1.0, epsilon=0.5, beta1=0.5, l2=2.0)
    found = jax.jit(
        lambda: optimizer.minimize(lambda params: (params["w"][0], None), params, adam_init(params), 0.1, None)
    )()
    assert found.norm == pytest.approx(1 + 2 * 3), "before clipping, with the penalty"
    expected = adam(params, {"w": np.array([[7.0]])}, adam_init(params), 0.1, 1.0, epsilon=0.5, beta1=0.5)
    np.testing.assert_allclose(found.params["w"], expected[0]["w"], rtol=1e-6)
    np.testing.assert_allclose(found.params["w"], [[3.0 - 0.1 / 1.5]], rtol=1e-5)
    np.testing.assert_allclose(found.state.mean[0], 0.5 * 1.0, rtol=1e-5)  # beta1 of a gradient of norm 1


def test_an_optimiser_says_whether_it_clips():
    with pytest.raises(TypeError, match="grad_clip"):
        Adam()
