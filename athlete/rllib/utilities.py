"""What RLlib's programs use beside its algorithms and Athlete has no other place for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from athlete.log import logger
from athlete.models.catalog import register_custom_model

_Method = TypeVar("_Method")
DEFAULT_POLICY_ID = "default_policy"

# The types of RLlib's annotations, which nothing reads here.
AgentID = EnvID = EpisodeID = PolicyID = Any
EnvType = EnvCreator = EnvConfigDict = EnvActionType = EnvObsType = EnvInfoDict = MultiAgentDict = Any
AlgorithmConfigDict = PartialAlgorithmConfigDict = TrainerConfigDict = ModelConfigDict = ModelWeights = Any
ResultDict = GradInfoDict = TensorType = TensorStructType = Any


class ModelCatalog:
    """RLlib's catalogue, where networks of the user's own get names."""

    register_custom_model = staticmethod(register_custom_model)

    @staticmethod
    def register_custom_preprocessor(name: str, preprocessor: Any) -> None:
        """Raises NotImplementedError."""
        raise NotImplementedError(
            f"register_custom_preprocessor({name!r}): give a function of the observation, rollouts(observation_fn=...)"
        )

    @staticmethod
    def register_custom_action_dist(name: str, action_dist: Any) -> None:
        """Raises NotImplementedError."""
        raise NotImplementedError(
            f"register_custom_action_dist({name!r}): the distribution follows from the space of actions; one of your "
            "own needs an athlete.core.Agent of your own"
        )


class SampleBatch:
    """RLlib's names of what a batch holds; batches in callbacks are dictionaries under these names."""

    OBS = "obs"
    NEXT_OBS = "new_obs"
    ACTIONS = "actions"
    REWARDS = "rewards"
    TERMINATEDS = "terminateds"
    TRUNCATEDS = "truncateds"


class Checkpoint:
    """A folder with a checkpoint, as `ray.air.Checkpoint`; `path` is what Athlete's functions take."""

    def __init__(self, path: str | Path):
        self.path = str(path)

    @classmethod
    def from_directory(cls, path: str | Path) -> Checkpoint:
        return cls(path)

    def to_directory(self) -> str:
        return self.path

    def __fspath__(self) -> str:
        return self.path


class ScalingConfig:
    """Accepted for RLlib's users: there is nothing to place."""

    def __init__(self, **settings: Any):
        logger.info(
            "ScalingConfig(%s): collecting and learning are one program in this process; it has no effect",
            ", ".join(f"{name}={value!r}" for name, value in settings.items()),
        )


def override(parent: type) -> Callable[[_Method], _Method]:
    """Marks a method that overrides one of `parent`. Raises NameError where there is none to override."""

    def check(method: _Method) -> _Method:
        name = getattr(method, "__name__", getattr(getattr(method, "__func__", None), "__name__", ""))
        if name not in dir(parent):
            raise NameError(f"@override: {parent.__name__} has no {name!r} to override")
        return method

    return check


def check_learning_achieved(tune_results: Any, min_reward: float, evaluation: bool = False) -> None:
    """Raise ValueError unless some trial ended with an `episode_reward_mean` of at least `min_reward`."""
    results = getattr(tune_results, "results", None)
    last = list(results.values()) if isinstance(results, dict) else [result.metrics for result in tune_results]
    found = [(result.get("evaluation", {}) if evaluation else result).get("episode_reward_mean") for result in last]
    rewards = [reward for reward in found if reward is not None]
    if not any(reward >= min_reward for reward in rewards):
        best = f"{max(rewards):g}" if rewards else "no episode ended"
        raise ValueError(f"episode_reward_mean of {min_reward:g} was not reached: the best trial has {best}")


def init(*arguments: Any, **settings: Any) -> None:
    """Ray's `init`: there is no cluster that would have to be started."""
    logger.info(
        "athlete.init(): nothing has to be started; resources(ray=True) and tune.run(ray=True) are in a cluster"
    )


def shutdown(*arguments: Any, **settings: Any) -> None:
    """Ray's `shutdown`: there is no cluster that would have to be ended."""
    logger.info("athlete.shutdown(): nothing has to be ended; algo.stop() closes environments and ends workers")


def is_initialized() -> bool:
    """Ray's `is_initialized`: there is nothing that would have to be started."""
    return True
