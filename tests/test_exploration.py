"""Exploration by hand: frequencies, scales, drifts, parameter noise and its adaptation; random steps in both loops."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from modes import KEY as KEY_DATA

from athlete.algorithms.ddpg import DDPGConfig
from athlete.algorithms.dqn import DQN, DQNConfig
from athlete.algorithms.td3 import TD3, TD3Config
from athlete.core import ActingCarry, Env, Spec, Step, hyper
from athlete.exploration import (
    ActingView,
    EpsilonGreedy,
    GaussianNoise,
    OrnsteinUhlenbeckNoise,
    ParameterNoise,
    SoftQ,
    acting_outputs,
    action_distance,
    explored_action,
    greedy,
    perturbed,
    softmax_distance,
)
from athlete.loops.collect import spec_of
from athlete.loops.host import HostedEnv
from athlete.loops.train import CompiledTraining, HostedTraining
from athlete.memory.replay import Replay
from athlete.memory.ring import ring_take
from athlete.models.mlp import MLP
from athlete.ops.random import wrap
from athlete.ops.schedule import Schedule
from athlete.spaces import Box, Discrete

KEY, OTHER_KEY = (wrap(np.array([0, number], np.uint32)) for number in (1, 2))
FALLING = Schedule((0.0, 1.0), (1.0, 0.0))
QUICK = {"xla_backend_optimization_level": 0}

# Choosing among values --------------------------------------------------------------------------------------------


def frequencies(exploration, values, rate, rows=20_000):
    """How often each action is chosen."""
    choose = jax.jit(exploration.choose, compiler_options=QUICK)
    chosen = np.asarray(choose(np.tile(np.array(values, np.float32), (rows, 1)), jnp.float32(rate), KEY))
    assert chosen.dtype == np.int32
    return np.bincount(chosen, minlength=len(values)) / rows


@pytest.mark.parametrize(
    ("epsilon", "expected"), [(0.0, [0, 0, 1, 0]), (0.4, [0.1, 0.1, 0.7, 0.1]), (1.0, [0.25, 0.25, 0.25, 0.25])]
)
def test_epsilon_is_the_share_of_uniformly_random_actions(epsilon, expected):
    np.testing.assert_allclose(frequencies(EpsilonGreedy(), [1, 2, 3, 0], epsilon), expected, atol=0.015)


def test_of_several_best_actions_the_first_is_taken():
    np.testing.assert_array_equal(greedy(np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 0.0]])), [1, 0])


def test_soft_q_chooses_in_proportion_to_the_exponentials():
    weights = np.exp(np.array([0.0, 1.0, 3.0]) / 2)
    np.testing.assert_allclose(frequencies(SoftQ(), [0, 1, 3], 2.0), weights / weights.sum(), atol=0.015)


def test_soft_q_without_temperature_is_greedy():
    np.testing.assert_array_equal(frequencies(SoftQ(), [1, 3, 2], 0.0), [0, 1, 0])


@pytest.mark.parametrize(
    ("exploration", "levels"),
    [
        (EpsilonGreedy(FALLING), [1.0, 0.75, 0.0]),
        (SoftQ(FALLING), [1.0, 0.75, 0.0]),
        (GaussianNoise(0.2, FALLING), [0.2, 0.15, 0.0]),
        (OrnsteinUhlenbeckNoise(base_scale=0.2, scale=FALLING), [0.2, 0.15, 0.0]),
    ],
)
def test_levels_follow_their_schedules(exploration, levels):
    found = [exploration.rate(jnp.float32(progress)) for progress in (0.0, 0.25, 1.0)]
    np.testing.assert_allclose(found, levels, atol=1e-6)


def test_each_kind_refuses_the_other_kind_of_actions_and_names_who_serves_it():
    values, flags = np.zeros((1, 2), np.float32), np.zeros(1, bool)
    with pytest.raises(TypeError, match="GaussianNoise is for continuous actions; EpsilonGreedy and SoftQ choose"):
        GaussianNoise().choose(values, 0.1, KEY)
    with pytest.raises(TypeError, match="SoftQ chooses among values; GaussianNoise and OrnsteinUhlenbeckNoise are for"):
        SoftQ().add_noise(values, 0.1, (), flags, KEY)


# Disturbing actions -----------------------------------------------------------------------------------------------


def test_gaussian_noise_has_its_scale_and_no_memory():
    action = np.full((5000, 2), 0.1, np.float32)
    found, carry = GaussianNoise().add_noise(action, 0.2, (), np.zeros(5000, bool), KEY)
    noise = np.asarray(found) - action
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=0.01)
    np.testing.assert_allclose(noise.std(axis=0), 0.2, rtol=0.05)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.05, "each entry has its own"
    assert carry == ()


@pytest.mark.parametrize("exploration", [GaussianNoise(), OrnsteinUhlenbeckNoise(), ParameterNoise()])
def test_actions_stay_within_their_bounds(exploration):
    action = np.array([[1.0, -1.0, 0.9]] * 100, np.float32)
    carry, first = exploration.start(100, 3, KEY), np.ones(100, bool)
    found, _ = exploration.add_noise(action, 5.0, carry, first, KEY)
    assert np.abs(found).max() == 1.0


def test_drifting_noise_is_its_recursion_and_begins_anew_with_an_episode():
    noise = OrnsteinUhlenbeckNoise(theta=0.25, sigma=0.1)
    action, rate = np.zeros((2, 1), np.float32), 0.5  # times the range of 2: x itself is added
    carry, x = noise.start(2, 1, KEY), np.zeros((2, 1))
    for step in range(4):
        first = np.array([step == 0, step in (0, 2)])
        key = wrap(np.array([step, 7], np.uint32))
        x = np.where(first[:, None], 0.0, x)
        x = x - 0.25 * x + 0.1 * np.asarray(jax.random.normal(key, (2, 1)))
        found, carry = noise.add_noise(action, rate, carry, first, key)
        np.testing.assert_allclose(found, x, rtol=1e-4)
        np.testing.assert_allclose(carry, x, rtol=1e-4)


def test_drifting_noise_settles_at_the_spread_of_its_process():
    """Stationary variance sigma^2 / (2 theta - theta^2), and correlation 1 - theta from step to step."""
    noise = OrnsteinUhlenbeckNoise(theta=0.2, sigma=0.06)
    running = np.zeros(4000, bool)

    def step(carry, key):
        found, carry = noise.add_noise(jnp.zeros((4000, 1)), 0.5, carry, running, key)
        return carry, found[:, 0]

    _, found = jax.lax.scan(step, noise.start(4000, 1, KEY), jax.random.split(KEY, 40))
    before, last = np.asarray(found[-2:])
    assert last.std() == pytest.approx(0.06 / np.sqrt(2 * 0.2 - 0.2**2), rel=0.05)
    assert np.corrcoef(before, last)[0, 1] == pytest.approx(0.8, abs=0.03)


# Parameter noise --------------------------------------------------------------------------------------------------

PARAMS = {"w": np.zeros((2, 3), np.float32)}
OBS = np.ones((4, 2), np.float32)


def linear(params, obs):
    return obs @ params["w"]


def outputs(carry, first, key=KEY, params=PARAMS, stddev=0.5):
    view = ActingView(params, jnp.zeros(()), jnp.float32(stddev))
    found, carry = acting_outputs(ParameterNoise(), linear, view, carry, np.array(first), OBS, key)
    return np.asarray(found), carry


def test_disturbed_parameters_have_independent_noise_of_the_standard_deviation():
    params = {"kernel": np.full((1, 2000), 3.0, np.float32), "bias": np.zeros(2000, np.float32)}
    found = perturbed(params, 0.25, KEY)
    assert {name: leaf.shape for name, leaf in found.items()} == {"kernel": (1, 2000), "bias": (2000,)}
    noise = np.stack([np.ravel(found["kernel"] - 3.0), found["bias"]])
    np.testing.assert_allclose(noise.std(axis=1), 0.25, rtol=0.05)
    assert abs(np.corrcoef(noise)[0, 1]) < 0.07


def test_the_scale_and_shift_of_a_normalisation_are_not_disturbed():
    params = MLP((4,), layer_norm=True).init(KEY, Box(-1, 1, (3,)), {"value": (1, 1.0)})
    found = perturbed(params, 0.25, KEY)
    layer, before = found["layers"][0], params["layers"][0]
    for name in ("scale", "shift"):
        np.testing.assert_array_equal(layer[name], before[name])
    for name in ("kernel", "bias"):
        assert (layer[name] != before[name]).all()


def test_within_an_episode_the_noise_stays_and_at_its_start_it_is_new():
    noise = ParameterNoise()
    begun, carry = outputs(noise.start(4, 3, KEY), [True] * 4)
    later, carry = outputs(carry, [False] * 4, OTHER_KEY)
    np.testing.assert_array_equal(begun, later)
    mixed, _ = outputs(carry, [False, True, False, True], OTHER_KEY)
    np.testing.assert_array_equal(mixed[[0, 2]], begun[[0, 2]])
    assert (mixed[[1, 3]] != begun[[1, 3]]).all()


def test_rows_have_noise_of_their_own():
    found, _ = outputs(ParameterNoise().start(4, 3, KEY), [True] * 4)
    assert len(np.unique(found.round(6))) == 12


def test_within_an_episode_learning_goes_on_under_the_noise():
    begun, carry = outputs(ParameterNoise().start(4, 3, KEY), [True] * 4)
    moved, _ = outputs(carry, [False] * 4, params={"w": PARAMS["w"] + 1.0}, stddev=1.0)
    np.testing.assert_allclose(moved - 2.0, 2.0 * begun, rtol=1e-4, atol=1e-5)


def test_without_parameter_noise_outputs_are_plain():
    view = ActingView({"w": np.ones((2, 3), np.float32)}, jnp.zeros(()), jnp.zeros(()))
    found, carry = acting_outputs(GaussianNoise(), linear, view, (), np.ones(4, bool), OBS, KEY)
    np.testing.assert_array_equal(found, np.full((4, 3), 2.0))
    assert carry == ()


def test_an_action_is_disturbed_through_parameters_or_by_itself_but_not_both():
    view = ActingView(PARAMS, jnp.float32(0.5), jnp.float32(0.5))
    first = np.ones(4, bool)
    for exploration in (GaussianNoise(), ParameterNoise()):
        carry = ActingCarry((), exploration.start(4, 3, KEY))
        draw_key, noise_key = jax.random.split(KEY)
        expected, noise = acting_outputs(exploration, linear, view, carry.exploration, first, OBS, draw_key)
        if isinstance(exploration, GaussianNoise):
            expected = expected + 0.5 * jax.random.normal(noise_key, (4, 3))
        found, carry = explored_action(exploration, linear, view, carry, first, OBS, KEY)
        np.testing.assert_allclose(found, np.clip(expected, -1, 1), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(jax.tree.leaves(carry), jax.tree.leaves(noise))


def test_distances_by_hand():
    # KL of (0.5, 0.5) from (0.8, 0.2), and 0 in the second row.
    plain, noisy = np.log([[0.5, 0.5], [0.3, 0.7]]), np.log([[0.8, 0.2], [0.3, 0.7]])
    kl = 0.5 * np.log(0.5 / 0.8) + 0.5 * np.log(0.5 / 0.2)
    assert softmax_distance(plain, noisy + 5.0) == pytest.approx(kl / 2, rel=1e-5)
    actions = np.array([[0.0, 1.0], [0.5, -1.0]], np.float32)
    assert action_distance(actions, actions + np.array([[0.3, -0.3], [0.1, 0.5]])) == pytest.approx(
        np.sqrt((0.09 + 0.09 + 0.01 + 0.25) / 4)
    )


@pytest.mark.parametrize(
    ("target", "expected"),
    [(1e-6, 0.5 / 1.01), (1e6, 0.5 * 1.01), (Schedule((0.0, 1.0), (1e6, 1e-6)), 0.5 * 1.01)],
    ids=["too far away", "too near", "too near so far"],
)
def test_the_standard_deviation_follows_the_distance(target, expected):
    noise = ParameterNoise(0.5, target)
    assert noise.initial() == 0.5
    found = noise.adapt(linear, PARAMS, jnp.float32(0.5), OBS, jnp.zeros(()), KEY, action_distance)
    assert found == pytest.approx(expected)


def test_adapted_again_and_again_the_distance_comes_to_its_target():
    """Outputs are sums of two weights: the distance is about sqrt(2) times the standard deviation."""
    noise, stddev = ParameterNoise(0.02, 0.2), jnp.float32(0.02)
    obs = np.ones((1, 2), np.float32)
    params = {"w": np.zeros((2, 500), np.float32)}

    def step(stddev, key):
        return noise.adapt(linear, params, stddev, obs, jnp.zeros(()), key, action_distance), None

    stddev, _ = jax.lax.scan(step, stddev, jax.random.split(KEY, 400))
    assert stddev == pytest.approx(0.2 / np.sqrt(2), rel=0.1)


# Settings ---------------------------------------------------------------------------------------------------------

BOX, CHOICES = Spec(Box(-1, 1, (2,)), Box(-1, 1, (1,))), Spec(Box(-1, 1, (2,)), Discrete(2))


def made(config, given, spec=BOX):
    """The exploration of an agent with this `exploration_config`, its rate by timesteps, and its random timesteps."""
    built = config().exploration(exploration_config=given)
    agent = built.make_agent(spec)
    return (
        agent.exploration,
        lambda step: float(agent.exploration.rate(step / built.horizon())),
        agent.random_timesteps,
    )


def test_rllibs_settings_of_noise_arrive():
    given = {"stddev": 0.5, "initial_scale": 2.0, "final_scale": 0.0, "scale_timesteps": 100, "random_timesteps": 50}
    exploration, rate, random = made(TD3Config, given)
    assert isinstance(exploration, GaussianNoise) and random == 50
    found = [rate(step) for step in (0, 50, 100, 150, 9999)]  # it falls after the random steps
    np.testing.assert_allclose(found, [1.0, 1.0, 0.5, 0.0, 0.0], atol=1e-6)


def test_another_type_has_its_own_defaults():
    exploration, rate, random = made(DDPGConfig, {"ou_sigma": 0.3})
    assert (exploration.theta, exploration.sigma, exploration.base_scale, random) == (0.15, 0.3, 0.1, 1000)
    assert [rate(1000), rate(11_000)] == pytest.approx([0.1, 0.002])
    exploration, _, random = made(TD3Config, {"type": "ParameterNoise", "target": 0.3})
    assert isinstance(exploration, ParameterNoise) and random == 0
    assert (exploration.initial_stddev, exploration.target) == (0.1, 0.3)


def test_rllibs_settings_of_choice_arrive():
    _, rate, _ = made(DQNConfig, {"final_epsilon": 0.1, "epsilon_timesteps": 100, "warmup_timesteps": 100}, CHOICES)
    np.testing.assert_allclose([rate(step) for step in (0, 100, 150, 999)], [1, 1, 0.55, 0.1], atol=1e-6)
    exploration, rate, _ = made(DQNConfig, {"type": "SoftQ", "temperature": [[0, 3.0], [10, 1.0]]}, CHOICES)
    assert isinstance(exploration, SoftQ) and [rate(5), rate(10)] == pytest.approx([2.0, 1.0])


# Uniformly random steps at the start, in both loops ---------------------------------------------------------------

RANDOM, ROWS = 400, 2  # timesteps; the rest of 500 are the agent's


@hyper
class Mirror(Env):
    """Shows what was done, in the environment's own numbers; every third step ends an episode."""

    continuous: bool = True

    observation_space = Box(-10, 10, (2,))

    @property
    def action_space(self):
        return Box(np.array([-2.0, 1.0]), np.array([6.0, 3.0])) if self.continuous else Discrete(4, start=3)

    def reset(self, key):
        return jnp.int32(0), jnp.zeros(2)

    def step(self, state, action, key):
        seen = jnp.broadcast_to(action, (2,)).astype(jnp.float32)
        return state + 1, Step(seen, jnp.float32(1), jnp.asarray(False), state >= 2, {})


