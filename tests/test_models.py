"""Networks: shapes, initialisation, and the rules of memory that every recurrent model keeps."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.core import Model, hyper
from athlete.models.attention import GTrXL, gate, sinusoids, skew
from athlete.models.catalog import MODEL_DEFAULTS, check_model, is_recurrent, make_model
from athlete.models.dense import Layer, activation, dense, init_layers, layer_norm
from athlete.models.mlp import MLP
from athlete.models.recurrent import GRU, LSTM, LSTMState
from athlete.models.separate import Separate
from athlete.ops.random import wrap
from athlete.spaces import Box, Discrete

KEY = wrap(np.array([0, 1], np.uint32))
OBS = Box(-1, 1, (3,))
HEADS = {"policy": (2, 0.01), "value": (1, 1.0)}
STEPS, ROWS = 5, 4
NEVER = np.zeros((STEPS, ROWS), bool)


def apply(model):
    return jax.jit(model.apply)


def observations(seed=0, steps=STEPS):
    return np.random.default_rng(seed).normal(size=(steps, ROWS, 3)).astype(np.float32)


# Layers -----------------------------------------------------------------------------------------------------------


def test_weights_are_normal_with_the_entries_of_an_orthogonal_matrix_and_biases_0():
    layers = [Layer(100, 50, 2.0), Layer(50, 100, 2.0), Layer(64, 64, 0.01), Layer(3, 1, 1.0)]
    params = jax.device_get(jax.jit(lambda key: init_layers(key, layers))(KEY))
    assert [layer["kernel"].shape for layer in params] == [(100, 50), (50, 100), (64, 64), (3, 1)]
    assert all((layer["bias"] == np.zeros(spec.outputs)).all() for layer, spec in zip(params, layers, strict=True))
    # The columns of an orthonormal [100, 50] have squares that add up to 1: entries of 1 / sqrt(100).
    for layer, deviation in zip(params, [2 / 10, 2 / 10, 0.01 / 8], strict=False):
        kernel = layer["kernel"]
        assert kernel.std() == pytest.approx(deviation, rel=0.06)
        assert abs(kernel.mean()) < 5 * deviation / np.sqrt(kernel.size)
        assert (np.abs(kernel) < deviation).mean() == pytest.approx(0.683, abs=0.04)


def test_no_two_layers_share_their_random_numbers():
    params = init_layers(KEY, [Layer(4, 4, 1.0), Layer(4, 4, 1.0)])
    assert not np.isin(params[0]["kernel"], params[1]["kernel"]).any()


def test_dense_is_a_product_on_the_last_axis_whatever_comes_before():
    params = {"kernel": np.arange(6.0).reshape(3, 2), "bias": np.array([10.0, 20.0])}
    x = np.arange(24.0).reshape(2, 4, 3)
    np.testing.assert_allclose(dense(params, x), x @ params["kernel"] + params["bias"])
    np.testing.assert_allclose(dense(params, x[0, 0]), x[0, 0] @ params["kernel"] + params["bias"])


def test_an_unknown_activation_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"no activation 'tahn'; there are tanh, relu"):
        activation("tahn")


# Feed-forward -----------------------------------------------------------------------------------------------------


def test_mlp_is_its_formula():
    model = MLP((4,), "relu")
    params = jax.jit(functools.partial(model.init, obs_space=OBS, heads=HEADS))(KEY)
    obs = observations()
    carry, heads = apply(model)(params, (), obs, np.zeros((STEPS, ROWS), bool))
    hidden = np.maximum(obs @ params["layers"][0]["kernel"] + params["layers"][0]["bias"], 0)
    assert carry == ()
    for name in HEADS:
        head = params["heads"][name]
        np.testing.assert_allclose(heads[name], hidden @ head["kernel"] + head["bias"], rtol=1e-4, atol=1e-5)
    assert (heads["policy"].shape, heads["value"].shape) == ((STEPS, ROWS, 2), (STEPS, ROWS, 1))


def test_a_heads_scale_is_that_of_its_first_weights():
    params = MLP((16,)).init(KEY, OBS, {"policy": (200, 0.01), "value": (200, 1.0)})
    deviations = {name: float(head["kernel"].std()) for name, head in params["heads"].items()}
    assert deviations == pytest.approx({"policy": 0.01 / np.sqrt(200), "value": 1 / np.sqrt(200)}, rel=0.1)
    assert all((layer["bias"] == 0).all() for layer in [*params["layers"], *params["heads"].values()])


def test_inputs_are_as_many_as_the_space_has_features_and_no_layers_is_linear():
    params = MLP(()).init(KEY, Discrete(7), {"value": (1, 1.0)})
    assert params["heads"]["value"]["kernel"].shape == (7, 1)


def test_layer_norm_is_its_formula_and_blind_to_shift_and_scale_of_its_input():
    # (1, 2, 3, 6) has mean 3 and variance (4 + 1 + 0 + 9) / 4 = 3.5.
    x = np.array([1.0, 2.0, 3.0, 6.0], np.float32)
    params = {"scale": np.array([1, 1, 2, 1], np.float32), "shift": np.array([0, 0, 5, 1], np.float32)}
    expected = np.array([-2, -1, 0, 3]) / np.sqrt(3.5) * params["scale"] + params["shift"]
    for seen in (x, 10 * x + 7):
        np.testing.assert_allclose(jax.jit(layer_norm)(params, seen), expected, rtol=1e-5, atol=1e-5)
    assert np.isfinite(layer_norm(params, np.zeros(4, np.float32))).all(), "also where all inputs are alike"


BEHIND_LAYERS = {
    "MLP": MLP((4, 5), "relu", True),
    "GRU": GRU(3, (4, 5), "relu", True),
    "LSTM": LSTM(3, (4, 5), "relu", True),
    "GTrXL": GTrXL(1, 4, 1, 3, 2, 3, hiddens=(4, 5), activation="relu", layer_norm=True),
}


@pytest.mark.parametrize("model", BEHIND_LAYERS.values(), ids=BEHIND_LAYERS)
def test_layer_normalisation_stands_before_each_activation(model):
    params = jax.jit(functools.partial(model.init, obs_space=OBS, heads=HEADS))(KEY)
    obs, x = observations(), observations()
    for layer in params["layers"]:
        np.testing.assert_array_equal(layer["scale"], np.ones_like(layer["bias"]))
        x = x @ layer["kernel"] + layer["bias"]
        x = np.maximum((x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6), 0)
    plain_params = {**params, "layers": []}  # what follows the layers, given their outputs
    found = apply(model)(params, model.start(ROWS), obs, NEVER)[1]
    expected = apply(model)(plain_params, model.start(ROWS), x, NEVER)[1]
    for name in HEADS:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)


# Memory -----------------------------------------------------------------------------------------------------------

MODELS = {
    "GRU": GRU(6, (5,)),
    "GRU without layers": GRU(6, ()),
    "separate GRUs": Separate(GRU(6, (5,))),
    "LSTM": LSTM(6, (5,)),
    "GTrXL": GTrXL(1, 6, 2, 4, memory=3, position_wise_mlp_dim=5),
    "GTrXL of two units behind a layer": GTrXL(2, 5, 1, 4, memory=2, position_wise_mlp_dim=3, hiddens=(5,)),
    "GTrXL that remembers more than a sequence": GTrXL(
        2, 6, 2, 4, memory=STEPS + 3, position_wise_mlp_dim=5, init_gru_gate_bias=0.0
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def recurrent(request):
    model = MODELS[request.param]
    return model, jax.jit(functools.partial(model.init, obs_space=OBS, heads=HEADS))(KEY), apply(model)


def last(carries):
    return jax.tree.map(lambda leaf: leaf[-1], carries)


def test_carries_come_after_each_step_for_every_step(recurrent):
    model, params, run = recurrent
    carries, heads = run(params, model.start(ROWS), observations(), NEVER)
    started = jax.tree.leaves(model.start(ROWS))
    assert [leaf.shape for leaf in jax.tree.leaves(carries)] == [(STEPS, *leaf.shape) for leaf in started]
    assert {name: head.shape for name, head in heads.items()} == {"policy": (STEPS, ROWS, 2), "value": (STEPS, ROWS, 1)}


def test_steps_one_by_one_are_one_long_apply(recurrent):
    model, params, run = recurrent
    obs, first = observations(), np.random.default_rng(1).random((STEPS, ROWS)) < 0.3
    carries, whole = run(params, model.start(ROWS), obs, first)
    carry = model.start(ROWS)
    for t in range(STEPS):
        stepped, heads = run(params, carry, obs[t : t + 1], first[t : t + 1])
        carry = last(stepped)
        for name in HEADS:
            np.testing.assert_allclose(heads[name][0], whole[name][t], rtol=1e-5, atol=1e-6)
    for a, b in zip(jax.tree.leaves(carry), jax.tree.leaves(last(carries)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_first_forgets_all_that_was_before_in_that_row_only(recurrent):
    model, params, run = recurrent
    first = NEVER.copy()
    first[3, 1] = True
    obs = observations()
    _, heads = run(params, model.start(ROWS), obs, first)
    other = obs.copy()
    other[:3] = -3.0 * obs[:3]  # another past for all rows
    _, others = run(params, jax.tree.map(lambda leaf: leaf + jnp.ones_like(leaf), model.start(ROWS)), other, first)
    np.testing.assert_allclose(others["value"][3:, 1], heads["value"][3:, 1], rtol=1e-5, atol=1e-6)
    apart = np.abs(others["value"][3] - heads["value"][3])[:, 0]
    assert (apart[[0, 2, 3]] > 1e-3).all(), "rows that go on remember"


def test_rows_do_not_touch(recurrent):
    model, params, run = recurrent
    obs = observations()
    changed = obs.copy()
    changed[:, 2] += 1.0
    _, heads = run(params, model.start(ROWS), obs, NEVER)
    _, others = run(params, model.start(ROWS), changed, NEVER)
    same = np.abs(others["value"] - heads["value"])[:, :, 0].max(axis=0) < 1e-6
    np.testing.assert_array_equal(same, [True, True, False, True])


def test_a_gru_step_is_its_formula():
    """Cho et al. 2014 with the reset gate behind the product, as cuDNN, PyTorch and Flax have it."""
    model = GRU(2, ())
    params = model.init(KEY, OBS, {"value": (1, 1.0)})
    x, h = np.array([0.3, -1.0, 2.0]), np.array([0.5, -0.25])
    from_input = x @ np.asarray(params["input"]["kernel"]) + 0.1
    from_state = h @ np.asarray(params["state"]["kernel"]) - 0.2
    params["input"]["bias"], params["state"]["bias"] = jnp.full(6, 0.1), jnp.full(6, -0.2)

    reset, update = sigmoid(from_input[:2] + from_state[:2]), sigmoid(from_input[2:4] + from_state[2:4])
    new = np.tanh(from_input[4:] + reset * from_state[4:])
    carries, _ = model.apply(
        params, jnp.asarray(h[None], jnp.float32), jnp.asarray(x[None, None], jnp.float32), np.zeros((1, 1), bool)
    )
    np.testing.assert_allclose(carries[0, 0], (1 - update) * new + update * h, rtol=1e-5)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def test_an_lstm_step_is_its_formula():
    model = LSTM(2, ())
    params = model.init(KEY, OBS, {"value": (1, 1.0)})
    x, h, c = np.array([0.3, -1.0, 2.0]), np.array([0.5, -0.25]), np.array([1.5, -2.0])
    gates = x @ np.asarray(params["input"]["kernel"]) + h @ np.asarray(params["state"]["kernel"])
    write, forget = sigmoid(gates[:2]), sigmoid(gates[2:4] + 1.0)  # the forget gate's bias starts at 1
    show, new = sigmoid(gates[4:6]), np.tanh(gates[6:])
    cell = forget * c + write * new
    carry = LSTMState(jnp.asarray(h[None], jnp.float32), jnp.asarray(c[None], jnp.float32))
    states, heads = model.apply(params, carry, jnp.asarray(x[None, None], jnp.float32), np.zeros((1, 1), bool))
    np.testing.assert_allclose(states.cell[0, 0], cell, rtol=1e-5)
    np.testing.assert_allclose(states.hidden[0, 0], show * np.tanh(cell), rtol=1e-5)
    value = show * np.tanh(cell) @ np.asarray(params["heads"]["value"]["kernel"])
    np.testing.assert_allclose(heads["value"][0, 0], value, rtol=1e-5)


# Attention --------------------------------------------------------------------------------------------------------


def test_a_gate_is_its_formula():
    rng = np.random.default_rng(3)
    w_r, w_z, w_g, u_r, u_z, u_g = rng.normal(size=(6, 2, 2))
    x, y, b = np.array([1.0, -2.0]), np.array([0.5, 3.0]), 2.0
    reset, update = sigmoid(y @ w_r + x @ u_r), sigmoid(y @ w_z + x @ u_z - b)
    expected = (1 - update) * x + update * np.tanh(y @ w_g + (reset * x) @ u_g)
    old = {"kernel": np.hstack([u_r, u_z]), "bias": np.array([0, 0, -b, -b])}
    new = {"kernel": np.hstack([w_r, w_z, w_g]), "bias": np.zeros(6)}
    found = jax.jit(gate)(old, new, {"kernel": u_g, "bias": np.zeros(2)}, x, y)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_large_gate_bias_lets_the_stream_pass_unchanged():
    model = GTrXL(2, 6, 1, 4, memory=3, position_wise_mlp_dim=5, init_gru_gate_bias=30.0)
    params = model.init(KEY, OBS, HEADS)
    obs = observations()
    _, heads = model.apply(params, model.start(ROWS), obs, NEVER)
    plain = dense(params["heads"]["value"], dense(params["input"], obs))
    np.testing.assert_allclose(heads["value"], plain, rtol=1e-4, atol=1e-5)


def test_distances_are_sines_and_cosines_the_farthest_first():
    # Four numbers: rates 1 and 1/100.
    expected = [[np.sin(d), np.sin(d / 100), np.cos(d), np.cos(d / 100)] for d in (2, 1, 0)]
    np.testing.assert_allclose(sinusoids(2, 4), expected, rtol=1e-6)
    assert sinusoids(2, 3).shape == (3, 3)


def test_scores_by_distance_go_to_their_keys():
    by_distance = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    np.testing.assert_array_equal(skew(by_distance), [[1, 2, 3, 0], [0, 4, 5, 6]])
    np.testing.assert_array_equal(skew(by_distance[None, :1])[0], by_distance[:1])


def normed(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def one_unit(params, window, head_dim):
    """A unit's output for the last of `window` `[n, dim]`, by the formulas of both papers, in loops."""
    x, stream = normed(window), window[-1]
    heads = params["content_bias"].shape[0]
    keys, values = np.split(x @ params["key_value"]["kernel"], 2, axis=-1)
    query = x[-1] @ params["query"]["kernel"]
    seen = []
    for h in range(heads):
        part = slice(h * head_dim, (h + 1) * head_dim)
        scores = []
        for j in range(len(window)):
            far = sinusoids(len(window), window.shape[-1])[j + 1] @ params["position"]["kernel"][:, part]
            content = (query[part] + params["content_bias"][h]) @ keys[j, part]
            scores.append((content + (query[part] + params["position_bias"][h]) @ far) / np.sqrt(head_dim))
        weights = np.exp(scores) / np.exp(scores).sum()
        seen.append(weights @ values[:, part])

    def gated(i, x, y):
        old, new, reset = (params[f"gate{i}_{name}"] for name in ("old", "new", "reset"))
        return np.asarray(gate(old, new, reset, x.astype(np.float32), y.astype(np.float32)))

    y = gated(1, stream, np.maximum(np.concatenate(seen) @ params["out"]["kernel"], 0))
    inside = np.maximum(normed(y) @ params["in"]["kernel"], 0)
    return gated(2, y, np.maximum(inside @ params["back"]["kernel"], 0))


