"""Convolutional networks: against XLA's own convolution, what settings make of images, and what does not fit."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.algorithms.dqn import DQNConfig
from athlete.algorithms.ppo import PPOConfig
from athlete.algorithms.pqn import PQN, PQNConfig
from athlete.algorithms.sac import SACConfig
from athlete.core import Model, Spec, hyper
from athlete.loops.learn import transition_shapes
from athlete.models.catalog import NATURE, with_convolutions
from athlete.models.cnn import ConvNet, conv_shapes, convolve
from athlete.models.critics import critic_values, init_critics
from athlete.models.mlp import MLP
from athlete.models.recurrent import GRU
from athlete.models.resnet import ResNet, halve
from athlete.models.separate import Separate
from athlete.ops.features import features, images_in
from athlete.ops.random import wrap
from athlete.spaces import Box, Dict, Discrete, Tuple

KEY = wrap(np.array([0, 1], np.uint32))
HEADS = {"q": (3, 1.0)}
GRID = Box(0, 1, (5, 6, 2))
SMALL = ConvNet((5, 6, 2), ((4, 3, 1), (3, 2, 2)), MLP((8,)))


def observations(*leading, size=60, seed=0):
    return np.random.default_rng(seed).normal(size=(*leading, size)).astype(np.float32)


def initial(model, space):
    return jax.jit(functools.partial(model.init, obs_space=space, heads=HEADS))(KEY)


def xla_convolution(params, x, size, stride):
    kernel = params["kernel"].reshape(size, size, x.shape[-1], -1)
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), "VALID", dimension_numbers=layout) + params["bias"]


@pytest.mark.parametrize("filters", [1, 3, 20])  # fewer and more than a block's numbers: either way to lay it out
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (1, 1), (1, 2), (2, 2), (3, 2), (4, 2), (5, 3), (2, 3)])
def test_a_convolution_and_its_gradients_are_those_of_xla(size, stride, filters):
    random = np.random.default_rng(0)
    shapes = ((4, 7, 6, 2), (size**2 * 2, filters), (filters,))
    x, kernel, bias = (random.normal(size=shape).astype(np.float32) for shape in shapes)
    params = {"kernel": kernel, "bias": bias}

    def both(convolution):
        squares = lambda params, x: jnp.sum(jnp.square(convolution(params, x, size, stride)))  # noqa: E731
        return convolution(params, x, size, stride), jax.grad(squares, argnums=(0, 1))(params, x)

    found, expected = jax.jit(lambda: both(convolve))(), jax.jit(lambda: both(xla_convolution))()
    assert found[0].shape[1:] == conv_shapes((7, 6, 2), ((filters, size, stride),))[1]
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(np.abs(b).max()))


def test_a_kernel_of_one_pixel_reads_one_pixel():
    """3 by 3 with a single weight of 1 in the middle of the second channel: the inner image of that channel."""
    kernel = np.zeros((3, 3, 2, 1), np.float32)
    kernel[1, 1, 1, 0] = 1.0
    x = np.arange(2 * 5 * 6 * 2, dtype=np.float32).reshape(2, 5, 6, 2)
    found = convolve({"kernel": kernel.reshape(18, 1), "bias": np.array([0.5])}, x, 3, 1)
    np.testing.assert_array_equal(found[..., 0], x[:, 1:-1, 1:-1, 1] + 0.5)


def test_a_network_is_its_layers_one_after_another():
    params, obs = initial(SMALL, GRID), observations(2, 3)
    x = obs.reshape(-1, 5, 6, 2)
    x = jax.nn.relu(xla_convolution(params["convolutions"][0], x, 3, 1))
    x = jax.nn.relu(xla_convolution(params["convolutions"][1], x, 2, 2))
    assert x.shape[1:] == (1, 2, 3)
    expected = MLP((8,)).apply(params["model"], (), x.reshape(2, 3, -1), None)[1]["q"]
    carry, heads = jax.jit(SMALL.apply)(params, (), obs, np.zeros((2, 3), bool))
    assert carry == ()
    np.testing.assert_allclose(heads["q"], expected, rtol=1e-4, atol=1e-5)


def test_layer_normalisation_is_over_the_filters_at_each_place():
    model = ConvNet((5, 6, 2), ((4, 3, 1),), MLP((), layer_norm=True), layer_norm=True)
    params, obs = initial(model, GRID), observations(1, 3)
    x = xla_convolution(params["convolutions"][0], obs.reshape(-1, 5, 6, 2), 3, 1)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    head = params["model"]["heads"]["q"]
    expected = np.maximum(x, 0).reshape(1, 3, -1) @ head["kernel"]
    np.testing.assert_allclose(model.apply(params, (), obs, None)[1]["q"], expected, rtol=1e-3, atol=1e-4)


def test_weights_have_the_variance_of_he():
    kernel = initial(ConvNet((10, 10, 4), ((200, 3, 1),)), Box(0, 1, (10, 10, 4)))["convolutions"][0]["kernel"]
    assert kernel.shape == (36, 200)
    assert float(kernel.std()) == pytest.approx(np.sqrt(2 / 200), rel=0.05), "as dense layers: the larger side counts"


def test_what_follows_may_have_memory():
    model = ConvNet((5, 6, 2), ((4, 3, 1),), GRU(7, ()))
    params, obs = initial(model, GRID), observations(4, 3)
    never = np.zeros((4, 3), bool)
    carries, heads = jax.jit(model.apply)(params, model.start(3), obs, never)
    assert (carries.shape, heads["q"].shape) == ((4, 3, 7), (4, 3, 3))
    last = jax.jit(model.apply)(params, carries[2], obs[3:], never[3:])[1]["q"]
    np.testing.assert_allclose(last[0], heads["q"][3], rtol=1e-5, atol=1e-6)


def test_what_stands_behind_the_image_passes_by_the_convolutions():
    """A critic's action: values change with it, through what follows alone."""
    action = Box(-1, 1, (2,))
    critics = init_critics(SMALL, KEY, GRID, action, 2)
    obs, actions = observations(3), np.array([[0, 0], [1, 0], [0, 0]], np.float32)
    obs = np.broadcast_to(obs[0], obs.shape)
    values = jax.jit(functools.partial(critic_values, SMALL))(critics, obs, actions)
    assert values.shape == (2, 3, 1)
    assert (values[:, 0] == values[:, 2]).all() and (values[:, 0] != values[:, 1]).all()


