"""PPO by hand: the loss, the bootstrap across endings, the minibatches, and values with known answers."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import Table, steps_since_first

from athlete.algorithms.ppo import PPO, Batch, PPOState
from athlete.core import Env, Model, Spec, Step, Transition, hyper
from athlete.loops.learn import init_run, iterate_many
from athlete.models.recurrent import GRU
from athlete.ops.gradient import adam_init
from athlete.ops.random import wrap
from athlete.ops.schedule import Schedule
from athlete.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, OneOf, Tuple, zeros

QUICK = {"xla_backend_optimization_level": 0}  # tiny programs: compiling is all they cost
KEY = wrap(np.array([0, 1], np.uint32))
KEY_DATA = np.array([0, 1], np.uint32)


@functools.partial(jax.jit, compiler_options=QUICK)
def update(agent, state, batch, progress=0.0):
    return agent.update(state, batch, KEY, progress)


@functools.partial(jax.jit, static_argnames=("gradient",), compiler_options=QUICK)
def loss(agent, params, batch, kl_coeff=0.0, gradient=False):
    """`{metric: value}`, or the gradient of the total."""
    if gradient:
        return jax.grad(lambda params: agent._loss(params, batch, kl_coeff, 0.0, KEY)[0])(params)
    names = ("policy_loss", "vf_loss", "entropy", "kl", "total_loss")
    return dict(zip(names, agent._loss(params, batch, kl_coeff, 0.0, KEY)[1], strict=True))


# The loss ---------------------------------------------------------------------------------------------------------

# Four samples, each in a state of its own, two actions. The new probability of the action taken and the old one:
NEW = np.array([0.6, 0.3, 0.25, 0.4])
OLD = np.array([0.4, 0.2, 0.5, 0.8])  # ratios 1.5, 1.5, 0.5, 0.5
ADVANTAGE = np.array([2.0, -2.0, 2.0, -2.0])
VALUE, OLD_VALUE, TARGET = (
    np.array([1.0, 2.0, 3.0, 4.0]),
    np.array([1.0, 2.5, 2.0, 2.0]),
    np.array([0.0, 3.0, 5.0, 1.0]),
)
SPEC = Spec(Box(0, 1, (4,)), Discrete(2))
PARAMS = {
    "network": {
        "policy": np.log(np.stack([NEW, 1 - NEW], axis=1)).astype(np.float32),
        "value": VALUE[:, None].astype(np.float32),
    }
}


def samples(**changes):
    """The four samples as sequences of one step, `[1, 4]`."""
    fields = {
        "obs": np.eye(4),
        "first": np.zeros(4, bool),
        "action": np.zeros(4, np.int32),
        "log_prob": np.log(OLD),
        "old_outputs": np.log(np.stack([OLD, 1 - OLD], axis=1)),
        "advantage": ADVANTAGE,
        "value": OLD_VALUE,
        "target": TARGET,
        **changes,
    }
    arrays = {
        name: np.asarray(leaf, np.float32 if np.asarray(leaf).dtype == float else None)[None]
        for name, leaf in fields.items()
    }
    return Batch(carry=(), **arrays)


def agent_of(**settings):
    return PPO(model=Table(), **settings).bind(SPEC)


ENTROPY = -(NEW * np.log(NEW) + (1 - NEW) * np.log(1 - NEW)).mean()


def test_the_surrogate_is_clipped_on_the_side_that_would_gain():
    # Ratio above 1.2: a gain of 2 * 1.5 counts as 2 * 1.2, a loss counts whole. Below 0.8: the other way round.
    found = loss(agent_of(clip_param=0.2), PARAMS, samples())
    assert found["policy_loss"] == pytest.approx(-(2.4 - 3.0 + 1.0 - 1.6) / 4, rel=1e-5)


def test_the_discovered_surrogate_takes_the_place_of_the_clipped_one():
    # Drifts where there is something to gain: of (1.5 - 1) 2 and of 2 log 2; the other two samples count whole.
    found = loss(agent_of(surrogate="discovered"), PARAMS, samples())
    far, near = 2 * np.log(2), 1.0
    expected = 3.0 - (near - 2 * np.tanh(near / 2)) - 3.0 + 1.0 - 1.0 - (far - 0.6 * np.tanh(far / 0.6))
    assert found["policy_loss"] == pytest.approx(-expected / 4, rel=1e-5)


def test_robust_policies_learn_with_means_that_are_moved_uniformly():
    action, mean = np.array([[0.3], [-0.2], [0.9], [0.0]]), np.array([[0.1], [0.4], [0.5], [-0.3]], np.float32)
    params = {"network": {**PARAMS["network"], "policy": mean}, "log_std": jnp.full(1, np.log(2.0))}
    agent = PPO(model=Table(), rpo_alpha=0.5, clip_param=1e6).bind(Spec(SPEC.obs, Box(-1, 1, (1,))))
    moved = np.asarray(jax.random.uniform(KEY, (1, 4, 1), minval=-0.5, maxval=0.5))[0]
    assert len(np.unique(moved)) == 4 and np.abs(moved).max() > 0.1
    log_prob = (-0.5 * ((action - mean - moved) / 2.0) ** 2 - np.log(2.0 * np.sqrt(2 * np.pi)))[:, 0]
    found = loss(agent, params, samples(action=action, log_prob=np.full(4, -2.0)))
    assert found["policy_loss"] == pytest.approx(-np.mean(np.exp(log_prob + 2.0) * ADVANTAGE), rel=1e-4)
    assert found["entropy"] == pytest.approx(np.log(2.0) + 0.5 * np.log(2 * np.pi * np.e), rel=1e-5)


@pytest.mark.parametrize("space", [Discrete(2), Tuple((Discrete(2), Box(-1, 1, (1,))))])
def test_robust_policies_need_continuous_actions(space):
    with pytest.raises(ValueError, match=r"PPO: rpo_alpha=0\.5 moves the means of continuous actions, and this action"):
        PPO(rpo_alpha=0.5).bind(Spec(SPEC.obs, space))


def test_clipped_samples_give_the_policy_no_gradient():
    gradient = loss(agent_of(clip_param=0.2, vf_loss_coeff=0.0), PARAMS, samples(), gradient=True)["network"]["policy"]
    np.testing.assert_allclose(gradient[::3], 0, atol=1e-7)
    # Sample 1: d(-ratio * advantage / 4) / d logit of its action = -ratio (1 - p) advantage / 4.
    assert gradient[1, 0] == pytest.approx(1.5 * 0.7 * 2 / 4, rel=1e-5)
    assert gradient[2, 0] == pytest.approx(-0.5 * 0.75 * 2 / 4, rel=1e-5)


def test_the_value_loss_is_the_mean_squared_error():
    found = loss(agent_of(), PARAMS, samples())
    assert found["vf_loss"] == pytest.approx((1 + 1 + 4 + 9) / 4, rel=1e-5)


def test_a_clipped_value_loss_is_the_worse_of_both_errors():
    # Values held within 0.5 of the old: 1, 2, 2.5, 2.5. Errors 1, 1, 4, 9 against 1, 1, 6.25, 2.25.
    found = loss(agent_of(vf_clip_param=0.5), PARAMS, samples())
    assert found["vf_loss"] == pytest.approx((1 + 1 + 6.25 + 9) / 4, rel=1e-5)


def test_entropy_kl_and_the_sum_of_all_terms():
    found = loss(agent_of(vf_loss_coeff=0.25, entropy_coeff=0.1), PARAMS, samples())
    ratio = NEW / OLD
    assert found["entropy"] == pytest.approx(ENTROPY, rel=1e-5)
    assert found["kl"] == pytest.approx((ratio - 1 - np.log(ratio)).mean(), rel=1e-4)
    assert found["total_loss"] == pytest.approx(0.3 + 0.25 * 3.75 - 0.1 * ENTROPY, rel=1e-5)


def test_with_a_coefficient_the_exact_kl_of_old_from_new_is_a_penalty():
    found = loss(agent_of(kl_coeff=0.5, vf_loss_coeff=0.0), PARAMS, samples(), kl_coeff=3.0)
    kl = (OLD * np.log(OLD / NEW) + (1 - OLD) * np.log((1 - OLD) / (1 - NEW))).mean()
    assert found["kl"] == pytest.approx(kl, rel=1e-4)
    assert found["total_loss"] == pytest.approx(0.3 + 3.0 * kl, rel=1e-4), "the state's coefficient, which adapts"


@pytest.mark.parametrize(("kl", "factor"), [(0.041, 1.5), (0.039, 1.0), (0.011, 1.0), (0.009, 0.5)])
def test_the_kl_coefficient_follows_its_target(kl, factor):
    assert agent_of(kl_coeff=0.2, kl_target=0.02)._adapt(jnp.float32(0.2), kl) == pytest.approx(0.2 * factor)


# Batches by hand --------------------------------------------------------------------------------------------------


def transitions(obs, next_obs, reward, terminated, truncated, **changes):
    """A batch `[T, B]` in which every row begins an episode at step 0 and after each ending."""
    reward = np.asarray(reward, np.float32)
    done = np.asarray(terminated) | np.asarray(truncated)
    first = np.concatenate([np.ones_like(done[:1]), done[:-1]])
    zeros = np.zeros(reward.shape, np.float32)
    fields = {
        "obs": obs,
        "first": first,
        "action": np.zeros(reward.shape, np.int32),
        "reward": reward,
        "next_obs": next_obs,
        "terminated": np.asarray(terminated),
        "truncated": np.asarray(truncated),
        "carry": (),
        "extras": {"log_prob": zeros + np.float32(np.log(0.5))},
        **changes,
    }
    return Transition(**fields)


def fresh_state(agent, params):
    return PPOState(params, adam_init(params), jnp.float32(0.0))


@hyper
class Steps(Model):
    """Its carry counts the steps since `first`, this one included, and its value is that count."""

    def start(self, rows):
        return jnp.zeros(rows)

    def apply(self, params, carry, obs, first):
        counts = steps_since_first(carry, first)
        return counts, {"policy": obs * params["policy"], "value": counts[..., None] * params["value"]}


STEPS_PARAMS = {"network": {"policy": np.zeros(2, np.float32), "value": np.float32(1.0)}}


@pytest.mark.parametrize("max_seq_len", [1, 2, 4])
def test_the_bootstrap_of_a_recurrent_value_uses_the_state_after_the_step(max_seq_len):
    """One row goes on in an episode that it is 5 steps into, is cut after its second step, then terminates.

    Counts at the steps are 6, 7 | 1, 2 and where they lead 7, 8 | 2, (3): the state after the step, one step on, and
    never begun anew although the next row of the batch is `first`.
    """
    agent = PPO(model=Steps(), gamma=0.5, lambda_=0.5, max_seq_len=max_seq_len).bind(
        Spec(Box(-1, 1, (2,)), Discrete(2))
    )
    obs = np.zeros((4, 1, 2), np.float32)
    first, carry = np.array([[False], [False], [True], [False]]), np.array([[5.0], [6.0], [7.0], [1.0]], np.float32)
    terminated, truncated = np.array([[0], [0], [0], [1]], bool), np.array([[0], [1], [0], [0]], bool)
    batch = transitions(obs, obs, [[1], [2], [3], [4]], terminated, truncated, first=first, carry=carry)
    found = jax.jit(agent._prepare, compiler_options=QUICK)(STEPS_PARAMS, batch)

    def in_time(leaf):  # sequences [L, N] of the one row, back to [T]
        return np.asarray(leaf).T.ravel()

    np.testing.assert_allclose(in_time(found.value), [6, 7, 1, 2])
    delta = np.array([1 + 0.5 * 7 - 6, 2 + 0.5 * 8 - 7, 3 + 0.5 * 2 - 1, 4 - 2])
    advantage = np.array([delta[0] + 0.25 * delta[1], delta[1], delta[2] + 0.25 * delta[3], delta[3]])
    np.testing.assert_allclose(in_time(found.target), np.array([6, 7, 1, 2]) + advantage, rtol=1e-6)
    np.testing.assert_allclose(in_time(found.advantage), (advantage - advantage.mean()) / advantage.std(), rtol=1e-5)


def test_sequences_are_contiguous_in_time_of_one_row_and_start_from_the_recorded_state():
    length, steps, rows = 3, 6, 2
    agent = PPO(model=Steps(), max_seq_len=length).bind(Spec(Box(-1, 1, (2,)), Discrete(2)))
    number = np.arange(steps * rows, dtype=np.float32).reshape(steps, rows)  # time * 2 + row
    obs = np.stack([number, number], axis=-1)
    never = np.zeros((steps, rows), bool)
    batch = transitions(obs, obs, number, never, never, carry=100 + number, action=number.astype(np.int32))
    found = jax.jit(agent._prepare, compiler_options=QUICK)(STEPS_PARAMS, batch)
    sequences = {tuple(sequence) for sequence in np.asarray(found.obs[..., 0]).T.tolist()}
    assert sequences == {(0, 2, 4), (1, 3, 5), (6, 8, 10), (7, 9, 11)}
    np.testing.assert_array_equal(found.action, found.obs[..., 0])
    np.testing.assert_array_equal(found.carry, 100 + np.asarray(found.obs[0, :, 0]))


# Minibatches ------------------------------------------------------------------------------------------------------


def squares_batch(number):
    """With gamma 0 and values of 0 the squared value error of sample i is 2**i: a sum tells who was in it."""
    obs = np.ones((number // 2, 2, 1), np.float32)
    never = np.zeros((number // 2, 2), bool)
    reward = np.sqrt(2.0 ** np.arange(number)).reshape(number // 2, 2)
    return transitions(obs, obs, reward, never, ~never)


@pytest.mark.parametrize(("minibatch_size", "used"), [(4, 12), (5, 10), (100, 12)])
def test_every_epoch_uses_each_sample_once_and_leaves_out_only_a_remainder(minibatch_size, used):
    agent = PPO(model=Table(), lr=0.0, gamma=0.0, num_epochs=1, minibatch_size=minibatch_size)
    agent = agent.bind(Spec(Box(0, 1, (1,)), Discrete(2)))
    _, metrics = update(agent, agent.init(KEY), squares_batch(12))
    total = float(metrics["vf_loss"]) * used
    assert total == pytest.approx(round(total), rel=1e-5)
    assert round(total).bit_count() == used


def test_epochs_go_through_the_samples_in_different_orders():
    """Where a remainder is left out, it is another one each time."""
    agent = PPO(model=Table(), lr=0.0, gamma=0.0, num_epochs=8, minibatch_size=7)
    agent = agent.bind(Spec(Box(0, 1, (1,)), Discrete(2)))
    _, metrics = update(agent, agent.init(KEY), squares_batch(12))
    assert round(float(metrics["vf_loss"]) * 7 * 8) % 8 != 0, "not eight times the same seven"


def two_armed(steps=8, rows=2):
    """Action 1 pays 1, action 0 pays 0; both were equally likely."""
    action = (np.arange(steps * rows).reshape(steps, rows) % 3 == 0).astype(np.int32)
    obs, never = np.ones((steps, rows, 1), np.float32), np.zeros((steps, rows), bool)
    return transitions(obs, obs, action.astype(np.float32), ~never, never, action=action)


def test_a_step_makes_the_better_action_likelier_and_the_value_nearer():
    agent = PPO(model=Table(), lr=0.1, num_epochs=4, minibatch_size=8).bind(Spec(Box(0, 1, (1,)), Discrete(2)))
    state, metrics = update(agent, agent.init(KEY), two_armed())
    policy, value = state.params["network"]["policy"][0], state.params["network"]["value"][0, 0]
    assert policy[1] > 0.1 > -0.1 > policy[0]
    assert 0.1 < value < 0.8
    assert metrics["entropy"] < np.log(2)
    assert metrics["cur_lr"] == pytest.approx(0.1)


def test_kl_stop_freezes_parameters_and_optimizer_once_the_policy_has_moved():
    """The first minibatch moves (its KL is 0), and all after it find the policy moved too far."""
    spec = Spec(Box(0, 1, (1,)), Discrete(2))
    agent = PPO(model=Table(), lr=0.1, num_epochs=5, minibatch_size=16, kl_stop=1e-6).bind(spec)
    stopped, _ = update(agent, agent.init(KEY), two_armed())
    once, _ = update(dataclasses.replace(agent, num_epochs=1), agent.init(KEY), two_armed())
    on, _ = update(dataclasses.replace(agent, kl_stop=1e6), agent.init(KEY), two_armed())
    assert (int(stopped.optimizer.count), int(once.optimizer.count), int(on.optimizer.count)) == (1, 1, 5)
    for a, b, c in zip(*(jax.tree.leaves(state.params) for state in (stopped, once, on)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
        assert np.abs(np.asarray(c - b)).max() > 0.01


def test_learning_rate_and_clipping_follow_their_schedules():
    falling = Schedule((0.0, 1.0), (0.4, 0.0))
    agent = PPO(model=Table(), lr=falling, clip_param=falling, entropy_coeff=falling, num_epochs=1, minibatch_size=16)
    agent = agent.bind(Spec(Box(0, 1, (1,)), Discrete(2)))
    for progress, lr in [(0.0, 0.4), (0.75, 0.1), (1.0, 0.0)]:
        state, metrics = update(agent, agent.init(KEY), two_armed(), progress)
        assert metrics["cur_lr"] == pytest.approx(lr)
        # Adam's first step is the learning rate itself.
        assert abs(state.params["network"]["policy"][0, 1]) == pytest.approx(lr, rel=1e-3, abs=1e-8)


# Spaces -----------------------------------------------------------------------------------------------------------

OBS = Dict({"where": Box(-1, 1, (2, 2)), "who": Discrete(3, start=1)})
CASES = {
    "MultiDiscrete, KL penalty": (MultiDiscrete((2, 4), start=(1, 1)), {"kl_coeff": 0.2}),
    "MultiBinary of rank 2": (MultiBinary((2, 1)), {}),
    "Box of rank 2, KL penalty, log_std of obs": (Box(-2, 2, (2, 3)), {"kl_coeff": 0.2, "free_log_std": False}),
    "Box of rank 0": (Box(-2, 2, ()), {}),
    "Box of integers": (Box(-2, [[0, 2]], dtype=np.int8), {}),
    "Tuple, discrete and continuous, KL penalty": (
        Tuple((Discrete(3, start=1), Box(-2, 2, (2, 1)))),
        {"kl_coeff": 0.2},
    ),
    "nested, log_std of obs": (
        Dict({"b": Tuple((Box(0, np.inf, (2,)), MultiDiscrete(((2, 3),)))), "a": MultiBinary((2,))}),
        {"free_log_std": False},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_acted_is_what_the_update_sees(case):
    """Right after acting, with a learning rate of 0, new and old policy are the same: their KL is 0 and the ratio 1."""
    (space, settings), steps, rows = CASES[case], 3, 4
    agent = PPO(model=Table(), lr=0.0, num_epochs=2, minibatch_size=6, **settings).bind(Spec(OBS, space))
    random = np.random.default_rng(0)
    where = random.uniform(-1, 1, (steps, rows, 2, 2)).astype(np.float32)
    obs = {"where": where, "who": random.integers(1, 4, (steps, rows), np.int32)}

    def play(agent, obs):
        state = agent.init(KEY)
        params = jax.tree.map(lambda leaf: jax.random.normal(KEY, leaf.shape), state.params)
        keys = jax.random.split(KEY, steps)
        acted = jax.vmap(lambda obs, key: agent.act(params, (), obs, jnp.zeros(rows, bool), key))(obs, keys)
        greedy = agent.act(
            params, (), jax.tree.map(lambda leaf: leaf[0], obs), jnp.zeros(rows, bool), KEY, explore=False
        )
        return state._replace(params=params), acted, greedy[0]

    state, (action, carry, extras), greedy = jax.jit(play, compiler_options=QUICK)(agent, obs)
    assert carry == ()
    assert jax.tree.map(np.shape, action) == jax.tree.map(np.shape, zeros(space, (steps, rows)))
    assert jax.tree.map(np.shape, greedy) == jax.tree.map(np.shape, zeros(space, (rows,)))
    assert all(len(np.unique(leaf)) > 1 for leaf in jax.tree.leaves(action))
    flags = np.zeros((steps, rows), bool)
    batch = transitions(obs, obs, random.normal(size=(steps, rows)), flags, flags, action=action, extras=extras)
    _, metrics = update(agent, state, batch)
    assert metrics["kl"] == pytest.approx(0, abs=1e-5)
    assert metrics["policy_loss"] == pytest.approx(0, abs=1e-5), "ratios of 1 leave the mean advantage, which is 0"
    assert all(np.isfinite(value) for value in metrics.values())


def test_actions_without_a_distribution_are_refused_when_the_spaces_become_known():
    with pytest.raises(ValueError, match=r"no distribution over actions\[0\] of OneOf\(.*there is one for Discrete"):
        PPO().bind(Spec(OBS, Tuple((OneOf((Discrete(2),)),))))


# Through the compiled loop ----------------------------------------------------------------------------------------

CHAIN = 3


class ChainState(NamedTuple):
    step: jax.Array


@hyper
class Chain(Env):
    """Three states in a row, a reward of 1 in each; the third step ends the episode in one of the two ways."""

    terminates: float = 1.0

    observation_space = Discrete(CHAIN)
    action_space = Discrete(2)

    def reset(self, key):
        return ChainState(jnp.int32(0)), jnp.int32(0)

    def step(self, state, action, key):
        step = state.step + 1
        over = step >= CHAIN
        # Where the last step leads looks like the first state: what follows a cut is more of the same.
        flags = over & (self.terminates > 0), over & (self.terminates <= 0)
        return ChainState(step), Step(step % CHAIN, jnp.float32(1), *flags, {})


@functools.partial(jax.jit, compiler_options=QUICK)
def train_on_chain(agent, env):
    run = init_run(agent, env, 4, KEY_DATA, 16)
    return iterate_many(agent, env, 16, 60, jnp.float32(60 * 16 * 4), run)


@pytest.mark.parametrize(
    ("terminates", "values"),
    [(1.0, [1 + 0.9 + 0.81, 1 + 0.9, 1]), (0.0, [10, 10, 10])],
    ids=["terminated: the finite sum", "truncated: 1 / (1 - gamma)"],
)
def test_values_know_what_an_ending_means(terminates, values):
    lr = Schedule((0.0, 1.0), (0.3, 0.003))
    agent = PPO(model=Table(), gamma=0.9, lr=lr, grad_clip=None, num_epochs=4, minibatch_size=32)
    env = Chain(terminates)
    run, report = train_on_chain(agent.bind(Spec(env.observation_space, env.action_space)), env)
    np.testing.assert_allclose(run.state.params["network"]["value"][:, 0], values, rtol=0.01)
    assert (report.episodes.length[report.episodes.done] == CHAIN).all()


class RecallState(NamedTuple):
    cue: jax.Array
    step: jax.Array


@hyper
class Recall(Env):
    """Shows a cue at the first of four steps and asks for it at the last: 1 for the right answer."""

    observation_space = Box(-1, 1, (2,))
    action_space = Discrete(2)

    def reset(self, key):
        cue = jax.random.randint(key, (), 0, 2)
        return RecallState(cue, jnp.int32(0)), jnp.stack([2.0 * cue - 1.0, 0.0])

    def step(self, state, action, key):
        step = state.step + 1
        over = step >= 4
        reward = jnp.where(over & (action == state.cue), 1.0, 0.0)
        obs = jnp.stack([0.0, 1.0 * (step == 3)])
        return RecallState(state.cue, step), Step(obs, reward, over, jnp.asarray(False), {})


@pytest.fixture(scope="module")
def train_to_recall():
    env = Recall()
    agent = PPO(model=GRU(8, ()), gamma=0.9, num_epochs=4, minibatch_size=64, max_seq_len=8, grad_clip=None)
    agent = agent.bind(Spec(env.observation_space, env.action_space))

    @functools.partial(jax.jit, compiler_options=QUICK)
    def train(agent, env):
        run = init_run(agent, env, 16, KEY_DATA, 16)
        return iterate_many(agent, env, 16, 25, jnp.float32(1.0), run)

    return lambda lr: jax.device_get(train(dataclasses.replace(agent, lr=lr), env))


def test_a_recurrent_network_sees_in_the_update_what_it_saw_when_it_acted(train_to_recall):
    """Sequences are cut in the middle of episodes, hold endings, and are shuffled: outputs must still be the same."""
    run, report = train_to_recall(0.0)
    kl = report.metrics.values[:, report.metrics.names.index("kl")]
    np.testing.assert_allclose(kl, 0, atol=1e-6)
    assert np.abs(jax.tree.leaves(run.rows.carry)[0]).max() > 0, "iterations begin with memories"


def test_a_recurrent_network_learns_to_remember(train_to_recall):
    _, report = train_to_recall(1e-2)
    right = [report.episodes.return_[part][report.episodes.done[part]].mean() for part in (slice(2), slice(-5, None))]
    assert right[0] < 0.7, "at first it guesses"
    assert right[1] > 0.95
