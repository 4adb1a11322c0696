"""Settings as RLlib's users of any year write them: their places, their words, and the layers behind a network."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.algorithms import get_config_class
from athlete.algorithms.ddpg import DDPGConfig
from athlete.algorithms.dqn import DQNConfig
from athlete.algorithms.ppo import PPOConfig
from athlete.algorithms.r2d2 import R2D2Config
from athlete.algorithms.rnnsac import RNNSACConfig
from athlete.algorithms.sac import SACConfig
from athlete.algorithms.td3 import TD3Config
from athlete.env.wrappers.previous import Previous, previous_of
from athlete.models.catalog import make_model
from athlete.models.mlp import MLP
from athlete.models.recurrent import LSTM
from athlete.models.streams import Streams
from athlete.ops.random import wrap
from athlete.record.stopper import make_stopper
from athlete.settings.multi_agent import mapping_of
from athlete.spaces import Box

KEY = wrap(np.array([0, 3], np.uint32))
WARM_UP = "num_steps_sampled_before_learning_starts"


# Layers -----------------------------------------------------------------------------------------------------------


def test_streams_are_layers_of_each_head_behind_the_network():
    model = Streams(MLP((2,), "linear"), (3, 2), "relu")
    params = model.init(KEY, Box(-1.0, 1.0, (4,)), {"advantage": (5, 1.0), "value": (1, 1.0)})
    assert jax.tree.map(jnp.shape, params["model"]["heads"]["value"]) == {"kernel": (2, 3), "bias": (3,)}
    obs = jnp.arange(8.0).reshape(1, 2, 4) - 3.0
    carry, heads = model.apply(params, model.start(2), obs, jnp.zeros((1, 2), bool))
    assert carry == () and {name: head.shape for name, head in heads.items()} == {
        "advantage": (1, 2, 5),
        "value": (1, 2, 1),
    }

    def layer(layer, x):
        return x @ layer["kernel"] + layer["bias"]

    torso = layer(params["model"]["layers"][0], obs)
    for name, (hidden, last) in params["streams"].items():
        first = jnp.maximum(layer(params["model"]["heads"][name], torso), 0.0)
        expected = layer(last, jnp.maximum(layer(hidden, first), 0.0))
        np.testing.assert_allclose(heads[name], expected, rtol=1e-5)


def test_a_network_with_memory_keeps_it_in_front_of_its_streams():
    model = Streams(LSTM(4, (8,)), (3,))
    params = model.init(KEY, Box(-1.0, 1.0, (2,)), {"advantage": (2, 1.0)})
    obs, first = jnp.ones((3, 1, 2)), jnp.zeros((3, 1), bool)
    carry, heads = model.apply(params, model.start(1), obs, first)
    assert carry.cell.shape == (3, 1, 4)
    assert not np.allclose(heads["advantage"][0], heads["advantage"][2])


@pytest.mark.parametrize("config", [DQNConfig, R2D2Config])
def test_hiddens_are_layers_behind_the_network_for_value_and_advantages(config):
    model = config().training(hiddens=[32, 16]).model_parts()["model"]
    assert isinstance(model, Streams) and model.hiddens == (32, 16) and model.activation == "relu"
    assert not isinstance(config().training(hiddens=[]).model_parts()["model"], Streams)
    with pytest.raises(
        ValueError, match=r"training\(hiddens=\[0\]\): expected a list of layer sizes such as \[64, 64\]"
    ):
        config().training(hiddens=[0])


@pytest.mark.parametrize("algorithm", ["DQN", "SimpleQ", "QRDQN"])
def test_learners_of_single_values_have_hiddens_as_rllibs_dqn_by_default(algorithm):
    assert get_config_class(algorithm)().hiddens == [256]


@pytest.mark.parametrize("config", [DDPGConfig, TD3Config])
def test_actor_and_critic_hiddens_are_the_layers_of_each_network(config):
    changed = config().training(actor_hiddens=[32], critic_hiddens=[48, 16], critic_hidden_activation="tanh")
    networks = changed.model_parts()
    assert networks["policy_model"] == MLP((32,), "relu") and networks["q_model"] == MLP((48, 16), "tanh")
    before = changed.training(policy_model_config={"fcnet_hiddens": [8]}).model_parts()["policy_model"]
    assert before == MLP((32,), "relu")
    with pytest.raises(ValueError, match="expected the name of an activation such as 'relu', or None, got str 'rellu'"):
        config().training(actor_hidden_activation="rellu")


def test_post_fcnet_hiddens_are_more_layers():
    model = {"fcnet_hiddens": [32], "post_fcnet_hiddens": [16, 8], "vf_share_layers": True}
    assert make_model(model) == MLP((32, 16, 8), "tanh")
    assert make_model({**model, "fcnet_hiddens": []}) == MLP((16, 8), "relu")
    assert make_model({**model, "use_lstm": True, "lstm_cell_size": 4}) == LSTM(4, (32, 16, 8), "tanh")
    with pytest.raises(ValueError, match="post_fcnet_hiddens': 8}: expected a list of layer sizes"):
        PPOConfig().training(model={"post_fcnet_hiddens": 8})


# Places -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"learning_starts": 700},
        {"replay_buffer_config": {"learning_starts": 700}},
        {"replay_buffer_config": {"min_size_for_sampling": 700}},
        {"replay_buffer_config": {WARM_UP: 700}},
        {"replay_buffer_config": {"learning_starts": 500}, WARM_UP: 700},  # its own name goes first
        {WARM_UP: 700, "replay_buffer_config": {"learning_starts": 500}},
    ],
)
def test_the_warm_up_is_found_where_any_era_had_it(given):
    config = DQNConfig().training(**given)
    assert config[WARM_UP] == 700 and config.learning_starts == 700
    assert "learning_starts" not in config.replay_buffer_config


def test_settings_of_the_memory_are_found_where_older_versions_had_them():
    config = DQNConfig.from_dict(
        {
            "buffer_size": 9000,
            "prioritized_replay": False,
            "prioritized_replay_alpha": 0.5,
            "replay_buffer_config": {"prioritized_replay_eps": 1e-5},
        }
    )
    memory = config.replay_buffer_config
    assert memory == {
        "type": "ReplayBuffer",
        "capacity": 9000,
        "prioritized_replay_alpha": 0.5,
        "prioritized_replay_eps": 1e-5,
    }
    assert DQNConfig().training(prioritized_replay=True).replay_buffer_config["type"] == "PrioritizedReplayBuffer"


def test_an_importance_exponent_that_ends_elsewhere_is_a_schedule():
    config = DQNConfig().training(
        final_prioritized_replay_beta=1.0, prioritized_replay_beta_annealing_timesteps=50, prioritized_replay_beta=0.5
    )
    assert config._memory()["prioritized_replay_beta"] == [[0, 0.5], [50, 1.0]]
    assert DQNConfig()._memory()["prioritized_replay_beta"] == 0.4


def test_a_memory_may_be_named_by_its_class_path():
    path = "ray.rllib.utils.replay_buffers.MultiAgentPrioritizedReplayBuffer"
    named = DQNConfig().training(replay_buffer_config={"type": path})
    assert named._memory()["type"] == "MultiAgentPrioritizedReplayBuffer"


def test_r2d2_takes_zero_init_states_among_the_memorys_settings():
    config = R2D2Config().training(replay_buffer_config={"zero_init_states": True, "replay_burn_in": 4})
    assert config.zero_init_states is True and config.replay_buffer_config["replay_burn_in"] == 4
    with pytest.raises(ValueError, match="there is no 'zero_init_states'"):
        DQNConfig().training(replay_buffer_config={"zero_init_states": True})


def test_actor_critics_take_the_older_words_for_their_networks():
    config = SACConfig.from_dict(
        {
            "Q_model": {"hidden_activation": "tanh", "hidden_layer_sizes": [32]},
            "policy_model": {"fcnet_hiddens": [16]},
            "target_entropy": "auto",
            "optimization": {"actor_learning_rate": "1e-4"},
        }
    )
    assert config.q_model_config == {"fcnet_activation": "tanh", "fcnet_hiddens": [32]}
    assert config.policy_model_config == {"fcnet_hiddens": [16]}
    assert config.target_entropy is None and config.actor_lr == 1e-4


def test_what_one_of_actor_and_critics_sees_of_the_last_step_both_see():
    config = RNNSACConfig().training(policy_model_config={"lstm_use_prev_action": True, "use_lstm": True})
    config = config.environment("StatelessCartPole-v1").training(q_model_config={"lstm_use_prev_reward": True})
    with config.build() as algorithm:
        assert previous_of(algorithm.config) == Previous(action=True, reward=True)


def test_settings_of_pictures_that_are_so_in_any_case_are_passed_over_and_square_kernels_taken():
    model = {"dim": 42, "grayscale": True, "zero_mean": False, "conv_filters": [[16, [4, 4], 2], [32, 3, 1]]}
    assert PPOConfig().training(model=model).model == {"conv_filters": [[16, 4, 2], [32, 3, 1]]}
    with pytest.raises(ValueError, match="expected \\[filters, kernel size, stride\\]"):
        PPOConfig().training(model={"conv_filters": [[16, [4, 3], 2]]})


def test_the_section_of_many_agents_is_taken_with_its_mapping_class():
    rllibs = "ray.rllib.examples.multi_agent_and_self_play.policy_mapping_fn.PolicyMappingFn"
    section = {"policies": {"p0": [None, None, None, {"lr": 0.01}], "p1": None}, "policy_mapping_fn": {"type": rllibs}}
    config = PPOConfig.from_dict({"multiagent": section})
    assert config.policies["p0"]["config"] == {"lr": 0.01}
    assert mapping_of(config.policy_mapping_fn, ["agent_0", "agent_1"], ["p0", "p1"]) == {
        "agent_0": "p0",
        "agent_1": "p1",
    }
    with pytest.raises(ValueError, match="there has to be a policy"):
        PPOConfig.from_dict({"multiagent": {"policies": {}}})
    with pytest.raises(ValueError, match="did you mean 'policies'"):
        PPOConfig.from_dict({"multiagent": {"policy": {}}})


# Numbers and results ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "+1e-04", "1.e-4", ".1e-3", "0.1e-3"])
def test_numbers_that_yaml_reads_as_strings_are_numbers(text):
    assert PPOConfig().training(lr=text).lr == pytest.approx(1e-4)


def test_numbers_in_lists_and_dictionaries_are_numbers_too_and_names_stay_names():
    config = DQNConfig().training(lr=[[0, "1e-3"], [100, "1e-5"]]).training(replay_buffer_config={"alpha": "5e-1"})
    assert config.lr == [[0, 1e-3], [100, 1e-5]] and config.replay_buffer_config["alpha"] == 0.5
    assert PPOConfig().environment("e1", env_config={"map_name": "4x4", "x": "1e"}).env_config["x"] == "1e"


@pytest.mark.parametrize(
    "key",
    [
        "episode_reward_mean",
        "sampler_results/episode_reward_mean",
        "env_runners/episode_return_mean",
        "env_runners/episode_reward_mean",
    ],
)
def test_stops_know_the_results_of_every_era(key):
    stopper = make_stopper({key: 100})
    assert not stopper("t", {"episode_reward_mean": 99.0})
    assert stopper("t", {"episode_reward_mean": 100.0})
    within = make_stopper({f"evaluation/{key}": 100}, evaluates=lambda trial: True)
    assert not within("t", {"episode_reward_mean": math.inf})
    assert within("t", {"evaluation": {"episode_reward_mean": 100.0}})


def test_actors_of_ape_x_keep_their_epsilon_and_say_so_of_settings_that_would_move_it(caplog):
    """RLlib's files of Ape-X have EpsilonGreedy's settings, which its actors do not look at either."""
    config = get_config_class("ApexDQN")().exploration(exploration_config={"epsilon_timesteps": 9, "epsilon": 0.3})
    found = config.exploration_settings().exploration
    assert found == {"type": "PerWorkerEpsilonGreedy", "epsilon": 0.3, "exponent": 7.0, "random_timesteps": 0}
    assert "exploration_config={'epsilon_timesteps': 9} has no effect" in caplog.text
    with pytest.raises(ValueError, match="there is no 'epsilon_timestep'"):
        get_config_class("ApexDQN")().exploration(exploration_config={"epsilon_timestep": 9})
