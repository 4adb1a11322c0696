"""Learning from recorded data: the loop that steps nothing, with an environment and without, saved and gone on with."""

from __future__ import annotations

import gymnasium
import jax
import numpy as np
import pytest
from modes import assert_modes_are_equal, assert_resumes

from athlete import Algorithm, Policy
from athlete.algorithms import get_config_class
from athlete.algorithms.bc import BCConfig
from athlete.algorithms.dqn import DQNConfig
from athlete.algorithms.marwil import MARWILConfig
from athlete.algorithms.pg import PGConfig
from athlete.algorithms.ppo import PPOConfig
from athlete.algorithms.sac import SACConfig
from athlete.combine.wrapper import with_memory
from athlete.env.games.classic.pendulum import Pendulum
from athlete.env.wrappers.time_limit import TimeLimit
from athlete.loops.collect import spec_of
from athlete.memory.mixed import Mixed
from athlete.memory.recorded import recorded
from athlete.memory.replay import Replay
from athlete.offline.columns import from_columns
from athlete.offline.dataset import DataError, spaces_of
from athlete.offline.files import read_data, write_data
from athlete.offline_training import memory_of
from athlete.ops.random import wrap
from athlete.spaces import Box, Discrete

STEPS, LENGTH = 400, 20
KEY = wrap(np.array([0, 1], np.uint32))


def cartpole_like(seed=0, best=True):
    """Episodes of noise in which action 1 was taken where the first observation is positive, if `best`."""
    random = np.random.default_rng(seed)
    obs = random.normal(size=(STEPS, 4)).astype(np.float32)
    ends = np.arange(1, STEPS + 1) % LENGTH == 0
    return {
        "obs": obs,
        "new_obs": random.normal(size=(STEPS, 4)).astype(np.float32),
        "actions": (obs[:, 0] > 0).astype(int) if best else random.integers(2, size=STEPS),
        "rewards": random.normal(size=STEPS),
        "terminateds": ends & (np.arange(STEPS) % 2 == 1),
        "truncateds": ends & (np.arange(STEPS) % 2 == 0),
    }


def quick(config_class=BCConfig, data=None, **settings):
    config = config_class().offline_data(input_=cartpole_like() if data is None else data)
    small = {"train_batch_size": 40, "model": {"fcnet_hiddens": [8]}, "min_sample_timesteps_per_iteration": 400}
    return config.update_from_dict({**small, "seed": 0, **settings})


def learned(result):
    return result["info"]["learner"]["default_policy"]["learner_stats"]


# Memory ---------------------------------------------------------------------------------------------------------------


def steps_of(columns):
    data = from_columns(columns, "x")
    return data.transitions(spaces_of(data))


def test_a_recorded_memory_samples_windows_of_consecutive_steps_and_stores_nothing():
    steps = steps_of(cartpole_like())
    memory = recorded(Replay(batch_size=4000, window=3), steps)
    assert memory.init(None, 1) == ()
    batch = memory.sample((), None, KEY, 0.0)
    assert batch.reward.shape == (3, 4000)
    where = {value: i for i, value in enumerate(steps.reward[:, 0].tolist())}
    begins = np.array([where[value] for value in batch.reward[0].tolist()])
    assert {*begins.tolist()} == {*range(STEPS - 2)}, "each window as likely as the other, none across the end"
    for later in (1, 2):
        np.testing.assert_array_equal(batch.obs[later], steps.obs[begins + later, 0])


def test_a_memory_of_several_sets_takes_of_each_its_share():
    sets = [steps_of(cartpole_like(seed)) for seed in range(3)]
    memory = memory_of(Replay(batch_size=10), sets, [0.5, 0.29, 0.21])
    assert isinstance(memory, Mixed) and memory.batch_size == 10
    batch = memory.sample(memory.init(None, 1), None, KEY, 0.0)
    owner = {value: i for i, steps in enumerate(sets) for value in steps.reward[:, 0].tolist()}
    assert [owner[value] for value in batch.reward[0].tolist()] == [0] * 5 + [1] * 3 + [2] * 2


