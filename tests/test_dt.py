"""Decision Transformer: what a step sees, what is asked for while acting, and learning what a return was had by."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from modes import assert_resumes

from athlete import Policy
from athlete.algorithms.bc import BCConfig
from athlete.algorithms.dt import DT, Data, DTConfig, visible_tokens
from athlete.core import Spec, Transition
from athlete.memory.ring import ring_take
from athlete.offline.columns import from_columns
from athlete.offline.files import write_data
from athlete.ops.random import wrap
from athlete.spaces import Box, Discrete, Tuple
from athlete.tuned_examples.experiment_file import experiment_of

KEY = wrap(np.array([0, 1], np.uint32))
REWARD = Box(-np.inf, np.inf, (1,))
SPEC = Spec(Tuple((Box(-9, 9, (2,)), REWARD)), Discrete(3))
SIZE = {"embed_dim": 8, "num_layers": 2, "num_heads": 2, "max_seq_len": 4}
QUICK = {"train_batch_size": 40, "min_sample_timesteps_per_iteration": 400, "target_return": 5.0, "embed_dim": 8}


def data(seed=0, steps=400, length=10):
    """Episodes in which action 1 is done throughout, which is worth something, or action 0, which is not."""
    random = np.random.default_rng(seed)
    good = np.repeat(random.integers(2, size=steps // length), length)
    return {
        "obs": random.normal(size=(steps, 2)).astype(np.float32),
        "new_obs": random.normal(size=(steps, 2)).astype(np.float32),
        "actions": good,
        "rewards": good.astype(np.float32),
        "terminateds": np.arange(1, steps + 1) % length == 0,
        "truncateds": np.zeros(steps, bool),
    }


def config(columns=None, **settings):
    given = data() if columns is None else columns
    return DTConfig().offline_data(input_=given).update_from_dict({**QUICK, "seed": 0, **settings})


def test_a_token_sees_those_before_it_in_its_own_episode():
    seen = np.asarray(visible_tokens(jnp.array([[7, 8, 0, 1]]), 3))[0]
    step = np.repeat(np.arange(4), 3)
    for i in range(12):
        for j in range(12):
            assert seen[i, j] == (j <= i and (step[i] < 2) == (step[j] < 2)), (i, j)


def test_of_steps_that_never_were_nothing_is_seen():
    """At the start of an episode a memory holds nothing, or the episode before, at its second step the first."""
    for times, there in (([-1, -1, -1, 0], 1), ([-1, -1, 0, 1], 2), ([-1, 0, 1, 2], 3), ([5, 6, 7, 0], 1)):
        seen = np.asarray(visible_tokens(jnp.array([times]), 1))[0]
        assert seen[3].tolist() == [False] * (4 - there) + [True] * there


def test_what_is_done_at_a_step_hangs_on_nothing_later():
    agent = DT(**SIZE, target_return=2.0).bind(SPEC)
    view = agent.view(agent.init(KEY), 0.0)
    random = np.random.default_rng(0)
    context = agent.start(view, 1, KEY)
    context = context._replace(
        obs=random.normal(size=context.obs.shape),
        return_to_go=random.normal(size=(1, 4)),
        time=jnp.arange(4)[None],
        action=jax.nn.one_hot(random.integers(3, size=(1, 4)), 3),
    )
    before = agent._outputs(view.params, context)
    other_action = context._replace(action=context.action.at[:, 2].set(jnp.array([9.0, 0.0, 9.0])))
    other_obs = context._replace(obs=jnp.asarray(context.obs).at[:, 2].set(5.0))
    np.testing.assert_allclose(agent._outputs(view.params, other_action)[:, :3], before[:, :3], rtol=1e-6)
    assert not np.allclose(agent._outputs(view.params, other_action)[:, 3], before[:, 3])
    np.testing.assert_allclose(agent._outputs(view.params, other_obs)[:, :2], before[:, :2], rtol=1e-6)
    assert not np.allclose(agent._outputs(view.params, other_obs)[:, 2], before[:, 2])


@pytest.mark.parametrize("action", [Discrete(3), Box(-1.0, 1.0, (2,))], ids=["discrete", "continuous"])
def test_acting_sees_what_learning_does(action):
    """Step by step, over an end, the outputs are those of the whole window: a memory holds what was recorded."""
    spec = Spec(SPEC.obs, action)
    agent = DT(**SIZE, target_return=3.0, gamma=0.9).bind(spec)
    known = Data(jnp.array([0.1, 0.2]), jnp.array([2.0, 0.5]), jnp.float32(4.0))
    state = agent.init(KEY)._replace(data=known)
    view, random = agent.view(state, 0.0), np.random.default_rng(1)
    act = jax.jit(functools.partial(agent.act, explore=False))
    first = np.array([True, False, True, False, False])
    obs, reward = random.normal(size=(5, 2)).astype(np.float32), random.normal(size=5).astype(np.float32)
    reward[first] = 0.0
    carry, outputs, contexts = agent.start(view, 1, KEY), [], []
    for t in range(5):
        _, carry, _ = act(view, carry, (obs[t][None], reward[t][None, None]), first[t][None], KEY)
        contexts.append(carry)
        outputs.append(np.asarray(agent._outputs(view.params, carry))[0, -1])
    asked = [3.0, (3.0 - reward[1]) / 0.9, 3.0, (3.0 - reward[3]) / 0.9]
    asked.append((asked[-1] - reward[4]) / 0.9)
    np.testing.assert_allclose(4.0 * contexts[-1].return_to_go[0], asked[1:], rtol=1e-5)
    assert contexts[-1].time[0].tolist() == [1, 0, 1, 2]
    last = contexts[-1]
    whole = agent._outputs(view.params, last)[0]
    np.testing.assert_allclose(whole[1], outputs[2], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(whole[3], outputs[4], rtol=1e-5, atol=1e-6)
    expected = jax.nn.one_hot(jnp.argmax(whole, axis=-1), 3) if isinstance(action, Discrete) else jnp.tanh(whole)
    np.testing.assert_allclose(last.action[0, 1:], expected[1:], rtol=1e-5, atol=1e-6)


def test_observations_are_standardised_by_the_data():
    agent = DT(**SIZE, target_return=1.0).bind(SPEC)
    obs = np.random.default_rng(0).normal(3.0, 2.0, size=(50, 1, 2)).astype(np.float32)
    reward, first = np.full((50, 1), -1.0, np.float32), np.arange(50)[:, None] % 20 == 0
    steps = Transition((obs, obs[..., :1]), first, None, reward, None, None, None, (), {})
    state, _ = agent.observe(agent.init(KEY), agent.accumulators(1), steps)
    np.testing.assert_allclose(state.data.mean, obs.mean(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(state.data.std, obs.std(axis=(0, 1)), rtol=1e-5)
    assert state.data.return_ == 20.0


def test_it_does_what_led_to_the_return_that_is_asked_for(tmp_path):
    """Half of the episodes are worth 10 by action 1, half 0 by action 0: each is done where it is asked for."""
    settings = {"lr": 3e-3, "embed_dim": 16, "train_batch_size": 200, "min_sample_timesteps_per_iteration": 40_000}
    with config(target_return=10.0, **settings).build() as algo:
        algo.train()
        good = algo.get_policy()
        assert good.is_recurrent()
        assert good.compute_single_action(np.zeros(2, np.float32))[0] == 1
        poor = Policy.from_checkpoint(algo.save(tmp_path), target_return=0.0)
        assert poor.compute_single_action(np.zeros(2, np.float32))[0] == 0


def test_what_is_left_is_told_by_the_rewards_that_come(tmp_path):
    with config().build() as algo:
        algo.train()
        policy = Policy.from_checkpoint(algo.save(tmp_path))
        action, state, _ = algo.compute_single_action(np.zeros(2, np.float32), policy.get_initial_state())
        assert state.return_to_go[0, -1] == 0.5
        same, kept, _ = policy.compute_single_action(np.zeros(2, np.float32))
        assert same == action and kept.return_to_go[0, -1] == 0.5
        _, kept, _ = policy.compute_single_action(np.ones(2, np.float32), kept, prev_reward=2.0)
        assert kept.return_to_go[0, -1] == pytest.approx(0.3)
        with pytest.raises(ValueError, match="prev_reward"):
            policy.compute_single_action(np.ones(2, np.float32), kept)


@pytest.mark.parametrize("env", [None, "CartPole-v1"])
def test_it_resumes_exactly(env, tmp_path):
    columns = data()
    columns |= {name: np.tile(columns[name], (1, 2)) for name in ("obs", "new_obs")}
    path = write_data(from_columns(columns, "x"), tmp_path / "x.safetensors")
    assert_resumes(config(str(path), **({} if env is None else {"env": env})), tmp_path)


@pytest.mark.parametrize("backend", ["jax", "gymnasium"])
def test_it_is_evaluated_with_the_rewards_that_come(backend):
    columns = data()
    columns |= {name: np.tile(columns[name], (1, 2)) for name in ("obs", "new_obs")}
    with config(columns, env="CartPole-v1", backend=backend).build() as algo:
        assert algo.evaluate(episodes=2)["evaluation"]["episode_reward_mean"] > 0


def test_networks_with_memory_see_the_step_before_in_recorded_data_as_in_an_environment():
    """RLlib's lstm_use_prev_action and lstm_use_prev_reward: what a cloned policy must know to tell what was done."""
    columns = data()
    columns["actions"] = np.concatenate([[0], np.arange(399) % 2])
    model = {"use_lstm": True, "lstm_cell_size": 8, "lstm_use_prev_action": True, "lstm_use_prev_reward": True}
    made = BCConfig().offline_data(input_=columns).training(model={**model, "fcnet_hiddens": [8]})
    with made.build() as algo:
        ring = algo._training._memory.steps
        steps = jax.device_get(ring_take(ring, np.zeros(1, int), np.zeros(1, int), len(ring.packed.table)))
    action, reward = steps.obs[1][:, 0], steps.obs[2][:, 0, 0]
    first = steps.first[:, 0]
    assert (action[first] == 0).all() and (reward[first] == 0).all()
    np.testing.assert_array_equal(action[~first], np.eye(2)[columns["actions"]][np.flatnonzero(~first) - 1])
    np.testing.assert_array_equal(reward[~first], columns["rewards"][np.flatnonzero(~first) - 1])
    np.testing.assert_array_equal(steps.next_obs[2][:, 0, 0], columns["rewards"])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"target_return": None}, r"training\(target_return=...\) is not set: the return to ask for"),
        ({"model": {"fcnet_hiddens": [8]}}, "model has 'fcnet_hiddens', and there is max_seq_len"),
        ({"observation_filter": "MeanStdFilter"}, "observations are standardised by the data"),
        ({"embed_dim": 8, "num_heads": 3}, "embed_dim=8 is no multiple of num_heads=3"),
    ],
)
def test_what_does_not_fit_is_told(settings, told):
    with pytest.raises(ValueError, match=told):
        config(**settings).build()


def test_rllibs_settings_are_in_their_places():
    said = {"horizon": 200, "optimizer": {"weight_decay": 0.1, "betas": [0.9, 0.95]}, "model": {"max_seq_len": 3}}
    made = DTConfig.from_dict({**said, "replay_buffer_config": {"capacity": 20}})
    assert (made.max_ep_len, made.weight_decay, made.sequence_length()) == (200, 0.1, 3)
    with pytest.raises(ValueError, match="lookahead"):
        DTConfig.from_dict({"optimizer": {"lookahead": 3}})
    entry = {"run": "DT", "env": "CartPole-v1", "config": said, "stop": {"training_iteration": 1}}
    assert experiment_of("x", entry, "x").config["horizon"] == 200