@functools.cache
def done_in(kind, loop):
    """What was done in 500 timesteps, as the environment saw it: the random ones, and the others."""
    env = Mirror(kind == "Box")
    model, shared = MLP((4,)), {"random_timesteps": RANDOM, "num_steps_sampled_before_learning_starts": 500}
    memory = Replay(1000, 4, unroll=10)
    if kind == "Box":
        agent = TD3(exploration=GaussianNoise(0.0), policy_model=model, q_model=model, memory=memory, **shared)
    else:
        agent = DQN(exploration=EpsilonGreedy(0.0), model=model, memory=memory, **shared)
    agent = agent.bind(spec_of(env))
    if loop == "compiled":
        training = CompiledTraining(agent, env, ROWS, 10, 1000.0, KEY_DATA)
    else:
        training = HostedTraining(agent, HostedEnv(env, ROWS), 10, 1000.0, KEY_DATA)
    training.advance(1)
    slots = np.arange(250)
    seen = [np.asarray(ring_take(training.run.store, slots, np.full(250, row), 1).next_obs[0]) for row in range(ROWS)]
    both = np.stack(seen, axis=1)
    return both[: RANDOM // ROWS].reshape(-1, 2), both[RANDOM // ROWS :].reshape(-1, 2)


@pytest.mark.parametrize("loop", ["compiled", "hosted"])
def test_random_steps_are_uniform_over_a_box(loop):
    random, own = done_in("Box", loop)
    for entry, (low, high) in enumerate([(-2, 6), (1, 3)]):
        share = np.sort((random[:, entry] - low) / (high - low))
        assert share[0] >= 0 and share[-1] <= 1
        distance = np.abs(share - (np.arange(RANDOM) + 0.5) / RANDOM).max()
        assert distance < 1.63 / np.sqrt(RANDOM), "Kolmogorov and Smirnov's test at 1%"
    assert np.ptp(own, axis=0).max() < 0.5, "an untrained actor without noise does nearly the same everywhere"


@pytest.mark.parametrize("loop", ["compiled", "hosted"])
def test_random_steps_are_uniform_over_choices(loop):
    random, own = done_in("Discrete", loop)
    counts = np.bincount(random[:, 0].astype(int) - 3, minlength=4)
    assert len(counts) == 4 and ((counts - 100) ** 2 / 100).sum() < 11.34, "chi square, three degrees of freedom, 1%"
    assert len(np.unique(own[:, 0])) < 4


@pytest.mark.parametrize("kind", ["Box", "Discrete"])
def test_random_steps_are_the_same_in_both_loops(kind):
    for compiled, hosted in zip(done_in(kind, "compiled"), done_in(kind, "hosted"), strict=True):
        np.testing.assert_allclose(compiled, hosted, rtol=1e-5)
