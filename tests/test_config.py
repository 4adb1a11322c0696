"""Configurations: RLlib's names, checked at the call that gives them."""

from __future__ import annotations

import logging
import math
import re

import numpy as np
import pytest

from athlete import tune
from athlete.algorithms import ALGORITHMS, get_config_class
from athlete.algorithms.dqn import DQNConfig
from athlete.algorithms.dreamerv3 import DreamerV3Config
from athlete.algorithms.ppo import PPOConfig
from athlete.algorithms.sac import SACConfig
from athlete.callbacks import DefaultCallbacks
from athlete.core import Spec
from athlete.models.mlp import MLP
from athlete.ops.schedule import Schedule
from athlete.settings.config import AlgorithmConfig
from athlete.settings.rllib_names import (
    IGNORED,
    OTHER_SECTIONS,
    REFUSED,
    SECTIONS,
    SPELLINGS,
    STABLE_BASELINES,
    UNSERVED,
)
from athlete.settings.table import SETTINGS
from athlete.spaces import Box, Discrete
from athlete.tuned_examples.experiment_file import read_experiments

SPEC = Spec(Box(-1, 1, (3,)), Discrete(2))


def agent_of(config):
    """The agent that a configuration makes, inside its normalisation if it has one."""
    agent = config.make_agent(SPEC)
    return getattr(agent, "agent", agent)


# Sections ---------------------------------------------------------------------------------------------------------


def test_sections_chain_merge_and_keep_what_they_do_not_name():
    config = (
        PPOConfig()
        .environment("CartPole-v1", env_config={"a": 1})
        .rollouts(num_envs_per_worker=4)
        .training(lr=1e-3, model={"fcnet_hiddens": [32]})
        .environment(env_config={"b": 2})
        .training(gamma=0.9, model={"fcnet_activation": "relu"})
    )
    assert (config.env, config.env_config) == ("CartPole-v1", {"a": 1, "b": 2})
    assert (config.lr, config.gamma, config.num_envs_per_worker) == (1e-3, 0.9, 4)
    assert config.model == {"fcnet_hiddens": [32], "fcnet_activation": "relu"}
    assert config.chosen().keys() == {"env", "env_config", "num_envs_per_worker", "lr", "gamma", "model"}


def test_every_section_of_the_walkthrough_is_there():
    config = PPOConfig()
    for section in (
        *("environment", "rollouts", "training", "resources", "framework", "evaluation", "debugging", "reporting"),
        *("callbacks", "exploration", "fault_tolerance", "api_stack", "learners", "env_runners"),
    ):
        assert getattr(config, section)() is config


def test_settings_are_read_and_written_as_attributes_and_entries_too():
    config = PPOConfig()
    config.lr = 1e-3
    config["gamma"] = 0.9
    config.num_sgd_iter = 3  # RLlib's spelling
    assert (config["lr"], config.gamma, config.num_epochs, config.get("num_sgd_iter")) == (1e-3, 0.9, 3, 3)
    assert "lr" in config
    assert "lambda" in config
    assert "learning_rate" not in config
    assert config.get("learning_rate", 7) == 7


def test_reading_and_writing_an_unknown_attribute_names_the_nearest():
    config = PPOConfig()
    with pytest.raises(AttributeError, match=r"PPO has no 'gama'; did you mean 'gamma'\?"):
        _ = config.gama
    with pytest.raises(AttributeError, match=r"PPO has no 'gama'; did you mean 'gamma'\?"):
        config.gama = 0.9


