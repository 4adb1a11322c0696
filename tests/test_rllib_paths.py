"""RLlib's and Tune's module paths: what a program imports once it says `athlete` where it said `ray`."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import athlete
from athlete import tune
from athlete.algorithms import ALGORITHMS, NOT_HERE, get_config_class
from athlete.algorithms.ppo import PPOConfig
from athlete.core import hyper
from athlete.models.mlp import MLP
from athlete.rllib.names import ABSENT, HOMES, MODULES, find
from athlete.rllib.trainer import NOT_CALLED, algorithm_of
from athlete.tune.trainable import find_run, make_trainable

SMALL = {"train_batch_size": 64, "sgd_minibatch_size": 32, "num_sgd_iter": 1, "num_envs_per_worker": 2}


# Imports ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MODULES)
def test_every_name_of_the_table_is_there(path):
    module = importlib.import_module(f"athlete.{path}")
    for name in MODULES[path]:
        home = importlib.import_module(HOMES[name])
        assert getattr(module, name) is getattr(home, name)
    assert set(MODULES[path]) <= set(dir(module)) or path == "rllib"


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_has_its_module_class_and_settings(name):
    place = ALGORITHMS[name].rpartition(".")[2]
    module = importlib.import_module(f"athlete.rllib.algorithms.{place}")
    found = getattr(module, name)
    assert getattr(module, f"{name}Config") is get_config_class(name) is found.config_class
    assert getattr(importlib.import_module(f"athlete.rllib.agents.{place}.{place}"), f"{name}Trainer") is found
    assert getattr(importlib.import_module("athlete.rllib.algorithms"), name) is found
    assert importlib.import_module(found.__module__) is module
    assert get_config_class(first_in(place))().to_dict() == module.DEFAULT_CONFIG


def first_in(place):
    return next(name for name, path in ALGORITHMS.items() if path.endswith(f".{place}"))


def test_an_alias_and_rllibs_spelling_are_the_algorithm():
    assert find("rllib.algorithms.a3c", "A3CConfig") is get_config_class("A2C")
    assert find("rllib.algorithms.impala", "ImpalaConfig") is get_config_class("IMPALA")
    assert find("rllib.algorithms.qmix", "QMixConfig") is get_config_class("QMIX")
    assert find("rllib.algorithms.sac", "RNNSACConfig") is get_config_class("RNNSAC")
    assert find("rllib.algorithms.registry", "get_algorithm_class")("ppo") is algorithm_of("PPO")


@pytest.mark.parametrize(
    ("program", "told"),
    [
        (
            "from athlete.rllib.algorithms.mbmpo import MBMPOConfig",
            "RLlib's mbmpo is not here: there is no meta-learning",
        ),
        ("from athlete.rllib.models.torch.torch_modelv2 import TorchModelV2", "networks are JAX's here"),
        ("from athlete.rllib.utils.framework import try_import_torch", "networks are JAX's here"),
        ("from athlete.rllib.policy.torch_policy_v2 import TorchPolicyV2", "are one compiled program"),
        ("from athlete.rllib.algorithms.ppo import PPOConfi", "did you mean 'PPOConfig'"),
        ("from athlete.tune.logger import UnifiedLogger", "result.json, progress.csv and TensorBoard are written"),
        ("from athlete.train.rl import RLTrainer", "Ray Train is no part of it; `tune.Tuner` and"),
        ("from athlete.rllib.env.wrappers.pettingzoo_env import PettingZooEnv", "are taken as they are"),
        ("import athlete.rllib.nothing", "`Coming from RLlib` in the documentation lists"),
        ("from athlete.rllib.algorithms.callbacks import MultiCallbacks", "takes one class; its hooks may call"),
        ("from athlete.rllib.utils.replay_buffers import ReplayBuffer", "memories are chosen by name"),
        ("from athlete.tune.search.hyperopt import HyperOptSearch", "searchers are BasicVariantGenerator and Optuna"),
        ("from athlete.air.integrations.comet import CometLoggerCallback", "a tune.Callback sees every result"),
        ("from athlete.sb3 import BaseAlgorithm", "athlete.sb3 has no 'BaseAlgorithm'"),
        ("import athlete.sb3.common.base_class", "`Coming from Stable-Baselines3` in the documentation lists"),
    ],
)
def test_what_is_not_here_is_answered_by_a_sentence(program, told):
    with pytest.raises(ImportError, match=told):
        exec(program)


def test_a_mistyped_module_of_tune_is_pythons_own_error():
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'athlete\.tune\.nothing'"):
        importlib.import_module("athlete.tune.nothing")


def test_what_was_made_elsewhere_has_rllibs_paths_too():
    assert find("tune.registry", "get_trainable_cls")("DQN") is algorithm_of("DQN")
    integrations = importlib.import_module("athlete.tune.integrations")
    assert find("air.integrations.wandb", "WandbLoggerCallback") is integrations.WandbLoggerCallback
    assert find("tune.schedulers.pb2", "PB2") is importlib.import_module("athlete.tune.schedulers").PB2


def test_attributes_of_rllibs_that_are_not_there_say_what_there_is_instead():
    with PPOConfig().environment("CartPole-v1").update_from_dict(SMALL).build() as algo:
        with pytest.raises(AttributeError, match="'Algorithm' object has no attribute 'workers': environments are"):
            algo.workers.local_worker()
        with pytest.raises(AttributeError, match=r"'export_policy_model': policy\.export"):
            algo.export_policy_model("here")
        with pytest.raises(AttributeError, match="'Policy' object has no attribute 'model': get_weights"):
            _ = algo.get_policy().model
        with pytest.raises(AttributeError) as caught:
            algo.trian()
    assert str(caught.value) == "'Algorithm' object has no attribute 'trian'" and caught.value.obj is algo


def test_no_name_is_both_here_and_not():
    assert not ABSENT.keys() & HOMES.keys()
    assert not set(NOT_HERE) & {name.lower() for name in ALGORITHMS}


def test_there_is_no_cluster(caplog):
    athlete.init(num_cpus=4)
    athlete.shutdown()
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "athlete.init()",
        "athlete.shutdown()",
    ]
    assert athlete.is_initialized()
    with pytest.raises(AttributeError, match="module 'athlete' has no 'remote': there is no cluster"):
        athlete.remote(lambda: 1)


def test_the_paths_import_nothing_heavy():
    program = "import athlete\nfrom athlete.air import session\nimport athlete.rllib.env, sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert not set(done.stdout.split()) & {"jax", "numpy", "gymnasium", "pandas", "rich", "yaml"}


# Algorithms -------------------------------------------------------------------------------------------------------


def test_an_algorithm_is_made_of_a_dictionary_and_an_environment():
    config = find("rllib.agents.ppo", "DEFAULT_CONFIG").copy()
    config.update(SMALL, num_workers=0, framework="torch")
    config["lambda"] = 0.9
    with algorithm_of("PPO")(config=config, env="CartPole-v1") as algo:
        assert algo.config.chosen() == {
            "env": "CartPole-v1",
            "lambda_": 0.9,
            "minibatch_size": 32,
            "num_envs_per_worker": 2,
            "num_epochs": 1,
            "num_rollout_workers": 0,
            "train_batch_size": 64,
        }
        assert algo.train()["timesteps_total"] == 64


def test_default_settings_are_new_ones_each_time():
    first = find("rllib.agents.dqn", "DEFAULT_CONFIG")
    first["model"]["fcnet_hiddens"] = [3]
    assert find("rllib.agents.dqn", "DEFAULT_CONFIG")["model"] == {}


class Extended(algorithm_of("PPO")):
    """A subclass as RLlib's users write it."""

    ended = 0

    @classmethod
    def get_default_config(cls):
        return PPOConfig().training(train_batch_size=64, minibatch_size=32, num_epochs=1)

    def setup(self, config):
        super().setup(config)
        self.seen = config["train_batch_size"]

    def cleanup(self):
        super().cleanup()
        self.ended += 1


