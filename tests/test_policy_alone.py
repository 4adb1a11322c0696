"""A policy without its training: what a checkpoint's acts like, what it needs, and many observations at once."""

from __future__ import annotations

import json
import subprocess
import sys

import gymnasium
import jax
import numpy as np
import pytest

from athlete import Algorithm, Policy
from athlete.algorithms import get_config_class
from athlete.record.checkpoint import CheckpointError


class Room(gymnasium.Env):
    """Observations of several parts, a mask of actions among them, seen as a user's own class."""

    def __init__(self, config=None):
        self.observation_space = gymnasium.spaces.Dict(
            {
                "place": gymnasium.spaces.Box(-5, 5, (3,)),
                "door": gymnasium.spaces.Discrete(4),
                "action_mask": gymnasium.spaces.MultiBinary(3),
            }
        )
        self.action_space = gymnasium.spaces.Discrete(3, start=2)

    def _seen(self):
        place = self.np_random.normal(size=3).astype(np.float32)
        mask = np.array([1, *self.np_random.integers(0, 2, 2)], np.int8)
        return {"place": place, "door": int(self.np_random.integers(4)), "action_mask": mask}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._seen(), {}

    def step(self, action):
        return self._seen(), float(action), bool(self.np_random.random() < 0.2), False, {}


ON_POLICY = {"num_envs_per_worker": 2, "train_batch_size": 32, "minibatch_size": 16, "num_epochs": 1}
REPLAY = {
    "num_steps_sampled_before_learning_starts": 8,
    "min_sample_timesteps_per_iteration": 16,
    "train_batch_size": 8,
    "replay_buffer_config": {"capacity": 64},
}
SMALL = {"fcnet_hiddens": [8]}
SHOWN = {"lstm_use_prev_action": True, "lstm_use_prev_reward": True}
CASES = {
    "PPO behind a filter": ("PPO", "CartPole-v1", ON_POLICY | {"model": SMALL, "observation_filter": "MeanStdFilter"}),
    "PPO in a user's environment": ("PPO", Room, ON_POLICY | {"model": SMALL}),
    "LSTM": ("PPO", "Pendulum-v1", ON_POLICY | {"model": {"use_lstm": True, "lstm_cell_size": 4, "max_seq_len": 4}}),
    "GTrXL": (
        "PPO",
        "CartPole-v1",
        ON_POLICY | {"model": {"use_attention": True, "attention_dim": 8, "max_seq_len": 4}},
    ),
    "noisy DQN": ("DQN", "CartPole-v1", REPLAY | {"model": SMALL, "noisy": True, "hiddens": [8]}),
    "SAC": ("SAC", "Pendulum-v1", REPLAY | {"model": SMALL}),
}


@pytest.fixture(scope="module", params=CASES)
def saved(request, tmp_path_factory):
    """A trained algorithm and the folder of its checkpoint."""
    name, env, settings = CASES[request.param]
    algorithm = get_config_class(name).from_dict({"env": env, "seed": 3, **settings}).build()
    algorithm.train()
    yield algorithm, algorithm.save(tmp_path_factory.mktemp("saved") / "checkpoint_1")
    algorithm.stop()


def observations(algorithm, count):
    space = algorithm.get_policy().observation_space
    rng = np.random.default_rng(0)
    if hasattr(space, "items"):
        env = Room()
        return [env.reset(seed=i)[0] for i in range(count)]
    return [rng.normal(size=space.shape).astype(np.float32) for _ in range(count)]


def test_a_policy_from_a_checkpoint_acts_as_the_algorithms(saved):
    algorithm, path = saved
    alone, own = Policy.from_checkpoint(path), algorithm.get_policy()
    assert type(alone) is type(own) is Policy
    assert (alone.observation_space, alone.action_space) == (own.observation_space, own.action_space)
    state, own_state = alone.get_initial_state(), own.get_initial_state()
    for observation in observations(algorithm, 8):
        action, state, extra = alone.compute_single_action(observation, state)
        expected, own_state, _ = own.compute_single_action(observation, own_state)
        np.testing.assert_array_equal(action, expected)
        assert extra == {}
    assert all(map(np.array_equal, jax.tree.leaves(state), jax.tree.leaves(own_state)))