# Errors at the call -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "settings", "message"),
    [
        ("training", {"gama": 0.9}, r"training\(gama=0\.9\): PPO has no 'gama'; did you mean 'gamma'\?"),
        ("training", {"learning_rat": 1}, r"PPO has no 'learning_rat'"),
        ("rollouts", {"num_env_per_worker": 2}, r"no 'num_env_per_worker'; did you mean 'num_envs_per_worker'\?"),
        ("training", {"zzz": 1}, r"PPO has no 'zzz'; \.training\(\.\.\.\) takes train_batch_size, model, lr_sch"),
        ("rollouts", {"lr": 1e-3}, r"rollouts\(lr=0\.001\): 'lr' belongs to \.training\(\.\.\.\)"),
        ("training", {"env_config": {}}, r"'env_config' belongs to \.environment\(\.\.\.\)"),
        (
            "training",
            {"lr": "fast"},
            r"training\(lr='fast'\): expected a number of at least 0.* or a schedule .*, got str",
        ),
        ("training", {"lr": True}, r"expected a number of at least 0.*got bool True"),
        ("training", {"lr": -1e-3}, r"training\(lr=-0\.001\): expected a number of at least 0"),
        ("training", {"lr": math.nan}, r"expected a number of at least 0"),
        ("training", {"lr": math.inf}, r"expected a number of at least 0"),
        ("training", {"lr": None}, r"expected a value, not None"),
        ("training", {"gamma": 1.01}, r"training\(gamma=1\.01\): expected a number between 0 and 1, got float 1\.01"),
        ("training", {"gamma": -0.1}, r"between 0 and 1"),
        ("training", {"lambda_": 2}, r"training\(lambda_=2\): expected a number between 0 and 1"),
        ("training", {"entropy_coeff": math.inf}, r"expected a number that is finite"),
        ("training", {"train_batch_size": 0}, r"train_batch_size=0\): expected a whole number of at least 1"),
        ("training", {"train_batch_size": 10.5}, r"whole number of at least 1, got float 10\.5"),
        ("training", {"minibatch_size": 0}, r"minibatch_size=0\): expected a whole number of at least 1"),
        ("training", {"num_epochs": 2.0}, r"whole number of at least 1, got float 2\.0"),
        ("training", {"sgd_minibatch_size": -1}, r"training\(sgd_minibatch_size=-1\)"),
        ("training", {"lr_schedule": [[0, -1e-3]]}, r"lr_schedule=.*expected values of at least 0"),
        ("training", {"lr": [[0, 1e-3], [1000, -1.0]]}, r"expected values of at least 0"),
        ("training", {"lr": [[0, 1e-3], [0, 1e-4]]}, r"\[\[timestep, value\], \.\.\.\] with increasing timesteps"),
        ("training", {"entropy_coeff_schedule": [[100, 0.1], [50, 0.0]]}, r"with increasing timesteps, or None"),
        ("training", {"lr_schedule": [1e-3, 1e-4]}, r"\[\[timestep, value\], \.\.\.\]"),
        ("training", {"model": 64}, r"expected a dictionary, got int 64"),
        (
            "training",
            {"model": {"fcnet_hidden": [64]}},
            r"a model has no 'fcnet_hidden'; did you mean 'fcnet_hiddens'\?",
        ),
        ("rollouts", {"num_envs_per_worker": 0}, r"whole number of at least 1"),
        ("rollouts", {"num_rollout_workers": -1}, r"whole number of at least 0"),
        ("rollouts", {"rollout_fragment_length": "all"}, r"at least 1, or 'auto', got str 'all'"),
        ("rollouts", {"observation_filter": "MeanStd"}, r"expected one of 'NoFilter', 'MeanStdFilter'"),
        ("environment", {"backend": "torch"}, r"expected one of 'auto', 'jax', 'gymnasium'"),
        ("environment", {"env_config": [1]}, r"expected a dictionary, got list"),
        ("environment", {"disable_env_checking": 1}, r"expected True or False, got int 1"),
        ("evaluation", {"evaluation_interval": -1}, r"whole number of at least 0, or None"),
        ("evaluation", {"evaluation_duration_unit": "steps"}, r"expected one of 'episodes', 'timesteps'"),
        (
            "evaluation",
            {"evaluation_config": {"explor": True}},
            r"evaluation_config.*no 'explor'; did you mean 'explore'\?",
        ),
        ("debugging", {"seed": 1.5}, r"whole number of at least 0, or None, got float 1\.5"),
        ("debugging", {"log_level": "LOUD"}, r"expected one of 'DEBUG'"),
        ("resources", {"num_gpus": "all"}, r"expected a finite number of at least 0"),
        ("callbacks", {"callbacks": "MyCallbacks"}, r"expected a subclass of athlete.callbacks.DefaultCallbacks"),
    ],
)
def test_what_cannot_be_is_an_error_at_the_call(section, settings, message):
    config = PPOConfig()
    before = config.to_dict()
    with pytest.raises(ValueError, match=message):
        getattr(config, section)(**settings)
    assert config.to_dict() == before