def test_setup_default_settings_and_cleanup_of_a_subclass_are_called():
    algo = Extended(config={"num_envs_per_worker": 2}, env="CartPole-v1")
    assert (algo.seen, algo.config.num_epochs, algo.config.num_envs_per_worker) == (64, 1, 2)
    algo.stop()
    algo.stop()
    assert algo.ended == 1


def test_a_configuration_builds_the_class_that_it_was_given():
    algo = PPOConfig(algo_class=Extended).copy().environment("CartPole-v1").build()
    assert type(algo) is Extended and algo.config.train_batch_size == PPOConfig().train_batch_size
    algo.stop()


def test_tune_runs_rllibs_classes_and_subclasses_of_them():
    assert find_run(algorithm_of("DQN"), {})[0] is get_config_class("DQN")
    assert find_run(Extended, {})[0] is Extended
    trial = make_trainable(Extended, PPOConfig().environment("CartPole-v1"))
    assert type(trial) is Extended
    trial.stop()


@pytest.mark.parametrize("name", NOT_CALLED)
def test_a_method_that_nothing_would_call_is_refused(name):
    with pytest.raises(TypeError, match=rf"Bad\.{name} would never be called: "):
        type("Bad", (algorithm_of("PPO"),), {name: lambda self: None})


def test_an_algorithm_without_a_name_and_one_of_another_are_refused():
    with pytest.raises(TypeError, match=r"Algorithm has no algorithm: subclass one"):
        find("rllib.algorithms.algorithm", "Algorithm")(env="CartPole-v1")
    with pytest.raises(ValueError, match=r"DQN\(config=PPOConfig\(\.\.\.\)\): that is another algorithm's"):
        algorithm_of("DQN")(config=PPOConfig(), env="CartPole-v1")