def test_many_observations_in_one_call_get_the_actions_of_each(saved):
    algorithm, _ = saved
    policy, seen = algorithm.get_policy(), observations(algorithm, 5)  # 5: padded to 8
    actions, states, _ = policy.compute_actions(seen)
    each = [policy.compute_single_action(observation) for observation in seen]
    np.testing.assert_allclose(actions, [action for action, _, _ in each], atol=1e-5)
    for i, (_, state, _) in enumerate(each):
        for leaf, expected in zip(jax.tree.leaves(states), jax.tree.leaves(state), strict=True):
            np.testing.assert_allclose(leaf[i : i + 1], expected, atol=1e-5)
    after = [policy.compute_single_action(seen[i], state) for i, (_, state, _) in enumerate(each)]
    again, _, _ = policy.compute_actions(_stacked(seen), states)
    np.testing.assert_allclose(again, [action for action, _, _ in after], atol=1e-5)


def _stacked(seen):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *seen)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_one_observation_among_many_is_an_observation(count):
    with get_config_class("PPO").from_dict({"env": Room, "seed": 0, "model": SMALL, **ON_POLICY}).build() as algorithm:
        policy = algorithm.get_policy()
        actions, _, _ = policy.compute_actions([Room().reset(seed=1)[0]] * count)
        assert actions.dtype == np.int64 and actions.shape == (count,) and set(actions) <= {2, 3, 4}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((2, 3)), r"observations: expected shape \('B', 4\) for Box.*, got \(2, 3\)"),
        (np.zeros(4), r"observations: expected shape \('B', 4\)"),
        (np.zeros((0, 4)), "at least 1"),
        ([[0, 0, 0, np.nan]], "not finite"),
    ],
)
def test_many_observations_that_do_not_fit_are_refused(given, message):
    with (
        get_config_class("PPO").from_dict({"env": "CartPole-v1", "model": SMALL, **ON_POLICY}).build() as algorithm,
        pytest.raises(ValueError, match=message),
    ):
        algorithm.get_policy().compute_actions(given)


def test_weights_travel_from_one_policy_to_another(saved):
    algorithm, path = saved
    own, alone = algorithm.get_policy(), Policy.from_checkpoint(path)
    weights = own.get_weights()
    assert all(isinstance(leaf, np.ndarray | np.generic) for leaf in jax.tree.leaves(weights))
    seen = observations(algorithm, 1)[0]
    before = alone.compute_single_action(seen)[0]
    alone.set_weights(jax.tree.map(np.zeros_like, weights))
    alone.set_weights(weights)
    np.testing.assert_array_equal(alone.compute_single_action(seen)[0], before)
    with pytest.raises(ValueError, match="set_weights"):
        alone.set_weights({"other": np.zeros(1)})


def test_the_previous_step_is_shown_to_one_and_to_many(tmp_path):
    model = {"use_lstm": True, "lstm_cell_size": 4, "max_seq_len": 4, **SHOWN}
    settings = {"env": "Pendulum-v1", "seed": 0, "model": model, **ON_POLICY}
    with get_config_class("PPO").from_dict(settings).build() as algorithm:
        algorithm.train()
        policy = Policy.from_checkpoint(algorithm.save(tmp_path))
    seen = np.float32([[1, 0, 0.5], [0, 1, -0.5]])
    first, states, _ = policy.compute_actions(seen)
    second, _, _ = policy.compute_actions(seen, states, prev_action=first, prev_reward=[-1.0, -2.0])
    for i in range(2):
        action, state, _ = policy.compute_single_action(seen[i])
        np.testing.assert_allclose(action, first[i], atol=1e-5)
        action, _, _ = policy.compute_single_action(seen[i], state, prev_action=action, prev_reward=-1.0 - i)
        np.testing.assert_allclose(action, second[i], atol=1e-5)
    with pytest.raises(ValueError, match="give prev_action and prev_reward too"):
        policy.compute_actions(seen, states)


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    """A training of two policies with settings of their own, and a checkpoint of it."""
    policies = {
        "first": {"config": {"model": {"fcnet_hiddens": [4, 4]}}},
        "second": {"algorithm": "DQN", "config": {"model": SMALL, **REPLAY}},
        "chance": {"algorithm": "random"},
    }
    settings = {"env": "TicTacToe-v0", "seed": 0, "model": SMALL, **ON_POLICY}
    config = get_config_class("PPO").from_dict(settings)
    config.multi_agent(policies=policies, policy_mapping_fn={"player_0": "first", "player_1": "second"})
    with config.build() as algorithm:
        algorithm.train()
        yield algorithm, algorithm.save(tmp_path_factory.mktemp("team") / "checkpoint_1")


