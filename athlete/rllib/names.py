"""The one table of module paths of RLlib, Tune and Stable-Baselines3, and the finder that makes modules of it."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from athlete.algorithms import ALGORITHMS, ALIASES, told_of_absent

TRAINER, UTILITIES = "athlete.rllib.trainer", "athlete.rllib.utilities"

# What RLlib's annotations say.
TYPES = (
    *("AgentID", "EnvID", "EpisodeID", "PolicyID"),
    *("EnvType", "EnvCreator", "EnvConfigDict", "EnvActionType", "EnvObsType", "EnvInfoDict", "MultiAgentDict"),
    *("AlgorithmConfigDict", "PartialAlgorithmConfigDict", "TrainerConfigDict", "ModelConfigDict", "ModelWeights"),
    *("ResultDict", "GradInfoDict", "TensorType", "TensorStructType"),
)
# Name of theirs -> the module in which it is here.
HOMES: dict[str, str] = {
    "Algorithm": TRAINER,
    "Trainer": TRAINER,
    "get_algorithm_class": TRAINER,
    "get_trainer_class": TRAINER,
    "get_trainable_cls": TRAINER,
    "AlgorithmConfig": "athlete.settings.config",
    "DefaultCallbacks": "athlete.callbacks",
    "EnvContext": "athlete.env.registry",
    "register_env": "athlete.env.registry",
    "MultiAgentEnv": "athlete.env.adapters.multi_agent_env",
    "make_multi_agent": "athlete.env.adapters.multi_agent_env",
    "PolicyClient": "athlete.serve",
    "PolicyServerInput": "athlete.serve",
    "MODEL_DEFAULTS": "athlete.models.catalog",
    "ModelCatalog": UTILITIES,
    "Policy": "athlete.policy",
    "PolicySpec": "athlete.settings.multi_agent",
    "SampleBatch": UTILITIES,
    "DEFAULT_POLICY_ID": UTILITIES,
    "check_env": "athlete.env.checks.check",
    "check_learning_achieved": UTILITIES,
    "override": UTILITIES,
    "pretty_print": "athlete.record.pretty",
    "register_trainable": "athlete.tune",
    **dict.fromkeys(("RunConfig", "CheckpointConfig", "FailureConfig", "Result"), "athlete.tune.tuner"),
    "ScalingConfig": UTILITIES,
    "Checkpoint": UTILITIES,
    **dict.fromkeys(("report", "get_checkpoint"), "athlete.tune"),
    **dict.fromkeys(("CLIReporter", "JupyterNotebookReporter", "ProgressReporter"), "athlete.record.progress"),
    **dict.fromkeys(("evaluate_policy", "make_vec_env", "SubprocVecEnv", "DummyVecEnv"), "athlete.sb3"),
    **dict.fromkeys(("ExperimentAnalysis", "ResultGrid", "Callback"), "athlete.tune"),
    **dict.fromkeys(("WandbLoggerCallback", "MLflowLoggerCallback"), "athlete.tune.integrations"),
    **dict.fromkeys(("PB2", "PopulationBasedTraining", "MedianStoppingRule"), "athlete.tune.schedulers"),
    **dict.fromkeys(("ASHAScheduler", "AsyncHyperBandScheduler", "HyperBandScheduler"), "athlete.tune.schedulers"),
    **dict.fromkeys(("OptunaSearch", "ConcurrencyLimiter", "BasicVariantGenerator"), "athlete.tune.search"),
    **dict.fromkeys(TYPES, UTILITIES),
}

PACKAGES = ("rllib", "air", "tune", "sb3", "train", "data", "util")
_RUNS = ("RunConfig", "CheckpointConfig", "FailureConfig", "ScalingConfig")
_REPORTERS = ("CLIReporter", "JupyterNotebookReporter", "ProgressReporter")

# Path of a module behind `athlete.` -> the names that it has there.
MODULES: dict[str, tuple[str, ...]] = {
    "rllib": ("Policy", "MultiAgentEnv", "SampleBatch"),
    "rllib.algorithms": ("Algorithm", "AlgorithmConfig"),
    "rllib.algorithms.algorithm": ("Algorithm",),
    "rllib.algorithms.algorithm_config": ("AlgorithmConfig",),
    "rllib.algorithms.callbacks": ("DefaultCallbacks",),
    "rllib.algorithms.registry": ("get_algorithm_class",),
    "rllib.agents": ("Trainer", "DefaultCallbacks"),
    "rllib.agents.trainer": ("Trainer",),
    "rllib.agents.callbacks": ("DefaultCallbacks",),
    "rllib.agents.registry": ("get_trainer_class",),
    "rllib.env": ("EnvContext", "MultiAgentEnv", "PolicyClient", "PolicyServerInput"),
    "rllib.env.env_context": ("EnvContext",),
    "rllib.env.multi_agent_env": ("MultiAgentEnv", "make_multi_agent"),
    "rllib.env.policy_client": ("PolicyClient",),
    "rllib.env.policy_server_input": ("PolicyServerInput",),
    "rllib.models": ("ModelCatalog", "MODEL_DEFAULTS"),
    "rllib.models.catalog": ("ModelCatalog", "MODEL_DEFAULTS"),
    "rllib.policy": ("Policy",),
    "rllib.policy.policy": ("Policy", "PolicySpec"),
    "rllib.policy.sample_batch": ("SampleBatch", "DEFAULT_POLICY_ID"),
    "rllib.utils": ("check_env", "override"),
    "rllib.utils.annotations": ("override",),
    "rllib.utils.pre_checks": ("check_env",),
    "rllib.utils.pre_checks.env": ("check_env",),
    "rllib.utils.test_utils": ("check_learning_achieved",),
    "rllib.utils.typing": TYPES,
    "air": (*_RUNS, "Checkpoint", "Result"),
    "air.checkpoint": ("Checkpoint",),
    "air.config": _RUNS,
    "air.result": ("Result",),
    "air.session": ("report", "get_checkpoint"),
    **{
        f"{place}.{service}": (name,)
        for place in ("air.integrations", "air.callbacks", "tune.integration")
        for service, name in (("wandb", "WandbLoggerCallback"), ("mlflow", "MLflowLoggerCallback"))
    },
    "tune.registry": ("register_env", "register_trainable", "get_trainable_cls"),
    "tune.schedulers.async_hyperband": ("ASHAScheduler", "AsyncHyperBandScheduler"),
    "tune.schedulers.hyperband": ("HyperBandScheduler",),
    "tune.schedulers.median_stopping_rule": ("MedianStoppingRule",),
    "tune.schedulers.pb2": ("PB2",),
    "tune.schedulers.pbt": ("PopulationBasedTraining",),
    "tune.search.basic_variant": ("BasicVariantGenerator",),
    "tune.search.concurrency_limiter": ("ConcurrencyLimiter",),
    "tune.suggest": ("ConcurrencyLimiter", "BasicVariantGenerator"),
    "tune.suggest.optuna": ("OptunaSearch",),
    "tune.logger": ("pretty_print",),
    "tune.progress_reporter": _REPORTERS,
    "tune.result_grid": ("ResultGrid",),
    "sb3.common.env_checker": ("check_env",),
    "sb3.common.env_util": ("make_vec_env",),
    "sb3.common.evaluation": ("evaluate_policy",),
    "sb3.common.vec_env": ("SubprocVecEnv", "DummyVecEnv"),
}

_NETWORKS = (
    "networks are JAX's here: write it as an athlete.core.Model, or in Flax or Equinox, and give an instance as "
    "model={'custom_model': MyModel()} (docs: Configuration, The network)"
)
_LOGGERS = "result.json, progress.csv and TensorBoard are written by themselves; a tune.Callback sees every result"
_LEARNING = "collecting and learning are one compiled program; an algorithm of your own is an athlete.core.Agent"
_OFFLINE = "`athlete.offline.files.read_data` reads recorded data, and `algo.record` writes them"
_STOPS = (
    "evaluation, checkpoints and stops are settings: .evaluation(evaluation_interval=...), "
    "tune.run(checkpoint_freq=..., stop=...); hooks are methods of athlete.DefaultCallbacks"
)
# Module or name of theirs that Athlete has not -> what there is instead.
ABSENT: dict[str, str] = {
    **dict.fromkeys(("rllib.models.torch", "rllib.models.tf", "rllib.models.modelv2", "rllib.core"), _NETWORKS),
    **dict.fromkeys(("try_import_torch", "try_import_tf", "try_import_jax", "rllib.utils.framework"), _NETWORKS),
    **dict.fromkeys(("rllib.utils.torch_utils", "rllib.utils.tf_utils", "rllib.models.action_dist"), _NETWORKS),
    **dict.fromkeys(("rllib.offline", "rllib.utils.policy"), _OFFLINE),
    **dict.fromkeys(("rllib.execution", "rllib.evaluation", "rllib.policy"), _LEARNING),
    **dict.fromkeys(("build_trainer", "build_tf_policy", "build_policy_class", "with_common_config"), _LEARNING),
    "rllib.env": "environments are of Gymnasium, PettingZoo, MultiAgentEnv or JAX (docs: Your own environment)",
    "rllib.env.wrappers": "PettingZoo's environments are taken as they are; pictures of Atari become small and stacked",
    "rllib.examples": "environments of RLlib's examples are known by their paths, env='ray.rllib.examples...'",
    "rllib.connectors": "observations are changed by settings (docs: Filters and connectors)",
    "rllib.utils.exploration": "explorations are chosen by name: exploration(exploration_config={'type': ...})",
    "rllib.utils.schedules": "a schedule is a list, lr=[[0, 1e-3], [100_000, 1e-5]]",
    "rllib.utils.replay_buffers": "memories are chosen by name: replay_buffer_config={'type': ...}",
    "rllib.utils.metrics": "results are read by their names, result['num_env_steps_sampled']",
    "rllib.utils.numpy": "jax.nn and NumPy have it",
    "rllib.models.preprocessors": "networks see every space; rollouts(observation_fn=...) changes observations before",
    **dict.fromkeys(
        ("MultiCallbacks", "make_multi_callbacks"),
        "callbacks(...) takes one class; its hooks may call those of others",
    ),
    **dict.fromkeys(("framework_iterator", "check_compute_single_action"), "networks run on JAX alone"),
    **dict.fromkeys(("tune.search", "tune.suggest"), "searchers are BasicVariantGenerator and OptunaSearch"),
    "tune.schedulers": "schedulers are ASHA, HyperBand, the median stopping rule, PBT and PB2",
    "tune.result": "results are read by their names, result['timesteps_total']",
    "tune.utils": "objects are given to functions by tune.with_parameters",
    **dict.fromkeys(("air.integrations", "tune.integration", "tune.logger", "UnifiedLogger"), _LOGGERS),
    "tune.syncer": "files stay where they are written",
    "train": "Ray Train is no part of it; `tune.Tuner` and `config.build()` train",
    "serve": "`athlete serve CHECKPOINT` answers over HTTP, and a policy runs in Ray Serve (docs: Deployment)",
    "data": "Ray Data is no part of it",
    "sb3.common.callbacks": _STOPS,
    "VecNormalize": "rollouts(observation_filter='MeanStdFilter'), environment(normalize_rewards=True)",
    **dict.fromkeys(("VecFrameStack", "sb3.common.atari_wrappers"), "pictures of Atari are stacked by themselves"),
    **dict.fromkeys(("VecMonitor", "sb3.common.monitor"), "reporting(monitor=True) writes monitor.csv by itself"),
    "sb3.common.results_plotter": "`athlete plot FOLDER` and `athlete report FOLDER` draw what tensorboard_log wrote",
    "sb3.common.utils": "seeds, schedules and devices are settings of a configuration",
    "sb3.common.noise": "exploration_config={'type': 'GaussianNoise', ...} or 'OrnsteinUhlenbeckNoise'",
    "sb3.common.logger": _LOGGERS,
    **dict.fromkeys(("sb3.common.torch_layers", "sb3.common.policies"), _NETWORKS),
    "util": "what Ray has for programs in a cluster is in ray itself",
    **dict.fromkeys(
        ("remote", "get", "put", "wait", "kill", "get_actor", "cluster_resources", "available_resources"),
        "there is no cluster to program: resources(ray=True) has workers in one, tune.run(ray=True) trials",
    ),
}


_SPELLED = {"QMIX": "QMix", "IMPALA": "Impala"}  # how they spell algorithms in another way


def _algorithms() -> dict[str, list[str]]:
    """The last part of a module's path, `alpha_star` -> the algorithms that are in it."""
    found: dict[str, list[str]] = {}
    for name in (*ALGORITHMS, *ALIASES):
        path = ALGORITHMS.get(name, name.lower())
        found.setdefault(path.rpartition(".")[2], []).append(name)
    found["sac"].append("RNNSAC")  # as RLlib has it
    return found