def test_a_schedule_of_what_an_algorithm_does_not_have_is_an_error_at_the_call():
    from athlete.algorithms.sac import SACConfig

    message = r"training\(lr_schedule=.*SAC has a learning rate for each of its networks: set actor_lr, critic_lr"
    with pytest.raises(ValueError, match=message):
        SACConfig().training(lr_schedule=[[0, 1e-3], [1000, 0.0]])
    assert SACConfig().training(lr_schedule=None).lr_schedule is None


def test_an_error_leaves_nothing_of_its_call_behind():
    config = PPOConfig()
    with pytest.raises(ValueError, match="gama"):
        config.training(lr=0.5, gama=0.9)
    assert config.lr != 0.5


def test_a_minibatch_larger_than_the_batch_is_an_error_at_the_call_or_at_build():
    with pytest.raises(ValueError, match=r"minibatch_size=200 does not fit train_batch_size=100"):
        PPOConfig().training(train_batch_size=100, minibatch_size=200)
    with pytest.raises(ValueError, match=r"minibatch_size=200 does not fit train_batch_size=100"):
        PPOConfig().training(train_batch_size=100).training(sgd_minibatch_size=200)
    config = PPOConfig().environment("CartPole-v1").training(minibatch_size=200)
    config.rollouts(num_envs_per_worker=4, rollout_fragment_length=25)
    message = r"minibatch_size=200 does not fit a batch of 100 timesteps \(4 environments x 25 steps\)"
    with pytest.raises(ValueError, match=message):
        config.build()


def test_a_default_minibatch_shrinks_to_a_small_batch():
    config = PPOConfig().rollouts(num_envs_per_worker=2).training(train_batch_size=10)
    assert agent_of(config).minibatch_size == 10


@pytest.mark.parametrize("value", [0, 0.5, np.float32(0.5), np.int64(0), np.float64(1.0)])
def test_every_kind_of_number_is_a_number_and_is_kept_as_pythons(value):
    config = PPOConfig().training(gamma=value)
    assert config.gamma == value
    assert type(config.gamma) in (int, float)


def test_whole_numbers_of_numpy_are_whole_numbers():
    assert type(PPOConfig().training(num_epochs=np.int64(3)).num_epochs) is int


@pytest.mark.parametrize("name", ["grad_clip", "vf_clip_param"])
def test_no_limit_is_none_or_infinity(name):
    assert getattr(PPOConfig().training(**{name: math.inf}), name) == math.inf
    assert getattr(PPOConfig().training(**{name: None}), name) is None


# Building ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Spec(Box(-1, 1, (0,)), Discrete(2)), r"observation_space Box.*has no entry; .* use Discrete\(1\)"),
        (Spec(Box(-1, 1, (2,)), Box(-1, 1, (0,))), r"action_space Box.*has no entry: there is nothing to learn"),
    ],
)
def test_a_space_without_an_entry_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        PPOConfig().make_agent(spec)


def test_build_needs_an_environment_and_an_algorithm():
    with pytest.raises(ValueError, match=r"PPO: no environment; say \.environment\('CartPole-v1'\)"):
        PPOConfig().build()
    with pytest.raises(ValueError, match=r"AlgorithmConfig has no algorithm to build; .* such as PPOConfig\(\)"):
        AlgorithmConfig().build(env="CartPole-v1")


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": tune.uniform(0.0, 1.0)},
        {"lr": tune.grid_search([1e-3, 1e-4])},
        {"model": {"fcnet_hiddens": tune.grid_search([[8], [16]])}},
        {"minibatch_size": tune.choice([64, 128])},
        {"env_config": {"goal": tune.randint(0, 9)}},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_search_spaces_pass_in_a_configuration_and_are_refused_by_build(settings):
    config = PPOConfig.from_dict(settings)
    assert config.to_dict()[next(iter(settings))] == next(iter(settings.values()))
    with pytest.raises(ValueError, match=r"is a search space; give the config to tune\.run"):
        config.build(env="CartPole-v1")


def test_rows_steps_and_batches():
    config = PPOConfig().rollouts(num_rollout_workers=2, num_envs_per_worker=3).training(train_batch_size=100)
    assert (config.rows(), config.fragment_length()) == (6, 17)  # rounded up: 102 timesteps
    config.rollouts(num_rollout_workers=0)
    assert (config.rows(), config.fragment_length()) == (3, 34)
    assert PPOConfig().rollouts(num_envs_per_worker=4, rollout_fragment_length=25).fragment_length() == 25