@pytest.mark.parametrize("rows", [64, 70])
def test_many_images_are_convolved_in_pieces_to_the_same_outputs_and_gradients(rows, monkeypatch):
    params, obs = initial(SMALL, GRID), observations(1, rows)

    def both():
        loss = lambda params: jnp.sum(jnp.square(SMALL.apply(params, (), obs, None)[1]["q"]))  # noqa: E731
        return jax.jit(jax.value_and_grad(loss))(params)

    found = both()
    monkeypatch.setattr("athlete.models.cnn.PIECE", rows)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(both()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(np.abs(b).max()))


# Settings ---------------------------------------------------------------------------------------------------------

MINATAR, ATARI = Box(0, 1, (10, 10, 4)), Box(0, 255, (84, 84, 4), np.uint8)


@pytest.mark.parametrize(
    ("settings", "space", "expected"),
    [
        ({}, MINATAR, ConvNet((10, 10, 4), ((16, 3, 1),), MLP())),
        ({}, ATARI, ConvNet((84, 84, 4), NATURE, MLP())),
        ({}, Box(0, 1, (2, 2, 1)), MLP()),
        ({"conv_filters": "impala"}, ATARI, ResNet((84, 84, 4), model=MLP())),
        ({}, Box(0, 1, (4,)), MLP()),
        ({}, Box(0, 1, (10, 10)), MLP()),
        ({}, Discrete(3), MLP()),
        ({"conv_filters": []}, MINATAR, MLP()),
        ({"custom_model": MLP()}, MINATAR, MLP()),
        (
            {"conv_filters": [[8, 2, 2]], "conv_activation": "tanh", "use_layer_norm": True},
            MINATAR,
            ConvNet((10, 10, 4), ((8, 2, 2),), MLP(), "tanh", True),
        ),
    ],
)
def test_images_are_convolved_unless_settings_say_otherwise(settings, space, expected):
    assert with_convolutions(MLP(), settings, space) == expected