def test_attention_is_its_formula_over_the_steps_of_its_episode_that_it_remembers():
    model = GTrXL(1, 6, 2, 4, memory=3, position_wise_mlp_dim=5)
    params = jax.device_get(model.init(KEY, OBS, {"value": (1, 1.0)}))
    unit = params["units"][0]
    rng = np.random.default_rng(2)
    unit["content_bias"], unit["position_bias"] = rng.normal(size=(2, 2, 4)).astype(np.float32)
    first = NEVER.copy()
    first[2, 1] = True
    x = np.asarray(dense(params["input"], observations()))
    _, heads = apply(model)(params, model.start(ROWS), observations(), first)
    for t, row, begin in [(0, 0, 0), (2, 0, 0), (4, 0, 1), (1, 1, 0), (2, 1, 2), (4, 1, 2)]:
        expected = one_unit(unit, x[begin : t + 1, row], 4) @ params["heads"]["value"]["kernel"]
        np.testing.assert_allclose(heads["value"][t, row], expected, rtol=1e-4, atol=1e-5)


def test_what_is_further_back_than_the_memory_is_forgotten():
    model = GTrXL(1, 6, 2, 4, memory=3, position_wise_mlp_dim=5)
    params = model.init(KEY, OBS, HEADS)
    obs = observations()
    _, heads = apply(model)(params, model.start(ROWS), obs, NEVER)
    changed = obs.copy()
    changed[0] += 1.0
    _, others = apply(model)(params, model.start(ROWS), changed, NEVER)
    apart = np.abs(others["value"] - heads["value"])[..., 0].max(axis=1)
    assert (apart[:4] > 1e-5).all() and apart[4] < 1e-7