def test_what_several_sets_hold_is_learned_from_side_by_side(tmp_path):
    for seed in range(2):
        write_data(from_columns(cartpole_like(seed), "x"), tmp_path / f"{seed}.npz")
    with quick(data={str(tmp_path / "0.npz"): 0.75, str(tmp_path / "1.npz"): 0.25}).build() as algo:
        assert algo.train()["timesteps_total"] == 400


def test_a_mixture_of_memories_adds_to_those_that_take_and_is_ready_when_all_are():
    steps = steps_of(cartpole_like())
    memory = Mixed((Replay(capacity=8, batch_size=2), recorded(Replay(batch_size=2), steps)))
    example = jax.tree.map(lambda leaf: leaf[0, 0], steps)
    store = memory.init(example, 1)
    assert not memory.ready(store)
    store = memory.add(store, jax.tree.map(lambda leaf: leaf[:1], steps))
    assert memory.ready(store) and int(store[0].filled) == 1 and store[1] == ()
    batch = memory.sample(store, None, KEY, 0.0)
    assert batch.reward[0, :2].tolist() == [steps.reward[0, 0]] * 2


# The loop -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config_class", [BCConfig, MARWILConfig])
def test_it_learns_what_was_done_and_counts_what_it_read(config_class):
    with quick(config_class, lr=3e-3).build() as algo:
        results = [algo.train() for _ in range(20)]
        assert results[1]["timesteps_total"] == results[1]["num_env_steps_trained"] == 800
        assert np.isnan(results[-1]["episode_reward_mean"]) and results[-1]["episodes_total"] == 0
        assert learned(results[-1])["policy_loss"] < learned(results[0])["policy_loss"]
        obs = np.random.default_rng(1).normal(size=(200, 4)).astype(np.float32)
        actions = algo.get_policy().compute_actions(obs)[0]
        assert np.mean(actions == (obs[:, 0] > 0)) > 0.9


def test_the_spaces_are_the_datas_and_there_is_nothing_to_evaluate_on():
    with quick().build() as algo:
        assert algo.agent.spec == spaces_of(read_data(cartpole_like()))
        with pytest.raises(ValueError, match=r"evaluate\(\): there is no environment, only recorded data; say \.env"):
            algo.evaluate()
        with pytest.raises(ValueError, match=r"record\(\): there is no environment"):
            algo.record("x", 1)


def test_spaces_may_be_given_where_there_is_no_environment(tmp_path):
    """What arrays cannot tell: that there are three actions, of which the third was never taken; bounds of a Box."""
    path = write_data(from_columns(cartpole_like(), "x"), tmp_path / "x.npz")
    spaces = {"observation_space": gymnasium.spaces.Box(-9.0, 9.0, (4,)), "action_space": Discrete(3)}
    config = quick(data=str(path)).environment(**spaces)
    with config.build() as algo:
        assert algo.get_policy().action_space == Discrete(3)
        assert algo.get_policy().observation_space == Box(-9.0, 9.0, (4,))
    assert_resumes(config, tmp_path)
    with quick(data=str(path)).environment(action_space=Discrete(3)).build() as algo:
        assert algo.get_policy().observation_space == Box(-np.inf, np.inf, (4,))
    with pytest.raises(DataError, match=r"obs has shape \[4\], and the space Box.* has \[3\]"):
        quick(data=str(path)).environment(observation_space=gymnasium.spaces.Box(-9.0, 9.0, (3,))).build()
    with pytest.raises(ValueError, match=r"environment\(action_space=3\): expected a space of gymnasium"):
        BCConfig().environment(action_space=3)


def test_with_an_environment_evaluation_runs_beside():
    with quick(env="CartPole-v1", evaluation_interval=2, evaluation_duration=3).build() as algo:
        assert "evaluation" not in algo.train()
        assert algo.train()["evaluation"]["episodes_this_iter"] == 3


