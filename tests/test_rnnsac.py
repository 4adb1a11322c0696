"""RNNSAC by hand: it is SAC where there is nothing to remember, and on sequences it remembers rightly."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import KEY, QUICK, Table, steps_since_first

from athlete.algorithms.rnnsac import RNNSAC, RNNSACConfig
from athlete.algorithms.sac import SAC
from athlete.core import ActingCarry, Model, Spec, Transition, hyper
from athlete.exploration import GaussianNoise, OrnsteinUhlenbeckNoise
from athlete.memory.replay import Replay
from athlete.models.attention import GTrXL
from athlete.models.mlp import MLP
from athlete.models.recurrent import GRU, LSTM
from athlete.ops.temperature import temperature_init
from athlete.spaces import ACTION_MASK, Box, Dict, Discrete, MultiBinary

STATES = Box(0, 1, (3,))
DISCRETE, CONTINUOUS = Spec(STATES, Discrete(2)), Spec(STATES, Box(-1, 1, (2,)))
NOTHING = 1e-6  # a temperature at which entropy does not count


@functools.partial(jax.jit, compiler_options=QUICK)
def update(agent, state, batch):
    return agent.update(state, batch, KEY, jnp.zeros(()))


def sequences(spec, length, rows, seed=0, **changes):
    """Random steps `[length, rows]` without endings."""
    random = np.random.default_rng(seed)
    obs, next_obs = random.random((2, length, rows, 3)).astype(np.float32)
    discrete = isinstance(spec.action, Discrete)
    action = random.integers(0, 2, (length, rows)) if discrete else random.uniform(-1, 1, (length, rows, 2))
    action = action.astype(np.int32 if discrete else np.float32)
    never, reward = np.zeros((length, rows), bool), random.random((length, rows)).astype(np.float32)
    return Transition(obs, never, action, reward, next_obs, never, never, (), {})._replace(**changes)


# Where there is nothing to remember it is SAC ---------------------------------------------------------------------


@pytest.mark.parametrize(("spec", "n_step"), [(DISCRETE, 2), (CONTINUOUS, 1)], ids=["discrete", "continuous"])
def test_without_memory_and_on_single_steps_it_is_sac(spec, n_step):
    """With critics that stand still: SAC's actor climbs those of after the update, RNNSAC's those of before it."""
    settings = {
        "critic_lr": 0.0,
        "policy_model": MLP((8,)),
        "q_model": MLP((8,)),
        "gamma": 0.9,
        "n_step": n_step,
        "initial_alpha": 0.3,
    }
    ended = {"terminated": np.array([[0, 1, 0, 0], [0, 0, 0, 1]], bool), "truncated": np.eye(2, 4, dtype=bool)}
    weight = {"weight": np.array([[1.0, 0.5, 0.25, 1.0]], np.float32)}
    batch = sequences(spec, n_step, 4, extras=weight, **{name: flag[-n_step:] for name, flag in ended.items()})
    plain, recurrent = SAC(**settings).bind(spec), RNNSAC(**settings).bind(spec)
    expected, found = (update(agent, agent.init(KEY), batch) for agent in (plain, recurrent))
    for name, value in expected[1].items():
        assert name in found[1], name
        if n_step == 1 or name not in ("actor_loss", "entropy"):  # of the first step there, of both here
            np.testing.assert_allclose(found[1][name], value, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def test_without_memory_the_actor_learns_what_sacs_does(spec):
    settings = {"critic_lr": 0.0, "actor_lr": 0.1, "policy_model": MLP((8,)), "q_model": MLP((8,))}
    batch = sequences(spec, 1, 4)
    plain, recurrent = SAC(**settings).bind(spec), RNNSAC(**settings).bind(spec)
    (expected, told), (found, measured) = (update(a, a.init(KEY), batch) for a in (plain, recurrent))
    assert measured["actor_loss"] == pytest.approx(float(told["actor_loss"]), rel=1e-4)
    for a, b in zip(jax.tree.leaves(found.actor), jax.tree.leaves(expected.actor), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)  # Adam's first step is 0.1 of the gradient's sign
    assert not np.allclose(found.actor["heads"]["policy"]["kernel"], plain.init(KEY).actor["heads"]["policy"]["kernel"])


# Along sequences --------------------------------------------------------------------------------------------------


@hyper
class Steps(Model):
    """Its carry counts the steps since `first`, this one included. Every output is the count, times a parameter."""

    def init(self, key, obs_space, heads):
        return {name: jnp.ones(outputs) for name, (outputs, _) in heads.items()}

    def start(self, rows):
        return jnp.zeros(rows)

    def apply(self, params, carry, obs, first):
        counts = steps_since_first(carry, first)
        return counts, {name: scale * counts[..., None] for name, scale in params.items()}


def counting(spec, **settings):
    """An agent whose actor tells nothing and whose critics count."""
    plain = {"gamma": 0.5, "twin_q": False, "critic_lr": 0.0, "actor_lr": 0.0, "q_model": Steps()}
    agent = RNNSAC(policy_model=Table(), **(plain | settings)).bind(spec)
    state = agent.init(KEY)._replace(temperature=temperature_init(NOTHING))
    return agent, state


@pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def test_targets_follow_from_what_is_remembered_after_each_step_across_both_endings(spec):
    """Behind a burn-in of two steps, 3 and 4 of an episode, cut there; then 1 and 2, terminated there; then 1.

    They lead to 4, 5 (which counts), 2, 3 (which does not) and 2.
    """
    batch = sequences(
        spec,
        7,
        1,
        reward=np.zeros((7, 1), np.float32),
        first=np.array([[0], [0], [0], [0], [1], [0], [1]], bool),
        truncated=np.array([[0], [0], [0], [1], [0], [0], [0]], bool),
        terminated=np.array([[0], [0], [0], [0], [0], [1], [0]], bool),
    )
    agent, state = counting(spec, burn_in=2, max_seq_len=5)
    _, metrics = update(agent, state, batch)
    error = np.array([3 - 0.5 * 4, 4 - 0.5 * 5, 1 - 0.5 * 2, 2, 1 - 0.5 * 2])
    assert metrics["critic_loss"] == pytest.approx(0.5 * np.mean(error**2), rel=1e-4)
    assert metrics["mean_q"] == pytest.approx((3 + 4 + 1 + 2 + 1) / 5)
    np.testing.assert_allclose(metrics["td_error"], [0.9 * 2 + 0.1 * np.mean(np.abs(error))], rtol=1e-4)
    # What the actor climbs is the value of the same histories; an action only considered is no step of its own.
    assert metrics["actor_loss"] == pytest.approx(-(3 + 4 + 1 + 2 + 1) / 5, rel=1e-4)


def test_n_step_targets_stop_with_the_episode_inside_a_sequence():
    cut = np.array([[0], [0], [1], [0], [0]], bool)
    batch = sequences(DISCRETE, 5, 1, reward=np.ones((5, 1), np.float32), truncated=cut, first=np.roll(cut, 1, axis=0))
    agent, state = counting(DISCRETE, n_step=2, max_seq_len=4)
    _, metrics = update(agent, state, batch)
    target = [1.5 + 0.25 * 3, 1.5 + 0.25 * 4, 1 + 0.5 * 4, 1.5 + 0.25 * 3]  # two steps but for the third, which is cut
    error = np.array([1, 2, 3, 1]) - target
    assert metrics["critic_loss"] == pytest.approx(0.5 * np.mean(error**2), rel=1e-4)


def test_a_critics_memory_holds_the_actions_taken_and_not_those_considered():
    """Another action taken before changes what a critic says of a step; where the actor would go does not."""
    agent = RNNSAC(policy_model=GRU(4, ()), q_model=GRU(4, ()), max_seq_len=3).bind(CONTINUOUS)
    state = jax.jit(agent.init)(KEY)
    batch = sequences(CONTINUOUS, 3, 1)
    values = jax.jit(lambda critics, batch: agent._unroll_critics(critics, batch)[1])
    other = batch._replace(action=np.concatenate([-batch.action[:1], batch.action[1:]]))
    before, after = (np.asarray(values(state.critics, each))[0, :, 0] for each in (batch, other))
    assert not np.isclose(before[2], after[2], atol=1e-6)


def test_losses_reach_the_networks_they_are_of_and_no_other():
    agent = RNNSAC(policy_model=GRU(4, ()), q_model=GRU(4, ()), max_seq_len=3).bind(CONTINUOUS)
    state, batch = jax.jit(agent.init)(KEY), sequences(CONTINUOUS, 3, 2)

    def loss(name, networks):
        return agent._losses(*networks, state.targets, batch, jnp.float32(0.1), KEY)[1][name]

    networks = (state.actor, state.critics)
    for name, own in (("actor_loss", 0), ("critic_loss", 1)):
        gradients = jax.jit(jax.grad(functools.partial(loss, name)))(networks)
        sizes = [sum(float(jnp.sum(jnp.abs(leaf))) for leaf in jax.tree.leaves(part)) for part in gradients]
        assert sizes[own] > 0 and sizes[1 - own] == 0, name


def test_the_actor_starts_from_the_stored_state_or_from_none():
    stored = ActingCarry(np.array([[5.0], [9.0], [9.0]], np.float32), ())
    batch = sequences(DISCRETE, 3, 1, carry=stored)
    for zero_init_states, expected in ((False, [6, 7, 8]), (True, [1, 2, 3])):
        agent = RNNSAC(policy_model=Steps(), q_model=Table(), max_seq_len=3, zero_init_states=zero_init_states)
        agent = agent.bind(DISCRETE)
        _, outputs = agent._unroll_actor(agent.init(KEY).actor, batch)
        np.testing.assert_array_equal(outputs[:, 0, 0], expected)


# Acting -----------------------------------------------------------------------------------------------------------


def test_only_legal_actions_are_taken_and_the_entropy_aimed_at_is_theirs():
    spec = Spec(Dict({ACTION_MASK: MultiBinary(2), "state": STATES}), Discrete(2))
    agent = RNNSAC(policy_model=GRU(4, ()), q_model=GRU(4, ()), max_seq_len=2).bind(spec)
    state, rows = jax.jit(agent.init)(KEY), 200
    view, first = agent.view(state, 0.0), np.ones(rows, bool)
    obs = {ACTION_MASK: np.tile(np.array([[0, 1]], np.int8), (rows, 1)), "state": np.zeros((rows, 3), np.float32)}
    for explore in (True, False):
        assert (agent.act(view, agent.start(view, rows, KEY), obs, first, KEY, explore)[0] == 1).all()
    batch = sequences(DISCRETE, 2, 3)
    mask = np.broadcast_to(np.array([0, 1], np.int8), (2, 3, 2))
    seen = [{ACTION_MASK: mask, "state": part} for part in (batch.obs, batch.next_obs)]
    _, metrics = update(agent, state, batch._replace(obs=seen[0], next_obs=seen[1]))
    assert (metrics["entropy"], metrics["target_entropy"]) == (pytest.approx(0), pytest.approx(0))


# Configuration ----------------------------------------------------------------------------------------------------


def test_settings_reach_the_agent_and_its_memory():
    config = (
        RNNSACConfig()
        .environment("Pendulum-v1")
        .training(
            model={"use_attention": True, "attention_dim": 8, "max_seq_len": 10, "fcnet_hiddens": [4]},
            q_model_config={"attention_dim": 12},
            train_batch_size=45,
            burn_in=3,
            n_step=2,
            optimization={"actor_learning_rate": 0.5},
        )
    )
    agent = config.make_agent(CONTINUOUS)
    assert agent.policy_model == GTrXL(dim=8, hiddens=(4,))
    assert agent.q_model == GTrXL(dim=12, hiddens=(4,))
    assert agent.memory == Replay(capacity=100_000, batch_size=40, window=3 + 10 + 1, unroll=1, sequence=10)
    assert (agent.actor_lr, agent.burn_in, agent.max_seq_len) == (0.5, 3, 10)
    assert config.training(zero_init_states=False).make_agent(CONTINUOUS).memory.keep_carry


def test_it_has_memory_by_default():
    config = RNNSACConfig().environment("Pendulum-v1")
    config.validate()
    agent = config.make_agent(CONTINUOUS)
    assert agent.policy_model == agent.q_model == LSTM(256, (64, 64))
    assert (agent.burn_in, agent.max_seq_len) == (8, 16)


def test_another_memory_of_one_network_takes_the_place_of_the_defaults():
    agent = RNNSACConfig().training(policy_model_config={"use_gru": True}).make_agent(CONTINUOUS)
    assert isinstance(agent.policy_model, GRU) and isinstance(agent.q_model, LSTM)


def test_networks_and_noise_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"RNNSAC: q_model has no memory \(MLP\).*'use_lstm': True"):
        RNNSACConfig().environment("Pendulum-v1").training(q_model_config={"use_lstm": False}).build()
    with pytest.raises(ValueError, match=r"GaussianNoise is noise on continuous actions, and these are Discrete"):
        RNNSAC(exploration=GaussianNoise()).bind(DISCRETE)
    with pytest.raises(ValueError, match=r"RNNSAC serves Box .* and Discrete action spaces, and this one is Box"):
        RNNSAC().bind(Spec(STATES, Box(-np.inf, np.inf, (1,))))


# Training ---------------------------------------------------------------------------------------------------------


def test_a_trained_policy_is_used_by_hand_with_its_state():
    config = (
        RNNSACConfig()
        .environment("Pendulum-v1")
        .training(
            model={"lstm_cell_size": 8, "fcnet_hiddens": [8], "max_seq_len": 4},
            train_batch_size=16,
            num_steps_sampled_before_learning_starts=32,
            zero_init_states=False,
        )
    )
    config.exploration(exploration_config={"type": "OrnsteinUhlenbeckNoise", "random_timesteps": 10})
    with config.reporting(min_sample_timesteps_per_iteration=16).debugging(seed=0).build() as algo:
        assert isinstance(algo.agent.exploration, OrnsteinUhlenbeckNoise)
        assert np.isfinite(algo.train()["info"]["learner"]["default_policy"]["learner_stats"]["critic_loss"])
        state = algo.get_policy().get_initial_state()
        _, after, _ = algo.compute_single_action(np.zeros(3, np.float32), state)
        assert not np.array_equal(after.model.hidden, state.model.hidden)
        with pytest.raises(ValueError, match="this network has memory and would lose it"):
            algo.compute_single_action(np.zeros(3, np.float32))