def test_a_batch_is_whole_fragments_as_in_rllib_where_both_are_set():
    config = PPOConfig().rollouts(num_envs_per_worker=2, rollout_fragment_length=20).training(train_batch_size=100)
    assert config.fragment_length() == 60  # 2 x 20, three times: 120 timesteps
    config.training(train_batch_size=30)
    assert config.fragment_length() == 20


def test_batches_of_recurrent_networks_are_whole_sequences():
    config = PPOConfig().rollouts(num_envs_per_worker=1).training(train_batch_size=100, model={"use_gru": True})
    assert (config.sequence_length(), config.fragment_length()) == (16, 112)
    config.training(model={"max_seq_len": 25})
    assert config.fragment_length() == 100
    assert agent_of(config).max_seq_len == 25
    assert PPOConfig().training(model={"max_seq_len": 25}).sequence_length() == 1, "no memory, no sequences"


def test_model_settings_reach_the_agent():
    assert agent_of(PPOConfig()).free_log_std is True
    assert agent_of(PPOConfig().training(model={"free_log_std": False})).free_log_std is False
    assert agent_of(PPOConfig()).log_std_init == 0.0
    assert agent_of(PPOConfig().training(model={"log_std_init": -1})).log_std_init == -1.0
    assert agent_of(PPOConfig().training(model={"vf_share_layers": True, "fcnet_hiddens": [7]})).model == MLP((7,))


def test_what_evaluation_cannot_change_is_accepted_with_one_line(caplog):
    with caplog.at_level(logging.INFO, "athlete"):
        PPOConfig().evaluation(evaluation_config={"explore": True, "num_workers": 0})
    (record,) = caplog.records
    assert "'num_workers' is the same in evaluation as in training" in record.getMessage()


# Schedules --------------------------------------------------------------------------------------------------------


def test_schedules_in_timesteps_become_shares_of_the_last_point():
    config = PPOConfig().training(lr_schedule=[[0, 1e-3], [1000, 0.0]], clip_param=[[0, 0.2], [500, 0.1]])
    assert config.horizon() == 1000
    agent = agent_of(config)
    assert agent.lr == Schedule((0.0, 1.0), (1e-3, 0.0))
    assert agent.clip_param == Schedule((0.0, 0.5), (0.2, 0.1))


def test_a_schedule_by_its_own_name_goes_before_the_number():
    agent = agent_of(PPOConfig().training(entropy_coeff=0.5, entropy_coeff_schedule=[[0, 0.1], [10, 0.0]]))
    assert agent.entropy_coeff == Schedule((0.0, 1.0), (0.1, 0.0))
    assert agent_of(PPOConfig().training(lr=0.5, lr_schedule=None)).lr == 0.5


# Other spellings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("other", "ours"), SPELLINGS.items())
def test_every_other_spelling_leads_to_a_setting(other, ours):
    """`max_grad_norm` and the rest are names that users bring; what they lead to must exist and take its default."""
    config = next(config for config in (PPOConfig(), SACConfig(), DreamerV3Config()) if ours in config)
    assert other not in SETTINGS
    default = config[ours]
    config.update_from_dict({other: default})
    assert config.chosen() == {ours: default}


@pytest.mark.parametrize(("other", "ours"), SECTIONS.items())
def test_renamed_sections_lead_to_ours(other, ours):
    config = PPOConfig()
    assert getattr(config, other) == getattr(config, ours)


def test_rllibs_old_dictionary_reads_as_it_is():
    config = PPOConfig.from_dict(
        {"env": "CartPole-v1", "num_workers": 2, "sgd_minibatch_size": 64, "num_sgd_iter": 4, "lambda": 0.9}
    )
    assert (config.num_rollout_workers, config.minibatch_size, config.num_epochs, config.lambda_) == (2, 64, 4, 0.9)
    config = PPOConfig().env_runners(num_env_runners=1, num_envs_per_env_runner=5)
    assert (config.num_rollout_workers, config.num_envs_per_worker) == (1, 5)


def test_another_framework_is_accepted_with_one_line_that_says_what_runs_instead(caplog):
    with caplog.at_level(logging.INFO, "athlete"):
        config = PPOConfig().framework("torch")
    assert [record.getMessage() for record in caplog.records] == [
        "framework(framework='torch'): networks run on JAX whatever the framework"
    ]
    assert "framework" not in config.to_dict()
    caplog.clear()
    with caplog.at_level(logging.INFO, "athlete"):
        PPOConfig().framework("jax").framework()
    assert not caplog.records