@pytest.mark.parametrize("backend", ["jax", "gymnasium"])
def test_its_spaces_are_the_environments(backend):
    with quick(env="CartPole-v1", backend=backend).build() as algo:
        assert algo.agent.spec.obs.high[2] == pytest.approx(0.41887903)
        assert algo.evaluate(2)["evaluation"]["episodes_this_iter"] == 2


@pytest.mark.parametrize("settings", [{}, {"env": "CartPole-v1"}, {"observation_filter": "MeanStdFilter"}], ids=str)
def test_it_resumes_exactly(settings, tmp_path):
    write_data(read_data(cartpole_like()), tmp_path / "data.safetensors")
    assert_resumes(quick(MARWILConfig, str(tmp_path / "data.safetensors"), **settings), tmp_path / "saved")


def test_a_checkpoint_holds_no_data_and_needs_those_that_were_in_memory_again(tmp_path):
    with quick().build() as algo:
        algo.train()
        path = algo.save(tmp_path)
    assert {file.name for file in (tmp_path / "checkpoint_000001").iterdir()} == {
        "agent.safetensors",
        "checkpoint.json",
        "manifest.json",
    }
    with pytest.raises(ValueError, match=r"config.input_: .* could not be kept in a file; give it again: .*input_="):
        Algorithm.from_checkpoint(path)
    with Algorithm.from_checkpoint(path, input_=cartpole_like()) as restored:
        assert restored.train()["timesteps_total"] == 800
    assert Policy.from_checkpoint(path).compute_single_action(np.zeros(4, np.float32))[0] in (0, 1), "without any data"


def test_an_observation_filter_knows_all_data_before_the_first_update_and_stays():
    data = cartpole_like()
    data["obs"] = data["obs"] * 3 + 5
    with quick(data=data, observation_filter="MeanStdFilter").build() as algo:
        before = jax.device_get(algo.run.state.obs)
        np.testing.assert_allclose(before.mean[0], data["obs"].mean(axis=0), rtol=1e-4)
        np.testing.assert_allclose(before.variance[0], data["obs"].var(axis=0), rtol=1e-4)
        algo.train()
        after = jax.device_get(algo.run.state)
        np.testing.assert_array_equal(after.obs.mean[0], before.mean[0])
        np.testing.assert_array_equal(after.acting.mean[0], before.mean[0])


@pytest.mark.parametrize(("config_class", "network"), [(BCConfig, "use_lstm"), (MARWILConfig, "use_gru")])
def test_networks_with_memory_learn_from_sequences(config_class, network):
    model = {"fcnet_hiddens": [8], network: True, "max_seq_len": 5, "lstm_cell_size": 8}
    with quick(config_class, model=model).build() as algo:
        assert algo.train()["timesteps_total"] == 400
        assert algo.get_policy().is_recurrent()