@pytest.mark.parametrize(
    ("filters", "space", "message"),
    [
        (
            [[16, 3, 1]],
            Box(0, 1, (4,)),
            r"observations that are a Box of \[height, width, channels\] or .*, and these are Box",
        ),
        ([[16, 3, 1], [16, 9, 1]], MINATAR, r"kernel of 9 by 9 does not fit what is left of .* 10 by 10, 8 by 8"),
    ],
)
def test_convolutions_that_do_not_fit_the_observations_are_refused(filters, space, message):
    with pytest.raises(ValueError, match=message):
        PQNConfig().training(model={"conv_filters": filters}).make_agent(Spec(space, Discrete(2)))


def test_actor_and_critics_have_the_same_convolutions():
    with pytest.raises(ValueError, match=r"q_model_config.*the same convolutions; set conv_filters in model"):
        SACConfig().training(q_model_config={"conv_filters": [[16, 3, 1]]})
    spec = Spec(MINATAR, Box(-1, 1, (2,)))
    agent = SACConfig().training(q_model_config={"fcnet_hiddens": [8]}).make_agent(spec)
    assert agent.q_model == ConvNet((10, 10, 4), model=MLP((8,), "relu"))
    assert agent.policy_model == ConvNet((10, 10, 4), model=MLP((256, 256), "relu"))


def test_every_agent_that_sees_images_has_convolutions():
    spec = Spec(MINATAR, Discrete(2))
    model = {"fcnet_hiddens": [32], "fcnet_activation": "relu"}
    behind = MLP((32,), "relu")
    assert DQNConfig().training(model=model, hiddens=[]).make_agent(spec).model == ConvNet((10, 10, 4), model=behind)
    ppo = PPOConfig().training(model=model).environment(normalize_rewards=False).make_agent(spec)
    assert ppo.model == ConvNet((10, 10, 4), model=Separate(behind)), "shared by policy and value"
    pqn = PQNConfig().training(model=model).environment(normalize_rewards=False).make_agent(spec)
    normalized = MLP((32,), "relu", layer_norm=True)
    assert pqn.model == ConvNet((10, 10, 4), model=normalized, layer_norm=True)


def test_an_agent_acts_on_images_as_they_are():
    agent = PQN(model=ConvNet((5, 6, 2), ((4, 3, 1),), MLP((8,)))).bind(Spec(GRID, Discrete(3)))
    view = agent.view(agent.init(KEY), jnp.float32(0.0))
    action, _, _ = agent.act(view, (), observations(4).reshape(4, 5, 6, 2), np.zeros(4, bool), KEY, explore=False)
    assert action.shape == (4,) and action.dtype == np.int32


# Several images, and those of other shapes ------------------------------------------------------------------------

TWO = Dict({"map": Box(0, 1, (5, 5, 1)), "near": Box(0, 255, (4, 3, 2), np.uint8), "speed": Box(-1, 1, (2,))})


def test_images_in_a_dict_are_found_where_they_are_among_the_features():
    assert images_in(TWO) == [(0, (5, 5, 1)), (25, (4, 3, 2))]
    assert images_in(Tuple((Discrete(3), TWO))) == [(3, (5, 5, 1)), (28, (4, 3, 2))]
    assert images_in(Dict({"observations": GRID, "action_mask": Box(0, 1, (4,))})) == [(0, (5, 6, 2))], "no mask"
    assert images_in(Discrete(3)) == []