def names_in(path: str) -> dict[str, str] | None:
    """The names in the module `athlete.{path}` and where they are at home; None where there is no such module."""
    found = {name: HOMES[name] for name in MODULES.get(path, ())}
    parts = path.split(".")
    if parts[:2] in (["rllib", "algorithms"], ["rllib", "agents"]):
        inside = _algorithms()
        named = [name for names in inside.values() for name in names] if len(parts) == 2 else inside.get(parts[2], [])
        if len(parts) == 2 or (named and parts[3:] in ([], [parts[2]])):
            for name in named:
                found |= dict.fromkeys((name, f"{name}Config", f"{name}Trainer"), TRAINER)
            for theirs in (theirs for name, theirs in _SPELLED.items() if name in named):
                found |= dict.fromkeys((theirs, f"{theirs}Config"), TRAINER)
            found |= dict.fromkeys(("DEFAULT_CONFIG",) if len(parts) > 2 else (), TRAINER)
    below = any(module.startswith(f"{path}.") for module in MODULES)
    return found if found or below else None


def find(path: str, name: str) -> Any:
    """What a program finds under `name` in the module `athlete.{path}`.

    Raises AttributeError for names of Python's own, and ImportError that says what there is instead for others.
    """
    if name.startswith("__"):
        raise AttributeError(name)
    names = names_in(path) or {}
    if name == "DEFAULT_CONFIG" and name in names:
        return importlib.import_module(TRAINER).algorithm_of(_algorithms()[path.split(".")[2]][0]).default_config()
    if name in names:
        return getattr(importlib.import_module(names[name]), name)
    if names_in(f"{path}.{name}") is not None:
        return importlib.import_module(f"athlete.{path}.{name}")
    raise ImportError(f"athlete.{path} has no {name!r}{_instead(f'{path}.{name}', name, names)}", name=name)