def test_a_memory_is_of_use_where_what_was_done_hangs_on_what_was_seen():
    """The action repeats the first sign of the episode, which no other step shows."""
    random = np.random.default_rng(0)
    signs = np.repeat(random.integers(2, size=STEPS // 5), 5)
    first = np.arange(STEPS) % 5 == 0
    obs = np.where(first, 2.0 * signs - 1, 0.0)[:, None]
    data = {
        "obs": obs,
        "new_obs": obs,
        "actions": signs,
        "rewards": np.ones(STEPS),
        "terminateds": np.roll(first, -1),
    }
    losses = []
    for network in ({"fcnet_hiddens": [8]}, {"fcnet_hiddens": [8], "use_gru": True, "max_seq_len": 10}):
        with quick(data=data, model=network, lr=1e-2, train_batch_size=100).build() as algo:
            losses.append([learned(algo.train())["policy_loss"] for _ in range(30)][-1])
    assert losses[0] > 0.5 > 0.25 > losses[1]


@pytest.mark.thorough
@pytest.mark.parametrize("config_class", [BCConfig, MARWILConfig])
def test_images_are_seen_by_convolutions(config_class):
    random, columns = np.random.default_rng(0), cartpole_like()
    bright = columns["actions"][:, None, None, None] * 200
    images = (random.integers(50, size=(STEPS, 12, 12, 1)) + bright).astype(np.uint8)
    data = columns | {"obs": images, "new_obs": images}
    with quick(config_class, data, model={"conv_filters": [[4, 3, 2]], "fcnet_hiddens": [8]}, lr=1e-2).build() as algo:
        assert algo.agent.spec.obs.dtype == np.uint8
        losses = [learned(algo.train())["policy_loss"] for _ in range(6)]
    assert losses[-1] < 0.5 * losses[0]


def test_algorithms_that_learn_from_replay_learn_from_data_by_n_steps_too():
    with quick(DQNConfig, train_batch_size=32, n_step=3, hiddens=[]).build() as algo:
        result = algo.train()
        assert result["timesteps_total"] == 416 and np.isfinite(learned(result)["mean_q"])


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (BCConfig().environment("CartPole-v1"), r"BC learns from recorded data alone: say \.offline_data\(input_="),
        (PPOConfig().offline_data(input_="x"), "PPO: it learns from its own latest steps, and not from recorded ones"),
        (PGConfig().offline_data(input_="x"), "PG: it learns from its own latest steps"),
        (BCConfig().offline_data(input_="d4rl.hopper-medium-v0"), r"D4RL's sets are not downloaded here; Minari has"),
        (BCConfig().offline_data(input_="s3://bucket/x.json"), "files are read from this machine's disk"),
        (BCConfig().offline_data(input_="dataset"), r"input_='dataset'\): input_config says no 'paths'"),
        (
            BCConfig().offline_data(input_="x", input_config={"max_steps": 1}),
            r"input_config=\{'max_steps': ...\}\): there is no 'max_steps'; there are max_episode_steps",
        ),
        (quick(evaluation_interval=1), r"evaluation_interval=1\): there is no environment"),
        (quick(data={"a": 0.001, "b": 0.999}), "a: there is no such file"),
    ],
)
def test_what_does_not_fit_is_told_at_build(config, told):
    with pytest.raises(ValueError, match=told):
        config.build()


@pytest.mark.parametrize("value", [3, [], {"a": "b"}, {"a": 0}])
def test_an_input_that_is_none_is_told_at_the_call(value):
    with pytest.raises(ValueError, match=r"offline_data\(input_=.*\): expected 'sampler', files, columns as"):
        BCConfig().offline_data(input_=value)


def test_data_in_memory_are_checked_at_the_call():
    with pytest.raises(DataError, match="the data, row 3: rewards holds NaN"):
        BCConfig().offline_data(input_=cartpole_like() | {"rewards": np.where(np.arange(STEPS) == 3, np.nan, 0)})


def test_a_share_too_small_for_a_batch_is_told():
    with pytest.raises(ValueError, match=r"a share of 0.01 is less than one of the 40 samples of a batch"):
        memory_of(Replay(batch_size=40), [steps_of(cartpole_like())] * 2, [0.99, 0.01])


def test_data_that_do_not_fit_the_environment_are_told():
    with pytest.raises(DataError, match=r"the data: obs has shape \[4\], and the space Box.*has \[3\]"):
        quick(SACConfig, env="Pendulum-v1").build()


def test_evaluation_config_may_say_sampler_as_rllibs_files_do(caplog):
    quick(evaluation_config={"input": "sampler"})
    assert not caplog.records


# Recording ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["jax", "gymnasium"])
def test_recorded_episodes_are_whole_and_their_probabilities_known(backend, tmp_path):
    config = PPOConfig().environment("CartPole-v1", backend=backend).debugging(seed=0, log_level="WARN")
    with config.training(model={"fcnet_hiddens": [8]}).build() as algo:
        data = read_data(algo.record(tmp_path / "data.safetensors", 9))
        again = read_data(algo.record(tmp_path / "again.safetensors", 9))
        other = read_data(algo.record(tmp_path / "other.safetensors", 9, seed=1))
        policy = algo.get_policy()
        carry = policy.get_initial_state(len(data))
        distribution = policy.agent.distribution(policy.view, carry, data.obs, data.first)
    assert len(data.ends) == 9 and data.terminated[data.ends].all()
    assert data.reward.tobytes() == again.reward.tobytes() and data.obs.tobytes() != other.obs.tobytes()
    np.testing.assert_array_equal(data.obs[1:][~data.done[:-1]], data.next_obs[:-1][~data.done[:-1]])
    np.testing.assert_allclose(data.log_prob, distribution.log_prob(data.action), rtol=1e-4)


