"""Acting on single observations: what `env.step` takes, for every space, and what is said of those that do not fit."""

from __future__ import annotations

import functools

import gymnasium.spaces as gs
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.algorithms.ppo import PPO
from athlete.core import Model, Spec, hyper
from athlete.models.recurrent import GRU
from athlete.ops.features import feature_size
from athlete.ops.random import wrap
from athlete.policy import Policy
from athlete.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, OneOf, Tuple


@hyper
class Table(Model):
    """Outputs are the observation's features times a table."""

    def init(self, key, obs_space, heads):
        return {name: jnp.zeros((feature_size(obs_space), outputs)) for name, (outputs, _) in heads.items()}

    def apply(self, params, carry, obs, first):
        return (), {name: obs @ table for name, table in params.items()}


NUMBER = Box(-10, 10, (1,))


@functools.cache
def policy_for(action_space, obs_space=NUMBER):
    """A policy whose outputs are one row of numbers that grow, times the first feature."""
    agent = PPO(model=Table()).bind(Spec(obs_space, action_space))
    params = jax.device_get(jax.jit(lambda: agent.init(wrap(np.zeros(2, np.uint32))).params)())
    table = params["network"]["policy"]
    params["network"]["policy"] = np.zeros_like(table) + np.linspace(-1, 1, table.shape[1], dtype=np.float32)
    return Policy(agent, params, seed=0)


ACTIONS = {
    "Discrete": (Discrete(3, start=5), gs.Discrete(3, start=5), 7),
    "MultiDiscrete": (MultiDiscrete((2, 3), start=(0, 4)), gs.MultiDiscrete([2, 3], start=[0, 4]), [1, 6]),
    "MultiBinary": (MultiBinary((2,)), gs.MultiBinary(2), [1, 1]),
    "MultiBinary of rank 2": (MultiBinary((2, 1)), gs.MultiBinary((2, 1)), [[1], [1]]),
    "Box": (Box(-2, 4, (3,)), gs.Box(-2, 4, (3,)), [-2, 1, 4]),
    "Box of rank 2 and float64": (Box(0, 1, (1, 3), np.float64), gs.Box(0, 1, (1, 3), np.float64), [[0, 0.5, 1]]),
    "Box of rank 0": (Box(-2, 4, ()), gs.Box(-2, 4, ()), -2),
    "MultiDiscrete of rank 2": (MultiDiscrete(((2, 3),)), gs.MultiDiscrete([[2, 3]]), [[1, 2]]),
    "Box of integers": (Box(5, 7, (2,), np.uint8), gs.Box(5, 7, (2,), np.uint8), [7, 7]),
    "half-bounded Box": (Box(-0.5, np.inf, (3,)), gs.Box(-0.5, np.inf, (3,)), [-0.5, 0, 1]),
}


@pytest.mark.parametrize("case", ACTIONS)
def test_actions_are_elements_of_gymnasiums_space(case):
    """Greedy, the likeliest; sampled, always inside the bounds, however far the Gaussian reaches."""
    space, gymnasium_space, expected = ACTIONS[case]
    policy = policy_for(space)
    action, state = policy.act_one(np.array([1.0]))
    np.testing.assert_allclose(action, expected, rtol=1e-6)
    assert gymnasium_space.contains(action), action
    assert not jax.tree.leaves(state)
    sampled = [policy.act_one(np.array([1.0]), explore=True)[0] for _ in range(100)]
    assert all(gymnasium_space.contains(action) for action in sampled)
    assert len({np.asarray(action).tobytes() for action in sampled}) > 1


def test_an_action_of_a_nested_space_has_its_structure_and_types():
    space = Dict({"b": Tuple((Box(-2, 4, (2,)), Discrete(3, start=5))), "a": Box(-1, 1, (), np.int8)})
    mirrored = gs.Dict({"b": gs.Tuple([gs.Box(-2, 4, (2,)), gs.Discrete(3, start=5)]), "a": gs.Box(-1, 1, (), np.int8)})
    policy = policy_for(space)
    sampled = [policy.act_one(np.array([1.0]), explore=True)[0] for _ in range(50)]
    assert all(mirrored.contains(action) for action in sampled)
    action, _ = policy.act_one(np.array([1.0]))
    assert (action["a"], action["b"][1]) == (1, 7)  # the outputs grow: a 3, b's means 2, b's logits 3
    np.testing.assert_allclose(action["b"][0], 1 + 3 * np.linspace(-1, 1, 8)[3:5], rtol=1e-6)


def test_greedy_actions_do_not_change_and_sampled_ones_follow_the_seed():
    policy = policy_for(Box(-2, 4, (3,)))
    again = [Policy(policy.agent, policy.view, seed=0) for _ in range(2)]
    first, second = ([p.act_one(np.array([1.0]), explore=True)[0] for _ in range(5)] for p in again)
    np.testing.assert_array_equal(first, second)
    other = Policy(policy.agent, policy.view, seed=1).act_one(np.array([1.0]), explore=True)[0]
    assert not np.array_equal(first[0], other)


