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
from athlete.core import Spec
from athlete.models.catalog import with_convolutions
from athlete.models.cnn import ConvNet, conv_shapes, convolve
from athlete.models.critics import critic_values, init_critics
from athlete.models.mlp import MLP
from athlete.models.recurrent import GRU
from athlete.models.separate import Separate
from athlete.ops.random import wrap
from athlete.spaces import Box, Discrete

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


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (1, 1), (2, 2), (3, 2), (5, 3)])
def test_a_convolution_and_its_gradients_are_those_of_xla(size, stride):
    random = np.random.default_rng(0)
    x, kernel, bias = (random.normal(size=shape).astype(np.float32) for shape in ((4, 7, 6, 2), (size**2 * 2, 3), (3,)))
    params = {"kernel": kernel, "bias": bias}

    def both(convolution):
        squares = lambda params, x: jnp.sum(jnp.square(convolution(params, x, size, stride)))  # noqa: E731
        return convolution(params, x, size, stride), jax.grad(squares, argnums=(0, 1))(params, x)

    found, expected = jax.jit(lambda: both(convolve))(), jax.jit(lambda: both(xla_convolution))()
    assert found[0].shape[1:] == conv_shapes((7, 6, 2), ((3, size, stride),))[1]
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


# Settings ---------------------------------------------------------------------------------------------------------

MINATAR, ATARI = Box(0, 1, (10, 10, 4)), Box(0, 255, (84, 84, 4), np.uint8)
NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))


@pytest.mark.parametrize(
    ("settings", "space", "expected"),
    [
        ({}, MINATAR, ConvNet((10, 10, 4), ((16, 3, 1),), MLP())),
        ({}, ATARI, ConvNet((84, 84, 4), NATURE, MLP())),
        ({}, Box(0, 1, (2, 2, 1)), MLP()),
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
            r"observations that are a Box of \[height, width, channels\], and these are Box",
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
    assert DQNConfig().training(model=model).make_agent(spec).model == ConvNet((10, 10, 4), model=behind)
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