def test_actions_are_recorded_as_the_environment_takes_them(tmp_path):
    with SACConfig().environment("Pendulum-v1").debugging(seed=0).build() as algo:
        data = read_data(algo.record(tmp_path, 2, explore=True))
        greedy = read_data(algo.record(tmp_path / "greedy.json", 2, explore=False))
    assert 1.5 < np.abs(data.action).max() <= 2.0
    assert data.truncated[data.ends].all() and data.lengths.tolist() == [200, 200]
    assert data.log_prob is not None and greedy.log_prob is None
    canonical = data.transitions(spaces_of(data)).action
    np.testing.assert_allclose(canonical[:, 0], data.action / 2, rtol=1e-5)


# The algorithms that learn from data first, and in an environment then ------------------------------------------------


def pendulum_like(seed=0):
    random = np.random.default_rng(seed)
    columns = cartpole_like(seed)
    obs, new_obs = random.normal(size=(2, STEPS, 3)).astype(np.float32)
    return columns | {"obs": obs, "new_obs": new_obs, "actions": np.clip(obs[:, :1], -0.9, 0.9)}


TINY = {
    "model": {"fcnet_hiddens": [8]},
    "train_batch_size": 32,
    "replay_buffer_config": {"capacity": 500},
    "num_steps_sampled_before_learning_starts": 40,
    "seed": 3,
    "log_level": "WARN",
}
FIRST_FROM_DATA = ("IQL", "TD3BC", "ReBRAC", "CQL", "CRR")
ONLINE = {"input_": "sampler", "env": "Pendulum-v1", "min_sample_timesteps_per_iteration": 60}


@pytest.mark.parametrize("algorithm", ["IQL", "ReBRAC"])
def test_a_run_on_data_goes_on_in_an_environment(algorithm, tmp_path):
    config = get_config_class(algorithm).from_dict(
        {**TINY, "env": "Pendulum-v1", "input_": pendulum_like(), "min_sample_timesteps_per_iteration": 320}
    )
    with config.build() as algo:
        algo.train()
        path, before = algo.save(tmp_path), algo.get_weights()
    with Algorithm.from_checkpoint(path, **ONLINE) as online:
        for a, b in zip(*map(jax.tree.leaves, (before, online.get_weights())), strict=True):
            np.testing.assert_array_equal(a, b)
        result = online.train()
        assert result["timesteps_total"] == 320 + 40 + 60, "with a warm-up of a new memory"
        assert np.isfinite(learned(result)["critic_loss"])


@pytest.mark.parametrize("backend", ["jax", "gymnasium"])
def test_half_of_each_batch_may_be_recorded(backend, tmp_path):
    write_data(read_data(pendulum_like(), normalized=True), tmp_path / "data.safetensors")
    shares = {"sampler": 0.5, str(tmp_path / "data.safetensors"): 0.5}
    config = get_config_class("TD3").from_dict({**TINY, **ONLINE, "input_": shares, "backend": backend})
    with config.exploration(exploration_config={"random_timesteps": 0}).build() as algo:
        assert isinstance(algo.agent.memory, Mixed)
        assert [part.batch_size for part in algo.agent.memory.parts] == [16, 16]
        assert algo.train()["timesteps_total"] == 100
        (ring, nothing), steps = algo.run.store, algo.agent.memory.parts[1].steps
    assert int(ring.filled) == 100 and nothing == () and int(steps.filled) == STEPS