def test_separate_heads_share_no_parameter():
    model = Separate(MLP((4,)))
    params = model.init(KEY, OBS, HEADS)
    obs, first = observations(), NEVER

    def value(params):
        return model.apply(params, {"policy": (), "value": ()}, obs, first)[1]["value"].sum()

    gradient = jax.grad(value)(params)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient["policy"]))
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(gradient["value"]))
    assert not np.array_equal(params["policy"]["layers"][0]["kernel"], params["value"]["layers"][0]["kernel"])


# RLlib's model dictionary -----------------------------------------------------------------------------------------


@hyper
class Constant(Model):
    number: float = 1.0


@pytest.mark.parametrize(
    ("settings", "model"),
    [
        ({}, Separate(MLP((64, 64), "tanh"))),
        ({"fcnet_hiddens": [8], "fcnet_activation": "relu", "vf_share_layers": True}, MLP((8,), "relu")),
        ({"use_gru": True, "gru_cell_size": 7, "fcnet_hiddens": []}, Separate(GRU(7, ()))),
        ({"custom_model": Constant(2.0), "vf_share_layers": True}, Constant(2.0)),
        ({"use_lstm": False, "conv_filters": None}, Separate(MLP())),
        ({"use_lstm": True, "lstm_cell_size": 7, "fcnet_hiddens": [3]}, Separate(LSTM(7, (3,)))),
        (
            {"use_attention": True, "attention_memory_inference": 9, "attention_dim": 8, "vf_share_layers": True},
            GTrXL(1, 8, 1, 32, 9, 32, 2.0, (64, 64)),
        ),
    ],
)
def test_settings_describe_a_network(settings, model):
    assert make_model(settings) == model