@pytest.mark.parametrize("name", ["first", "second"])
def test_one_of_several_policies_is_read_by_its_name(team, name):
    algorithm, path = team
    alone, own = Policy.from_checkpoint(path, name), algorithm.get_policy(name)
    assert jax.tree.all(jax.tree.map(np.array_equal, alone.get_weights(), own.get_weights()))
    rng = np.random.default_rng(0)
    for _ in range(8):
        seen = {
            part: rng.integers(0, 2, space.shape).astype(space.dtype) for part, space in own.observation_space.items
        }
        seen["action_mask"][0] = 1
        assert alone.compute_single_action(seen)[0] == own.compute_single_action(seen)[0]


def test_several_policies_need_a_name(team):
    with pytest.raises(ValueError, match="there is no policy 'default_policy'; there are 'first', 'second'"):
        Policy.from_checkpoint(team[1])


ALONE = """
import json, sys
from athlete import Policy
policy = Policy.from_checkpoint(sys.argv[1])
seen = {"place": [0.5, -1.0, 2.0], "door": 3, "action_mask": [1, 0, 1]}
action = policy.compute_single_action(seen)[0]
heavy = [name for name in ("gymnasium", "athlete.algorithm", "test_policy_alone", "pandas") if name in sys.modules]
print(json.dumps([action, heavy]))
"""


def test_it_needs_neither_the_environment_nor_its_code_nor_the_algorithm(tmp_path):
    with get_config_class("PPO").from_dict({"env": Room, "seed": 0, "model": SMALL, **ON_POLICY}).build() as algorithm:
        path = algorithm.save(tmp_path)
        seen = {"place": [0.5, -1.0, 2.0], "door": 3, "action_mask": [1, 0, 1]}
        expected = algorithm.compute_single_action(seen)
    done = subprocess.run([sys.executable, "-c", ALONE, path], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout) == [expected, []]


def test_a_replay_memory_is_neither_read_nor_looked_at(tmp_path):
    settings = {"env": "CartPole-v1", "seed": 0, "model": SMALL, **REPLAY, "store_buffer_in_checkpoints": True}
    with get_config_class("DQN").from_dict(settings).build() as algorithm:
        algorithm.train()
        path = algorithm.save(tmp_path / "checkpoint_1")
    memory = tmp_path / "checkpoint_1" / "memory.safetensors"
    memory.write_bytes(b"spoiled")
    with pytest.raises(CheckpointError):
        Algorithm.from_checkpoint(path)
    assert Policy.from_checkpoint(path).compute_single_action(np.zeros(4, np.float32))[0] in (0, 1)
    with pytest.raises(ValueError, match=r"Policy.from_checkpoint\('other'\): there is one policy"):
        Policy.from_checkpoint(path, policy_id="other")


def test_errors_of_a_checkpoint_are_sentences(tmp_path):
    with get_config_class("PPO").from_dict({"env": "CartPole-v1", "model": SMALL, **ON_POLICY}).build() as algorithm:
        plain = algorithm.save(tmp_path / "checkpoint_1")
    with pytest.raises(CheckpointError, match="there is no such folder"):
        Policy.from_checkpoint(tmp_path / "none")
    with pytest.raises(ValueError, match=r"Policy.from_checkpoint\('other'\): there is one policy"):
        Policy.from_checkpoint(plain, "other")