def test_what_cannot_be_mixed_is_told():
    shares = {"sampler": 0.5, "x.json": 0.5}
    with pytest.raises(ValueError, match=r"DQN: replay_buffer_config has the type 'Prio.*take 'ReplayBuffer'"):
        DQNConfig().environment("CartPole-v1").offline_data(input_=shares).build()
    with pytest.raises(ValueError, match="PPO: it learns from its own latest steps"):
        PPOConfig().environment("CartPole-v1").offline_data(input_=shares).build()
    with pytest.raises(ValueError, match="BC learns from recorded data alone"):
        BCConfig().environment("CartPole-v1").offline_data(input_=shares).build()


@pytest.mark.thorough
@pytest.mark.parametrize("algorithm", FIRST_FROM_DATA)
def test_those_that_learn_from_data_first_resume_exactly(algorithm, tmp_path):
    write_data(read_data(pendulum_like(), normalized=True), tmp_path / "data.safetensors")
    settings = {**TINY, "input_": str(tmp_path / "data.safetensors"), "min_sample_timesteps_per_iteration": 320}
    assert_resumes(get_config_class(algorithm).from_dict(settings), tmp_path / "saved")


@pytest.mark.thorough
@pytest.mark.parametrize("algorithm", FIRST_FROM_DATA)
def test_they_are_the_same_compiled_and_hosted(algorithm):
    env = TimeLimit(Pendulum(), 11)
    config = get_config_class(algorithm).from_dict({**TINY, "observation_filter": "NoFilter"})
    assert_modes_are_equal(env, config.make_agent(spec_of(env)), rows=1, length=1, iterations=6)


@pytest.mark.thorough
def test_a_mixture_is_the_same_compiled_and_hosted():
    env = TimeLimit(Pendulum(), 11)
    agent = get_config_class("SAC").from_dict(TINY).make_agent(spec_of(env))
    data = read_data(pendulum_like(), normalized=True).transitions(spec_of(env))
    agent = with_memory(agent, memory_of(agent.memory, [data], [0.5], 0.5))
    assert_modes_are_equal(env, agent, rows=1, length=1, iterations=6)


# Writing what is collected --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "backend", "kind"),
    [("PPO", "jax", "safetensors"), ("PPO", "gymnasium", "json"), ("DQN", "jax", "npz"), ("DQN", "gymnasium", "json")],
)
def test_output_has_all_that_is_collected_in_whole_episodes(algorithm, backend, kind, tmp_path):
    settings = {"env": "CartPole-v1", "backend": backend, "num_envs_per_worker": 2, "seed": 0, "log_level": "WARN"}
    settings |= {"model": {"fcnet_hiddens": [8]}, "train_batch_size": 64, "min_sample_timesteps_per_iteration": 64}
    if algorithm == "DQN":
        settings |= {"hiddens": [], "num_steps_sampled_before_learning_starts": 128}
    config = get_config_class(algorithm).from_dict({**settings, "output": str(tmp_path)})
    with config.offline_data(output_config={"format": kind}).build() as algo:
        results = [algo.train() for _ in range(2)]
        algo.save(tmp_path / "checkpoint")
        whole = read_data(sorted(tmp_path.glob("output-*")))
        assert len(whole.ends) == results[-1]["episodes_total"] > 2
        assert whole.terminated[whole.ends].all()
    data = read_data(sorted(tmp_path.glob("output-*")))
    assert len(data) == results[-1]["timesteps_total"], "those that were running are cut"
    assert whole.returns.max() == results[-1]["episode_reward_max"]
    np.testing.assert_array_equal(data.obs[1:][~data.done[:-1]], data.next_obs[:-1][~data.done[:-1]])


def test_what_cannot_be_written_is_told():
    with pytest.raises(
        ValueError, match=r"output_config=\{'format': 'csv'\}\): expected one of safetensors, json, npz"
    ):
        PPOConfig().environment("CartPole-v1").offline_data(output="x", output_config={"format": "csv"}).build()
    with pytest.raises(ValueError, match="BC: output='x' is for what is collected, and it learns from recorded data"):
        quick(output="x").build()