def test_each_image_has_convolutions_of_its_own():
    model = with_convolutions(MLP((8,)), {"conv_filters": [[3, 2, 1]]}, TWO)
    params = initial(model, TWO)
    random = np.random.default_rng(0)
    obs = {
        "map": random.random((1, 4, 5, 5, 1), np.float32),
        "near": random.integers(0, 256, (1, 4, 4, 3, 2), np.uint8),
        "speed": random.normal(size=(1, 4, 2)).astype(np.float32),
    }
    near, of_map = params["convolutions"][0], params["model"]["convolutions"][0]
    assert (near["kernel"].shape, of_map["kernel"].shape) == ((8, 3), (4, 3))
    seen = [
        jax.nn.relu(xla_convolution(of_map, obs["map"][0], 2, 1)).reshape(4, -1),
        jax.nn.relu(xla_convolution(near, obs["near"][0] / np.float32(255), 2, 1)).reshape(4, -1),
        obs["speed"][0],
    ]
    expected = MLP((8,)).apply(params["model"]["model"], (), jnp.concatenate(seen, axis=-1)[None], None)[1]["q"]
    found = jax.jit(model.apply)(params, (), features(TWO, obs), np.zeros((1, 4), bool))[1]["q"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("filters", [[[3, 2, 1]], "impala"])
def test_an_image_whose_channels_come_first_is_read_as_one_whose_channels_come_last(filters):
    first, last = Box(0, 255, (4, 20, 24), np.uint8), Box(0, 255, (20, 24, 4), np.uint8)
    read_first, read_last = (with_convolutions(MLP((8,)), {"conv_filters": filters}, space) for space in (first, last))
    assert read_first.channels_first and not read_last.channels_first
    params = initial(read_last, last)
    obs = np.random.default_rng(0).integers(0, 256, (1, 3, 20, 24, 4), np.uint8)
    expected = read_last.apply(params, (), features(last, obs), np.zeros((1, 3), bool))[1]["q"]
    moved = features(first, np.moveaxis(obs, -1, 2))
    found = read_first.apply(params, (), moved, np.zeros((1, 3), bool))[1]["q"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_behind_convolutions_chosen_for_pictures_comes_the_papers_layer_unless_layers_are_given():
    def layers(spec, **settings):
        config = PPOConfig().environment(normalize_rewards=False).training(model=settings)
        return config.make_agent(spec).model.model.model

    pictures = Spec(ATARI, Discrete(2))
    assert layers(pictures) == MLP((512,), "relu")
    assert layers(pictures, fcnet_hiddens=[32]) == MLP((32,))
    assert layers(Spec(MINATAR, Discrete(2))) == MLP()


def test_stacks_of_frames_have_the_network_of_pictures():
    model = with_convolutions(MLP(), {}, Box(0, 255, (4, 84, 84), np.uint8))
    assert model == ConvNet((84, 84, 4), NATURE, MLP(), channels_first=True)


@pytest.mark.parametrize("shape", [(84, 84), (19, 19), (4, 84, 84, 3)])
def test_bytes_of_another_number_of_axes_are_flattened_and_a_line_says_so(shape, caplog):
    space = Dict({"board": Box(0, 255, shape, np.uint8), "speed": Discrete(3)})
    with caplog.at_level("INFO", "athlete"):
        PPOConfig().make_agent(Spec(space, Discrete(2)))
    (line,) = [record.getMessage() for record in caplog.records if "flattened" in record.getMessage()]
    assert line.startswith(f"observation['board'], bytes of shape {list(shape)}, is flattened: an image has three axes")
    assert with_convolutions(MLP(), {}, space) == MLP()
    caplog.clear()
    PPOConfig().make_agent(Spec(Box(0, 1, (3, 3), np.uint8), Discrete(2)))
    assert "flattened" not in caplog.text


# Custom models ----------------------------------------------------------------------------------------------------


@hyper
class OneValue(Model):
    """Gives a single number for every head, whatever it is asked for."""

    head: str = "policy"

    def init(self, key, obs_space, heads):
        return ()

    def apply(self, params, carry, obs, first):
        return (), {self.head: obs[..., :1]}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (OneValue(), r"head 'policy' must give the shape \(1, 2, 3\), and gave the shape \(1, 2, 1\)"),
        (OneValue("logits"), r"OneValue\(head='logits'\).*must give .*, and gave nothing; there is \['logits'\]"),
    ],
)
def test_a_custom_model_whose_outputs_do_not_fit_the_actions_is_refused(model, message):
    config = PPOConfig().training(model={"custom_model": model, "vf_share_layers": True})
    with pytest.raises(ValueError, match=message):
        config.make_agent(Spec(Box(0, 1, (4,)), Discrete(3)))


