"""Networks written in Flax and in Equinox as models of Athlete's agents."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete import Algorithm
from athlete.algorithms.dqn import DQNConfig
from athlete.algorithms.ppo import PPOConfig
from athlete.core import Spec, hyper
from athlete.models.equinox_model import EquinoxModel
from athlete.models.flax_model import FlaxModel
from athlete.ops.random import wrap
from athlete.spaces import Box, Discrete

equinox = pytest.importorskip("equinox")
nnx = pytest.importorskip("flax.nnx")

OBS = Box(-np.inf, np.inf, (3,))
HEADS = {"policy": (2, 0.01), "value": (1, 1.0)}


@hyper
class FlaxLayers(FlaxModel):
    width: int = 8

    def build(self, inputs, rngs):
        return nnx.Sequential(nnx.Linear(inputs, self.width, rngs=rngs), nnx.tanh, nnx.Linear(self.width, 5, rngs=rngs))


@hyper
class FlaxBatchNorm(FlaxModel):
    def build(self, inputs, rngs):
        return nnx.Sequential(nnx.Linear(inputs, 5, rngs=rngs), nnx.BatchNorm(5, rngs=rngs))


class FlaxCell(nnx.Module):
    """A minimal gated unit; Flax's own cells keep an Rngs."""

    def __init__(self, inputs: int, rngs: Any):
        self.inward = nnx.Linear(inputs, 10, rngs=rngs)
        self.onward = nnx.Linear(5, 10, use_bias=False, rngs=rngs)

    def __call__(self, carry: Any, x: Any) -> Any:
        update, new = jnp.split(self.inward(x) + self.onward(carry), 2, axis=-1)
        carry = carry + nnx.sigmoid(update) * (jnp.tanh(new) - carry)
        return carry, carry


@hyper
class FlaxMemory(FlaxModel):
    def build(self, inputs, rngs):
        return FlaxCell(inputs, rngs)

    def start(self, rows):
        return jnp.zeros((rows, 5))


@hyper
class EquinoxLayers(EquinoxModel):
    def build(self, inputs, key):
        return equinox.nn.MLP(inputs, 5, width_size=8, depth=1, activation=jnp.tanh, key=key)


class EquinoxCell(equinox.Module):
    cell: Any

    def __init__(self, inputs: int, key: Any):
        self.cell = equinox.nn.GRUCell(inputs, 5, key=key)

    def __call__(self, carry: Any, x: Any) -> Any:
        carry = self.cell(x, carry)
        return carry, carry


@hyper
class EquinoxMemory(EquinoxModel):
    def build(self, inputs, key):
        return EquinoxCell(inputs, key)

    def start(self, rows):
        return jnp.zeros((rows, 5))


FEED_FORWARD = {"flax": FlaxLayers(), "equinox": EquinoxLayers()}
RECURRENT = {"flax": FlaxMemory(), "equinox": EquinoxMemory()}


def inputs(steps: int = 6, rows: int = 4) -> tuple[Any, Any]:
    obs = np.random.default_rng(0).normal(size=(steps, rows, 3)).astype(np.float32)
    first = np.zeros((steps, rows), bool)
    first[3, 1] = True
    return obs, first


def test_a_flax_torso_computes_what_the_module_does():
    model = FEED_FORWARD["flax"]
    params = model.init(wrap(np.array([0, 0], np.uint32)), OBS, HEADS)
    obs, first = inputs()
    _, heads = model.apply(params, (), obs, first)
    layers = params["torso"]["layers"]
    x = np.tanh(obs @ layers[0]["kernel"]) @ layers[2]["kernel"]  # biases start at 0
    np.testing.assert_allclose(heads["value"], x @ params["heads"]["value"]["kernel"], atol=1e-5)
    assert heads["policy"].shape == (6, 4, 2)


def test_an_equinox_torso_computes_what_the_module_does():
    model = FEED_FORWARD["equinox"]
    params = model.init(wrap(np.array([0, 0], np.uint32)), OBS, HEADS)
    obs, first = inputs()
    _, heads = model.apply(params, (), obs, first)
    weights = [params["torso"][f".layers[{i}].{name}"] for i in range(2) for name in ("weight", "bias")]
    x = np.tanh(obs @ weights[0].T + weights[1]) @ weights[2].T + weights[3]
    np.testing.assert_allclose(heads["value"], x @ params["heads"]["value"]["kernel"], atol=1e-5)