# Utilities --------------------------------------------------------------------------------------------------------


@hyper
class Named(MLP):
    """A network that programs register under a name."""


def test_a_registered_network_is_known_by_its_name():
    catalog = find("rllib.models", "ModelCatalog")
    catalog.register_custom_model("mine", Named)
    config = PPOConfig().training(model={"custom_model": "mine", "custom_model_config": {"hiddens": (7,)}})
    assert config.model["custom_model"] == Named((7,))
    with pytest.raises(ValueError, match=r"model=\{'custom_model': 'their'\}: give an instance, or a name"):
        PPOConfig().training(model={"custom_model": "their"})
    with pytest.raises(ValueError, match=r"register_custom_model\('net', 'int'\): networks are JAX's"):
        catalog.register_custom_model("net", int)


@pytest.mark.parametrize("method", ["register_custom_preprocessor", "register_custom_action_dist"])
def test_preprocessors_and_distributions_are_answered(method):
    with pytest.raises(NotImplementedError, match=rf"{method}\('mine'\): "):
        getattr(find("rllib.models", "ModelCatalog"), method)("mine", None)


def test_override_checks_that_there_is_something_to_override():
    override = find("rllib.utils.annotations", "override")

    class Right(tune.Callback):
        @override(tune.Callback)
        def on_trial_result(self, *arguments, **more):
            """Found."""

    assert Right
    with pytest.raises(NameError, match="Callback has no 'on_trial_reslt' to override"):
        override(tune.Callback)(named("on_trial_reslt"))


def named(name):
    def function():
        """Nothing."""

    function.__name__ = name
    return function


def test_check_learning_achieved_reads_the_last_results():
    check = find("rllib.utils.test_utils", "check_learning_achieved")

    class Results:
        results = {"a": {"episode_reward_mean": 3.0, "evaluation": {"episode_reward_mean": 9.0}}, "b": {}}  # noqa: RUF012

    check(Results(), 3.0)
    check(Results(), 9.0, evaluation=True)
    with pytest.raises(ValueError, match="episode_reward_mean of 4 was not reached: the best trial has 3"):
        check(Results(), 4.0)