# IMPALA's network -------------------------------------------------------------------------------------------------


def test_halving_takes_the_largest_of_three_by_three():
    """Rows 0 to 3: the windows of 3 rows begin at 0 and 2, the second one hangs over the end; likewise columns."""
    x = np.array([[1, 2, 3, 9], [4, 5, 6, 0], [7, 8, 0, 0], [-1, -2, -3, -4]], np.float32)
    np.testing.assert_array_equal(halve(x[None, :, :, None])[0, :, :, 0], [[8, 9], [8, 0]])
    np.testing.assert_array_equal(halve(x[None, :3, :3, None])[0, :, :, 0], [[5, 6], [8, 8]])


def test_the_residual_network_is_that_of_the_paper_s_figure():
    model = ResNet((9, 6, 2), (3, 4), MLP((5,), "relu"))
    space = Box(0, 1, (9, 6, 2))
    params, obs = initial(model, space), observations(2, 3, size=108)

    def same(params, x):
        return xla_convolution(params, jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)]), 3, 1)

    def pooled(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")

    x, layers = obs.reshape(-1, 9, 6, 2), params["convolutions"]
    assert len(layers) == 10
    for stage in (layers[:5], layers[5:]):
        x = pooled(same(stage[0], x))
        x = x + same(stage[2], jax.nn.relu(same(stage[1], jax.nn.relu(x))))
        x = x + same(stage[4], jax.nn.relu(same(stage[3], jax.nn.relu(x))))
    assert x.shape == (6, 3, 2, 4)
    x = jax.nn.relu(x).reshape(2, 3, -1)
    expected = MLP((5,), "relu").apply(params["model"], (), x, None)[1]["q"]
    found = jax.jit(model.apply)(params, (), obs, None)[1]["q"]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


# What pictures cost -----------------------------------------------------------------------------------------------


def test_pictures_are_bytes_in_replay_memory():
    agent = DQNConfig().training(replay_buffer_config={"capacity": 64}).make_agent(Spec(ATARI, Discrete(2)))
    example = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), transition_shapes(agent))
    shapes = jax.eval_shape(lambda: agent.memory.init(example, 1))
    wide = [leaf for leaf in jax.tree.leaves(shapes) if leaf.size >= 64 * 84 * 84 * 4]
    assert wide and all(leaf.dtype == np.uint8 for leaf in wide)


def test_ppo_gathers_its_minibatches_from_bytes():
    """What the epochs read is as it came: a minibatch becomes features by itself."""
    spec = Spec(Box(0, 255, (8, 8, 4), np.uint8), Discrete(2))
    config = PPOConfig().rollouts(num_envs_per_worker=2).environment(normalize_rewards=False)
    agent = config.training(train_batch_size=16, minibatch_size=4, num_epochs=1).make_agent(spec)
    rows = jax.tree.map(lambda leaf: np.zeros((8, 2, *leaf.shape), leaf.dtype), transition_shapes(agent))
    prepared = jax.eval_shape(lambda: agent._prepare(agent.init(KEY).params, rows))
    assert (prepared.obs.shape, prepared.obs.dtype) == ((1, 16, 8, 8, 4), np.uint8)