@pytest.mark.parametrize("name", IGNORED)
def test_settings_that_mean_nothing_here_are_accepted_with_one_line(name, caplog):
    with caplog.at_level(logging.INFO, "athlete"):
        config = PPOConfig().update_from_dict({name: 1})
    assert [record.getMessage() for record in caplog.records] == [f"{name}=1: {IGNORED[name]}"]
    assert not config.chosen()


# Copies and dictionaries ------------------------------------------------------------------------------------------


def example():
    return (
        PPOConfig()
        .environment("CartPole-v1", env_config={"deep": {"list": [1, 2]}})
        .training(lr=[[0, 1e-3], [100, 0.0]], model={"fcnet_hiddens": [8, 8]})
        .debugging(seed=3)
    )


def test_a_dictionary_makes_the_same_configuration_again():
    again = PPOConfig.from_dict(example().to_dict())
    assert again.to_dict() == example().to_dict()
    assert PPOConfig.from_dict(example().chosen()).to_dict() == example().to_dict()
    assert again.to_dict().keys() >= SETTINGS.keys()


@pytest.mark.parametrize(
    "other", [lambda config: config.copy(), lambda config: config.to_dict(), lambda config: config.chosen()]
)
def test_copies_and_dictionaries_are_independent(other):
    config = example()
    config_copy = other(config)
    config_copy["model"]["fcnet_hiddens"].append(99)
    config_copy["env_config"]["deep"]["list"].append(99)
    config_copy["seed"] = 4
    assert config.to_dict() == example().to_dict()


def test_what_the_user_passed_stays_the_users():
    hiddens, deep = [8], {"list": [1]}
    config = PPOConfig().training(model={"fcnet_hiddens": hiddens}).environment(env_config={"deep": deep})
    hiddens.append(9)
    deep["list"].append(2)
    assert config.model == {"fcnet_hiddens": [8]}
    assert config.env_config == {"deep": {"list": [1]}}


def test_a_copy_keeps_the_users_callbacks_object():
    """Its owner reads from it what it saw."""
    mine = DefaultCallbacks()
    assert PPOConfig().callbacks(mine).copy().to_dict()["callbacks"] is mine


def test_a_frozen_configuration_refuses_changes_and_its_copy_does_not():
    config = example()
    config.freeze()
    for change in (
        lambda: config.training(lr=1.0),
        lambda: setattr(config, "lr", 1.0),
        lambda: config.update_from_dict({"lr": 1.0}),
    ):
        with pytest.raises(
            AttributeError, match=r"the configuration of a built algorithm is frozen; change a \.copy\(\)"
        ):
            change()
    assert config.copy().training(lr=0.25).lr == 0.25
    with pytest.raises(AttributeError, match="frozen"):
        config.copy(copy_frozen=True).training(lr=0.25)


def test_a_configuration_shows_what_was_chosen():
    assert repr(PPOConfig().training(lr=0.1).debugging(seed=3)) == "PPOConfig(lr=0.1, seed=3)"


# Algorithms by name -----------------------------------------------------------------------------------------------


def test_algorithms_are_found_by_name():
    assert get_config_class("ppo") is get_config_class("PPO") is PPOConfig
    assert "PPO" in ALGORITHMS
    with pytest.raises(ValueError, match=r"there is no algorithm 'PPOO'; did you mean 'PPO'\?"):
        get_config_class("PPOO")
    with pytest.raises(ValueError, match=r"there is no algorithm 'Q'; Athlete has: PPO"):
        get_config_class("Q")


@pytest.mark.parametrize("name", ["model", "replay_buffer_config", "exploration_config", "evaluation_config"])
def test_keys_that_are_no_texts_are_refused_by_name(name):
    with pytest.raises(ValueError, match=rf"{name}=.*keys are texts, got the key 1"):
        DQNConfig.from_dict({name: {1: 2}})
    with pytest.raises(ValueError, match="DQN has no 1"):
        DQNConfig.from_dict({1: 2})


@pytest.mark.parametrize("name", ["replay_buffer_config", "exploration_config"])
@pytest.mark.parametrize("kind", [[1], {"a": 1}, 5])
def test_a_type_that_is_no_name_is_refused(name, kind):
    with pytest.raises(ValueError, match="'type': "):
        DQNConfig.from_dict({name: {"type": kind}})