@pytest.mark.parametrize("library", RECURRENT)
def test_step_by_step_is_the_same_as_a_sequence_and_an_episode_starts_afresh(library):
    model = RECURRENT[library]
    params = model.init(wrap(np.array([0, 1], np.uint32)), OBS, HEADS)
    obs, first = inputs()
    carries, heads = model.apply(params, model.start(4), obs, first)
    carry = model.start(4)
    for t in range(6):
        stepped, heads_t = model.apply(params, carry, obs[t : t + 1], first[t : t + 1])
        carry = jax.tree.map(lambda leaf: leaf[0], stepped)
        np.testing.assert_allclose(heads_t["policy"][0], heads["policy"][t], atol=1e-6)
    np.testing.assert_allclose(carry, carries[-1], atol=1e-6)
    fresh, _ = model.apply(params, model.start(4), obs[3:], np.zeros_like(first[3:]))
    np.testing.assert_allclose(fresh[:, 1], carries[3:, 1], atol=1e-6)
    assert np.abs(fresh[:, 0] - carries[3:, 0]).max() > 1e-3


def test_a_flax_module_with_more_than_parameters_is_refused():
    with pytest.raises(ValueError, match=r"Sequential has state beside its parameters \(BatchStat\)"):
        FlaxBatchNorm().init(wrap(np.array([0, 0], np.uint32)), OBS, HEADS)


@pytest.mark.parametrize("model", [*FEED_FORWARD.values(), *RECURRENT.values()], ids=lambda model: type(model).__name__)
def test_ppo_learns_with_it_and_goes_on_from_a_checkpoint(model, tmp_path):
    config = PPOConfig().environment("CartPole-v1").training(model={"custom_model": model}, train_batch_size=256)
    with config.build() as alone:
        alone.train()
        path = alone.save(tmp_path / "checkpoint")
        with Algorithm.from_checkpoint(path) as restored:
            results = [alone.train(), restored.train()]
            runs = jax.device_get((alone.run, restored.run))
    assert results[0]["episode_reward_mean"] == results[1]["episode_reward_mean"]
    for a, b in zip(*map(jax.tree.leaves, runs), strict=True):
        np.testing.assert_array_equal(a, b)


def test_dqn_learns_with_it():
    settings = {"custom_model": FEED_FORWARD["flax"]}
    config = (
        DQNConfig().environment("CartPole-v1").training(model=settings, num_steps_sampled_before_learning_starts=64)
    )
    with config.reporting(min_sample_timesteps_per_iteration=64).build() as algorithm:
        before = jax.device_get(algorithm.run.state.params)
        algorithm.train()
        moved = [
            np.abs(a - b).max()
            for a, b in zip(*map(jax.tree.leaves, (before, algorithm.run.state.params)), strict=True)
        ]
    assert min(moved) > 0


# Images -----------------------------------------------------------------------------------------------------------


@hyper
class FlaxConvolution(FlaxModel):
    channels: int = 2

    def build(self, inputs, rngs):
        layer = nnx.Conv(self.obs_space.shape[-1], self.channels, (3, 3), padding="VALID", rngs=rngs)
        return nnx.Sequential(layer, nnx.relu, lambda x: x.reshape(x.shape[0], -1))


@hyper
class EquinoxConvolution(EquinoxModel):
    channels: int = 2

    def build(self, inputs, key):
        layer = equinox.nn.Conv2d(self.obs_space.shape[-1], self.channels, 3, key=key)
        return equinox.nn.Sequential(
            [equinox.nn.Lambda(lambda x: jnp.moveaxis(x, -1, 0)), layer, equinox.nn.Lambda(jnp.ravel)]
        )


@pytest.mark.parametrize("model", [FlaxConvolution(), EquinoxConvolution()])
def test_an_image_arrives_as_an_image(model):
    """One pixel of one image changes what a convolution of 3 x 3 sees there, and only in that row."""
    space = Box(0, 1, (5, 6, 3))
    config = PPOConfig().training(model={"custom_model": model, "vf_share_layers": True})
    agent = config.make_agent(Spec(space, Discrete(2))).agent  # inside the normalisation of rewards
    assert agent.model.obs_space == space and config.model["custom_model"].obs_space is None
    params = agent.model.init(wrap(np.array([0, 3], np.uint32)), space, HEADS)
    assert params["heads"]["policy"]["kernel"].shape == (3 * 4 * 2, 2)
    obs = np.zeros((1, 2, 5 * 6 * 3), np.float32)
    obs[0, 1, -1] = 1.0  # the last channel of the last pixel
    _, heads = agent.model.apply(params, agent.model.start(2), obs, np.zeros((1, 2), bool))
    assert not np.array_equal(heads["value"][0, 0], heads["value"][0, 1])
    assert heads["policy"].shape == (1, 2, 2)
