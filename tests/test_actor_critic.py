"""Two heads of one network: their sizes, the free deviations, and values across both endings with a memory."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import steps_since_first

from athlete.algorithms import get_config_class
from athlete.core import Model, Spec, Transition, hyper
from athlete.models.actor_critic import apply_actor_critic, init_actor_critic, policy_of, values_of_steps
from athlete.models.mlp import MLP
from athlete.models.recurrent import GRU
from athlete.ops.features import feature_size
from athlete.ops.random import wrap
from athlete.spaces import Box, Discrete

KEY = wrap(np.array([0, 1], np.uint32))
OBS = Box(-1, 1, (3,))


@hyper
class Steps(Model):
    """Its carry counts the steps since `first`, this one included, and its value is that count."""

    def start(self, rows):
        return jnp.zeros(rows)

    def apply(self, params, carry, obs, first):
        counts = steps_since_first(carry, first)
        return counts, {"policy": obs, "value": counts[..., None]}


def test_values_of_steps_are_those_before_and_after_with_the_memory_of_the_moment():
    """One row, 5 steps into an episode that is cut after its second step; the next one goes on at the end.

    Where a step leads, the count is one higher, also where the next row of the batch begins anew.
    """
    obs = np.zeros((4, 1, 3), np.float32)
    first, carry = np.array([[False], [False], [True], [False]]), np.array([[5.0], [6.0], [7.0], [1.0]], np.float32)
    batch = Transition(obs, first, None, None, obs, None, None, carry, ())
    value, next_value = values_of_steps(Steps(), Spec(OBS, Discrete(3)), {"network": {}}, batch)
    np.testing.assert_array_equal(value[:, 0], [6, 7, 1, 2])
    np.testing.assert_array_equal(next_value[:, 0], [7, 8, 2, 3])


def test_the_sample_and_the_update_see_the_same_policy_also_with_a_memory():
    spec, model = Spec(OBS, Box(-1, 1, (2,))), GRU(4, ())
    params = init_actor_critic(model, KEY, spec)
    params = jax.tree.map(lambda leaf: jax.random.normal(KEY, leaf.shape), params)
    obs = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    first = np.array([[1, 1], [0, 0], [0, 1], [0, 0], [1, 0]], bool)
    carry, means = model.start(2), []
    for t in range(5):
        policy, carry = policy_of(model, spec, params, carry, obs[t], first[t])
        means.append(policy.mode())
        np.testing.assert_allclose(policy.log_std, np.broadcast_to(params["log_std"], (2, 2)))
    carries, outputs, value = apply_actor_critic(model, params, model.start(2), obs, first)
    np.testing.assert_allclose(outputs[..., :2], means, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(carries[-1], carry, rtol=1e-5, atol=1e-6)
    assert value.shape == (5, 2)


@pytest.mark.parametrize(
    ("space", "free", "head", "deviations"),
    [(Discrete(4), True, 4, None), (Box(-1, 1, (2, 3)), True, 6, 6), (Box(-1, 1, (2, 3)), False, 12, None)],
)
def test_heads_have_the_size_that_the_space_asks_for(space, free, head, deviations):
    params = init_actor_critic(MLP((5,)), KEY, Spec(OBS, space), free_log_std=free)
    heads = params["network"]["heads"]
    assert heads["policy"]["kernel"].shape == (5, head)
    assert heads["value"]["kernel"].shape == (5, 1)
    assert ("log_std" in params) == (deviations is not None)
    if deviations is not None:
        np.testing.assert_array_equal(params["log_std"], np.zeros(deviations))
    assert np.abs(heads["policy"]["kernel"]).max() < 0.1, "the first policy is close to uniform"


@pytest.mark.parametrize("algorithm", ["PPO", "A2C", "IMPALA", "APPO", "PG", "TRPO"])
def test_the_first_policy_has_the_standard_deviation_that_the_model_asks_for(algorithm):
    config = get_config_class(algorithm)().training(model={"log_std_init": -1.0, "fcnet_hiddens": [4]})
    agent = config.make_agent(Spec(OBS, Box(-1, 1, (2,))))
    agent = getattr(agent, "agent", agent)  # inside its normalisation, if it has one
    params = agent.view(agent.init(KEY), np.float32(0))
    np.testing.assert_array_equal(params["log_std"], [-1.0, -1.0])
    obs, first = np.zeros((3, 3), np.float32), np.zeros(3, bool)
    policy, _ = policy_of(agent._network(), agent.spec, params, agent.start(params, 3, KEY), obs, first)
    np.testing.assert_allclose(policy.entropy(), np.full(3, 2 * (-1.0 + 0.5 * np.log(2 * np.pi * np.e))), rtol=1e-6)


def test_without_a_critic_values_are_0():
    params = init_actor_critic(MLP((5,)), KEY, Spec(OBS, Discrete(4)), critic=False)
    assert params["network"]["heads"].keys() == {"policy"}
    obs, first = np.ones((2, 3, feature_size(OBS)), np.float32), np.zeros((2, 3), bool)
    np.testing.assert_array_equal(apply_actor_critic(MLP((5,)), params, (), obs, first)[2], np.zeros((2, 3)))