def test_numbers_of_settings_are_finite():
    for name in ("min_time_s_per_iteration", "training_intensity"):
        with pytest.raises(ValueError, match=f"{name}=inf.*finite number"):
            DQNConfig.from_dict({name: float("inf")})
    with pytest.raises(ValueError, match=r"training_intensity=0.*above 0"):
        DQNConfig().training(training_intensity=0)


@pytest.mark.parametrize(
    ("section", "name", "sentence"),
    [
        ("training", "learning_rate", "PPO has no 'learning_rate'; Stable-Baselines3's learning_rate is lr here"),
        ("training", "n_epochs", "Stable-Baselines3's n_epochs is num_epochs here"),
    ],
)
def test_names_of_stable_baselines_are_answered_with_ours(section, name, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        getattr(PPOConfig(), section)(**{name: 1})
    assert not STABLE_BASELINES.keys() & {*PPOConfig().to_dict(), *SPELLINGS, *IGNORED}


def test_networks_of_stable_baselines_are_answered_with_ours():
    with pytest.raises(ValueError, match=r"a model has no 'net_arch'; did you mean 'fcnet_hiddens'\?"):
        PPOConfig().training(model={"net_arch": [64]})


# Settings of RLlib's that are known and not served ----------------------------------------------------------------


@pytest.mark.parametrize("name", UNSERVED)
def test_a_setting_without_a_counterpart_is_a_warning_where_it_is_switched_on(name, caplog):
    config = (SACConfig if name == "optimizer" else PPOConfig)().update_from_dict({name: None})
    assert not caplog.records
    config[name] = 1
    assert [record.getMessage() for record in caplog.records] == [f"{name}=1 has no effect: {UNSERVED[name]}"]
    assert [record.levelname for record in caplog.records] == ["WARNING"] and not config.chosen()


@pytest.mark.parametrize("name", REFUSED)
def test_a_setting_without_which_the_program_is_another_is_an_error_where_it_is_switched_on(name):
    assert not PPOConfig().update_from_dict({name: None}).chosen()
    with pytest.raises(ValueError, match=re.escape(f"{name}=['x']: {REFUSED[name]}")):
        PPOConfig().update_from_dict({name: ["x"]})


def test_horizon_is_the_same_in_a_call_an_attribute_and_a_file(caplog, tmp_path):
    config = PPOConfig().rollouts(horizon=200)
    config.horizon = 200
    (tmp_path / "file.yaml").write_text("mine: {run: PPO, env: CartPole-v1, config: {horizon: 200}}")
    read_experiments(tmp_path / "file.yaml")
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3 and all(message.endswith(UNSERVED["horizon"]) for message in messages)
    assert config.horizon() == 1.0  # that of schedules, as it was


@pytest.mark.parametrize("section", OTHER_SECTIONS)
def test_sections_that_hold_only_such_settings_are_there(section):
    assert getattr(PPOConfig(), section)(render_env=False).chosen() == {}
    with pytest.raises(ValueError, match=rf"{section}\(learner_class=1\): on_learn_on_batch sees batches"):
        getattr(PPOConfig(), section)(learner_class=1)


def test_the_general_configuration_has_the_general_settings_of_training():
    config = AlgorithmConfig().training(gamma=0.9, lr=[[0, 1e-3], [100, 1e-4]], grad_clip=0.5)
    assert {name: config.to_dict()[name] for name in ("gamma", "grad_clip")} == {"gamma": 0.9, "grad_clip": 0.5}
    assert AlgorithmConfig().to_dict()["lr"] == 1e-3
    assert PPOConfig.from_dict(config.chosen()).lr == [[0, 1e-3], [100, 1e-4]]
    with pytest.raises(ValueError, match=r"training\(lr='fast'\): expected a number or \[\[timestep"):
        AlgorithmConfig().training(lr="fast")


def test_evaluation_may_differ_by_overrides_and_by_a_configuration():
    assert PPOConfig().evaluation(evaluation_config=PPOConfig.overrides(explore=True)).evaluation_config == {
        "explore": True
    }
    other = PPOConfig().environment(env_config={"gravity": 5.0})
    assert PPOConfig().evaluation(evaluation_config=other).evaluation_config == {"env_config": {"gravity": 5.0}}
    assert PPOConfig().evaluation(evaluation_duration="auto").evaluation_duration == "auto"