def test_every_default_is_a_setting_that_is_accepted():
    check_model(MODEL_DEFAULTS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fcnet_hidden": [64]}, r"no 'fcnet_hidden'; did you mean 'fcnet_hiddens'\?"),
        ({"fcnet_hiddens": [64, 0]}, r"'fcnet_hiddens': \[64, 0\].*layer sizes such as \[64, 64\]"),
        ({"fcnet_hiddens": 64}, r"expected a list of layer sizes"),
        ({"fcnet_activation": "tan"}, r"'fcnet_activation': 'tan'.*there are tanh"),
        ({"gru_cell_size": 0}, r"whole number of at least 1"),
        ({"max_seq_len": 2.5}, r"whole number of at least 1"),
        ({"max_seq_len": True}, r"whole number of at least 1"),
        ({"fcnet_activation": ["tanh"]}, r"there are tanh"),
        ({"vf_share_layers": "no"}, r"'vf_share_layers': 'no'.*True or False"),
        ({"lstm_cell_size": 0}, r"whole number of at least 1"),
        ({"attention_num_heads": 0}, r"whole number of at least 1"),
        ({"attention_init_gru_gate_bias": "2"}, r"expected a number"),
        ({"log_std_init": "-1"}, r"'log_std_init': '-1'.*expected a number"),
        ({"log_std_init": 3}, r"'log_std_init': 3.*expected a number between -20 and 2"),
        (
            {"log_std_init": -1.0, "free_log_std": False},
            r"'log_std_init': -1.0.*the network gives .* leave one of them",
        ),
        ({"use_lstm": True, "use_attention": True}, r"use_lstm and use_attention are both on; .* one kind of memory"),
        (
            {"use_attention": True, "attention_memory_training": 20},
            r"'attention_memory_training': 20.*attention_memory_inference is 50.*leave attention_memory_training out",
        ),
        (
            {"conv_filters": [[16, 8]]},
            r"\[\[16, 8\]\].*\[filters, kernel size, stride\].*\[\[16, 3, 1\]\]",
        ),
        ({"conv_filters": [[16, 3, 0]]}, r"expected \[filters, kernel size, stride\]"),
        ({"conv_filters": 16}, r"expected \[filters, kernel size, stride\]"),
        ({"conv_activation": "tan"}, r"'conv_activation': 'tan'.*there are tanh"),
        ({"custom_model": "my_model"}, r"expected an instance of athlete.core.Model, got str"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_model(settings)


@pytest.mark.parametrize(
    ("model", "memory"),
    [
        (MLP(), False),
        (Separate(MLP()), False),
        (GRU(), True),
        (Separate(GRU()), True),
        (LSTM(), True),
        (Separate(GTrXL()), True),
    ],
)
def test_which_models_have_memory(model, memory):
    assert is_recurrent(model) is memory