def instead_of(name: str) -> str:
    """The end of a sentence about a name of Ray's own: what there is instead, if anything."""
    return f": {ABSENT[name]}" if name in ABSENT else ""


def _instead(path: str, name: str, names: Sequence[str] | dict[str, str]) -> str:
    """The end of a sentence about what there is not: what there is, or the nearest name."""
    if name in ABSENT:
        return f": {ABSENT[name]}"
    if near := difflib.get_close_matches(name, names, n=1):
        return f"; did you mean {near[0]!r}?"
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        if (place := ".".join(parts[:length])) in ABSENT:
            return f": {ABSENT[place]}"
    return f"; it has {', '.join(names)}" if names else ""


class RayModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Makes the modules of the table. The last of all finders: modules that are files go before it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, inside = fullname.partition(".")
        if package != "athlete" or inside.partition(".")[0] not in PACKAGES:
            return None
        if names_in(inside) is not None:
            return importlib.util.spec_from_loader(fullname, self, is_package=True)
        parts = inside.split(".")
        of_algorithms = parts[:2] in (["rllib", "algorithms"], ["rllib", "agents"])
        if of_algorithms and (absent := told_of_absent(parts[2])) is not None:
            raise ModuleNotFoundError(f"there is no module {fullname!r}: {absent}", name=fullname)
        told = _instead(inside, parts[-1], [])
        if not told and parts[0] == "tune":
            return None
        page = "Stable-Baselines3" if parts[0] == "sb3" else "RLlib"
        told = told or f"; `Coming from {page}` in the documentation lists what there is"
        raise ModuleNotFoundError(f"there is no module {fullname!r}{told}", name=fullname)

    def exec_module(self, module: ModuleType) -> None:
        path = module.__name__.removeprefix("athlete.")
        module.__doc__ = f"Names of `athlete.{path}`, where programs for other libraries look for them."
        module.__getattr__ = functools.partial(find, path)  # type: ignore[method-assign]
        module.__dir__ = lambda: sorted(names_in(path) or ())  # type: ignore[method-assign]


def install() -> None:
    """Let the modules of the table be imported."""
    if not any(isinstance(finder, RayModules) for finder in sys.meta_path):
        sys.meta_path.append(RayModules())
