"""PQN by hand: targets across both endings, the loss, the update, what it refuses, a chain of known values."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from modes import CARTPOLE, assert_modes_are_equal
from tables import Table, steps_since_first

from athlete.algorithms.pqn import PQN, Batch, PQNConfig, PQNState
from athlete.core import Env, Model, Spec, Step, Transition, hyper
from athlete.exploration import EpsilonGreedy, SoftQ
from athlete.loops.learn import init_run, iterate_many
from athlete.models.attention import GTrXL
from athlete.models.mlp import MLP
from athlete.models.recurrent import GRU, LSTM
from athlete.ops.gradient import adam_init
from athlete.ops.random import wrap
from athlete.ops.schedule import Schedule
from athlete.spaces import Box, Discrete

QUICK = {"xla_backend_optimization_level": 0}  # tiny programs: compiling is all they cost
KEY = wrap(np.array([0, 1], np.uint32))
SPEC = Spec(Box(0, 1, (3,)), Discrete(2))  # three states, one-hot

# Q(state, action); the best values of the three states are 2, 4 and 8.
TABLE = np.array([[1, 2], [4, 3], [-8, 8]], np.float32)


def agent_of(**settings):
    return PQN(**{"model": Table(), "gamma": 0.5, "lambda_": 0.5, **settings}).bind(SPEC)


def transitions(states, next_states, action, reward, terminated, truncated, **changes):
    """One row `[T, 1]` through the numbered states."""
    column = [np.array(part)[:, None] for part in (action, reward, terminated, truncated)]
    never = np.zeros((len(states), 1), bool)
    obs, next_obs = (np.eye(3, dtype=np.float32)[np.array(part)][:, None] for part in (states, next_states))
    batch = Transition(obs, never, column[0], column[1].astype(np.float32), next_obs, *column[2:], (), ())
    return batch._replace(**changes)


# Targets ----------------------------------------------------------------------------------------------------------


def test_targets_are_lambda_returns_of_the_best_next_values_right_for_both_endings():
    """Five steps: one on its way to a truncation, the truncation, one on its way to a termination, that, a last one."""
    batch = transitions(
        states=[0, 1, 0, 1, 0],
        next_states=[1, 2, 1, 2, 1],
        action=[0, 0, 1, 1, 0],
        reward=[1, 2, 3, 4, 5],
        terminated=[False, False, False, True, False],
        truncated=[False, True, False, False, False],
    )
    found = jax.jit(agent_of()._prepare)({"q": TABLE}, batch)
    truncated, terminated, last = 2 + 0.5 * 8, 4, 5 + 0.5 * 4
    expected = [
        1 + 0.5 * (0.5 * 4 + 0.5 * truncated),
        truncated,
        3 + 0.5 * (0.5 * 4 + 0.5 * terminated),
        terminated,
        last,
    ]
    np.testing.assert_allclose(found.target[0], expected, rtol=1e-6)


@hyper
class Steps(Model):
    """Its carry counts the steps since `first`, this one included, and its best value is that count."""

    def start(self, rows):
        return jnp.zeros(rows)

    def apply(self, params, carry, obs, first):
        counts = steps_since_first(carry, first)
        return counts, {"q": jnp.stack([counts - 1.0, counts], axis=-1)}


@pytest.mark.parametrize("max_seq_len", [1, 2, 4])
def test_the_bootstrap_of_a_recurrent_value_uses_the_state_after_the_step(max_seq_len):
    """5 steps into an episode; cut after the second step, terminated after the fourth. It leads to 7, 8 | 2, (3)."""
    batch = transitions(
        [0] * 4,
        [0] * 4,
        [0] * 4,
        [1, 2, 3, 4],
        terminated=[False, False, False, True],
        truncated=[False, True, False, False],
        first=np.array([[False], [False], [True], [False]]),
        carry=np.array([[5], [6], [7], [1]], np.float32),
    )
    found = jax.jit(agent_of(model=Steps(), max_seq_len=max_seq_len)._prepare)({}, batch)
    truncated = 2 + 0.5 * 8
    expected = [1 + 0.5 * (0.5 * 7 + 0.5 * truncated), truncated, 3 + 0.5 * (0.5 * 2 + 0.5 * 4), 4]
    np.testing.assert_allclose(np.asarray(found.target).T.ravel(), expected, rtol=1e-6)
    np.testing.assert_array_equal(found.carry, [5, 6, 7, 1][::max_seq_len])


# Loss and update --------------------------------------------------------------------------------------------------


def test_the_loss_is_half_the_squared_error_of_the_actions_taken_and_touches_no_other():
    states = np.eye(3, dtype=np.float32)[None]
    batch = Batch(states, np.zeros((1, 3), bool), (), np.array([[0, 1, 1]]), np.array([[3, 3, 5]], np.float32))
    # Values 1, 3 and 8 for targets of 3, 3 and 5: errors -2, 0 and 3.
    gradient, (loss, mean_q, mean_error) = jax.jit(jax.grad(agent_of()._loss, has_aux=True))({"q": TABLE}, batch)
    assert loss == pytest.approx((4 + 0 + 9) / 6)
    assert (mean_q, mean_error) == (pytest.approx(4.0), pytest.approx(1 / 3))
    np.testing.assert_allclose(gradient["q"], [[-2 / 3, 0], [0, 0], [0, 1]], rtol=1e-6)


@pytest.mark.parametrize(("minibatch_size", "used"), [(4, 12), (5, 10), (100, 12)])
def test_an_epoch_uses_each_sample_once_and_leaves_out_only_a_remainder(minibatch_size, used):
    """With gamma 0 and values of 0 the squared error of sample i is 2**i: their sum tells who was in it."""
    number, over = np.zeros(12, int), np.zeros(12, bool)
    batch = transitions(number, number, number, np.sqrt(2.0 ** np.arange(12)), over, over)
    agent = agent_of(gamma=0.0, lr=0.0, num_epochs=1, minibatch_size=minibatch_size)
    _, metrics = jax.jit(agent.update, compiler_options=QUICK)(agent.init(KEY), batch, KEY, 0.0)
    total = 2 * float(metrics["loss"]) * used
    assert total == pytest.approx(round(total), rel=1e-5)
    assert round(total).bit_count() == used


def test_an_update_moves_the_values_of_actions_taken_to_targets_that_stay_as_they_were():
    """A loop of one state, reward 1: the target is 1 + .5 * 2 = 2 through all epochs, never that of the new values."""
    never = np.zeros(8, bool)
    batch = transitions(never * 0, never * 0, never * 0, never + 1.0, never, never)
    agent = agent_of(lr=Schedule((0.0, 1.0), (0.1, 0.0)), lambda_=0.0, num_epochs=200, minibatch_size=8)
    state = PQNState({"q": jnp.array(TABLE)}, adam_init({"q": TABLE}))
    moved, metrics = jax.jit(agent.update)(state, batch, KEY, 0.5)
    np.testing.assert_allclose(moved.params["q"], TABLE + np.array([[1, 0], [0, 0], [0, 0]]), atol=1e-3)
    assert metrics["cur_lr"] == pytest.approx(0.05)
    assert int(moved.optimizer.count) == 200
    still, _ = jax.jit(agent.update)(state, batch, KEY, 1.0)
    np.testing.assert_array_equal(still.params["q"], TABLE)


# Acting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exploration", "share"),
    [(EpsilonGreedy(0.0), 1.0), (EpsilonGreedy(0.5), 0.75), (SoftQ(1.0), 1 / (1 + np.exp(-1)))],
)
def test_it_explores_by_type_and_is_greedy_without(exploration, share):
    agent, rows = agent_of(exploration=exploration), 4000
    view = agent.view(PQNState({"q": TABLE}, ()), jnp.float32(0.0))
    obs = np.broadcast_to(np.eye(3, dtype=np.float32)[0], (rows, 3))  # values 1 and 2
    act = jax.jit(agent.act, static_argnames="explore")
    action, carry, extras = act(view, (), obs, np.zeros(rows, bool), KEY)
    assert np.asarray(action).mean() == pytest.approx(share, abs=0.03)
    assert (carry, extras) == ((), {})
    assert (act(view, (), obs, np.zeros(rows, bool), KEY, explore=False)[0] == 1).all()


def test_the_level_of_exploration_follows_its_schedule():
    agent = agent_of(exploration=EpsilonGreedy(Schedule((0.0, 0.5), (1.0, 0.2))))
    assert agent.view(agent.init(KEY), jnp.float32(0.25)).rate == pytest.approx(0.6)


# Configuration ----------------------------------------------------------------------------------------------------


def test_other_action_spaces_are_refused_with_who_serves_them():
    with pytest.raises(ValueError, match=r"PQN serves Discrete action spaces, and this one is Box"):
        PQN().bind(Spec(Box(-1, 1, (3,)), Box(-1, 1, (2,))))


def test_settings_reach_the_agent():
    config = PQNConfig().training(lambda_=0.8, model={"fcnet_hiddens": [7]}).environment(normalize_rewards=False)
    config.exploration(exploration_config={"initial_epsilon": 0.9, "final_epsilon": 0.1, "epsilon_timesteps": 1000})
    agent = config.make_agent(SPEC)
    assert isinstance(agent, PQN)
    assert agent.lambda_ == 0.8
    assert agent.model == MLP((7,), "relu", layer_norm=True), "the paper's normalisation unless it is turned off"
    assert agent.exploration == EpsilonGreedy(Schedule((0.0, 1.0), (0.9, 0.1)))
    assert config.horizon() == 1000
    with pytest.raises(ValueError, match=r"PQN: .*random_timesteps=5.*learns from its first step on"):
        config.copy().exploration(exploration_config={"random_timesteps": 5}).make_agent(SPEC)
    plain = config.training(model={"use_layer_norm": False}).make_agent(SPEC)
    assert plain.model == MLP((7,), "relu")


def test_what_cannot_be_is_an_error_at_the_call():
    with pytest.raises(ValueError, match=r"'GaussianNoise'.*PQN explores with EpsilonGreedy, SoftQ"):
        PQNConfig().exploration(exploration_config={"type": "GaussianNoise"})
    with pytest.raises(ValueError, match=r"PQN has no 'replay_buffer_config'"):
        PQNConfig().training(replay_buffer_config={"capacity": 100})
    with pytest.raises(ValueError, match=r"expected a number between 0 and 1"):
        PQNConfig().training(lambda_=1.5)


# Training ---------------------------------------------------------------------------------------------------------

MODELS = {
    "feed-forward": {"model": MLP((8,), "relu", layer_norm=True)},
    "GRU": {"model": GRU(8, (), "relu", layer_norm=True), "max_seq_len": 4},
    "LSTM": {"model": LSTM(8, (), "relu", layer_norm=True), "max_seq_len": 4},
    "GTrXL": {"model": GTrXL(dim=8, head_dim=8, memory=4), "max_seq_len": 4},
}


@pytest.mark.thorough
@pytest.mark.parametrize("model", MODELS)
def test_iterations_are_the_same_compiled_and_hosted(model):
    exploration = EpsilonGreedy(Schedule((0.0, 0.5), (1.0, 0.1)))
    # Some biases of attention have a gradient of rounding alone, which Adam with a small epsilon makes steps of.
    settings = {"lr": 1e-2, "minibatch_size": 16, "num_epochs": 2, "adam_epsilon": 1e-3}
    agent = PQN(exploration=exploration, **settings, **MODELS[model])
    assert_modes_are_equal(CARTPOLE, agent, rows=4, length=8)


@hyper
class Chain(Env):
    """Four states in a row. Right leads on, and out of the last one with a reward of 1; left ends with 0.05."""

    @property
    def observation_space(self):
        return Discrete(4)

    @property
    def action_space(self):
        return Discrete(2)

    def reset(self, key):
        return jnp.int32(0), jnp.int32(0)

    def step(self, state, action, key):
        out = (action == 1) & (state == 3)
        following = jnp.minimum(state + 1, 3)
        reward = jnp.where(action == 0, 0.05, jnp.where(out, 1.0, 0.0))
        return following, Step(following, reward, (action == 0) | out, jnp.asarray(False), {})


def test_it_learns_the_values_of_a_chain():
    """Right is best everywhere, and taken in 3 of 4 steps: the fixed point of Q(lambda) lies between both policies'.

    Q(s, right) = gamma ((1 - lambda) max Q(s + 1) + lambda mean Q(s + 1)), with the mean over what it does.
    """
    env, left, right = Chain(), 0.05, [1.0]
    for _ in range(3):
        right.append(0.5 * (0.5 * right[-1] + 0.5 * (0.75 * right[-1] + 0.25 * left)))
    agent = PQN(
        lr=Schedule((0.3, 1.0), (0.05, 0.0)),
        gamma=0.5,
        lambda_=0.5,
        minibatch_size=64,
        num_epochs=2,
        exploration=EpsilonGreedy(0.5),
        model=Table(),
    ).bind(Spec(env.observation_space, env.action_space))
    run, iterations = init_run(agent, env, 16, np.array([0, 1], np.uint32), 16), 80
    train = jax.jit(iterate_many, static_argnames=("length", "iterations"), compiler_options=QUICK)
    run, report = train(agent, env, 16, iterations, iterations * 16 * 16.0, run)
    np.testing.assert_allclose(run.state.params["q"], np.stack([np.full(4, left), right[::-1]], axis=1), atol=0.02)
    assert report.metrics.values.shape == (iterations, len(report.metrics.names))