NESTED = Dict({"pose": Tuple((Box(-1, 1, (2,)), Discrete(3, start=1))), "image": Box(0, 255, (1, 1), np.uint8)})


def good():
    return {"pose": (np.array([0.5, -0.5]), 3), "image": [[255]]}


CHOICE = OneOf((Discrete(3), Box(-1, 1, (2,))))


def test_an_observation_of_one_of_several_spaces_comes_as_gymnasium_gives_it():
    policy = policy_for(Discrete(2), CHOICE)
    assert policy.act_one((1, [0.5, 0.5]))[0] in (0, 1)
    assert policy.act_one((np.int64(0), 2))[0] in (0, 1)


@pytest.mark.parametrize("as_given", [good, lambda: {"image": np.uint8([[255]]), "pose": [[0.5, -0.5], np.int64(3)]}])
def test_observations_of_nested_spaces_come_as_gymnasium_gives_them_or_as_lists(as_given):
    assert policy_for(Discrete(2), NESTED).act_one(as_given())[0] == 1


@pytest.mark.parametrize(
    ("space", "observation", "message"),
    [
        (
            Box(-1, 1, (2,)),
            [0.0],
            r"observation: expected shape \(2,\) of Box\(-1\.0, 1\.0, \(2,\), float32\), got \(1,\)$",
        ),
        (Box(-1, 1, (2,)), [[0.0, 0.0]], r"got \(1, 2\); compute_actions takes many observations, this one"),
        (Box(-1, 1, (2,)), [0.0, np.nan], r"observation: .* is not finite"),
        (Box(-1, 1, (2,)), "up", r"observation: 'up' is no element of Box"),
        (Box(-1, 1, (2,)), None, r"observation"),
        (Discrete(3, start=1), 0, r"observation: 0 is outside Discrete\(n=3, start=1\)"),
        (Discrete(3, start=1), 4, r"observation: 4 is outside"),
        (Discrete(3), 1.5, r"observation: 1\.5 is no element of Discrete"),
        (Discrete(3), 2**40, r"observation: 1099511627776 is no element of Discrete"),
        (Box(0, 255, (1,), np.uint8), [300], r"observation: \[300\] is no element of Box"),
        (Box(0, 255, (1,), np.uint8), [0.5], r"observation: \[0\.5\] is no element of Box"),
        (MultiDiscrete((2, 3)), [2, 0], r"observation: \[2 0\] is outside MultiDiscrete"),
        (CHOICE, (2, 0.0), r"observation: expected \(number of the chosen space, its element\), got \(2, 0\.0\)"),
        (CHOICE, (0, 3), r"observation\[1\]: 3 is outside Discrete"),
        (NESTED, good() | {"pose": (np.zeros(3), 1)}, r"observation\['pose'\]\[0\]: expected shape \(2,\)"),
        (NESTED, good() | {"pose": (np.zeros(2), 9)}, r"observation\['pose'\]\[1\]: 9 is outside"),
        (NESTED, good() | {"pose": np.zeros(2)}, r"observation\['pose'\]: expected a tuple of 2 entries"),
        (NESTED, {"image": [[0]]}, r"observation: expected the entries \['image', 'pose'\]"),
        (NESTED, np.zeros(3), r"observation: expected the entries \['image', 'pose'\]"),
    ],
)
def test_an_observation_that_does_not_fit_is_refused_with_its_place_and_space(space, observation, message):
    with pytest.raises(ValueError, match=message):
        policy_for(Discrete(2), space).act_one(observation)


# Memory -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recurrent():
    agent = PPO(model=GRU(4, ())).bind(Spec(Box(-10, 10, (1,)), Box(-np.inf, np.inf, (2,))))
    params = jax.jit(lambda: agent.init(wrap(np.zeros(2, np.uint32))).params)()
    params["network"]["heads"]["policy"]["kernel"] *= 100.0
    return Policy(agent, params, seed=0)


def test_the_state_carries_what_was_seen(recurrent):
    assert recurrent.is_recurrent()
    assert not policy_for(Discrete(2)).is_recurrent()
    state = recurrent.get_initial_state()
    seen = [np.array([1.0]), np.array([-2.0]), np.array([1.0])]
    actions = []
    for observation in seen:
        action, state = recurrent.act_one(observation, state)
        actions.append(action)
    assert not np.allclose(actions[0], actions[2]), "the same observation with another past"
    replayed, replayed_state = recurrent.act_one(seen[0], recurrent.get_initial_state())
    np.testing.assert_array_equal(replayed, actions[0])
    np.testing.assert_array_equal(recurrent.act_one(seen[1], replayed_state)[0], actions[1])


@pytest.mark.parametrize("nothing", [None, [], ()], ids=repr)
def test_no_state_begins_an_episode(recurrent, nothing):
    expected, _ = recurrent.act_one(np.array([1.0]), recurrent.get_initial_state())
    action, state = recurrent.act_one(np.array([1.0]), nothing)
    np.testing.assert_array_equal(action, expected)
    again, _ = recurrent.act_one(np.array([1.0]), state, first=True)
    np.testing.assert_array_equal(again, expected)
