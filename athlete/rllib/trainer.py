"""Algorithms as RLlib's programs make and extend them: `PPO(config={...}, env="CartPole-v1")`, `class My(PPO)`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from athlete import algorithm
from athlete.algorithms import get_config_class
from athlete.log import logger
from athlete.settings.config import AlgorithmConfig

_LEARNING = (
    "collecting and learning are one compiled program. Write an athlete.core.Agent for an algorithm of your own, a "
    "callback such as on_learn_on_batch to look at batches or change them, or override train() for what is around it"
)
_FILES = "a checkpoint holds arrays and settings; write what is yours beside it in an overridden save(), or restore()"
_CONFIG = "override get_default_config(), or subclass the configuration"
# Method that RLlib's users override and that nothing would call -> what to do instead.
NOT_CALLED: dict[str, str] = {
    **dict.fromkeys(("training_step", "training_iteration", "step", "execution_plan", "_train"), _LEARNING),
    **dict.fromkeys(("get_default_policy_class", "get_policy_class"), _LEARNING),
    **dict.fromkeys(("save_checkpoint", "load_checkpoint", "__getstate__", "__setstate__"), _FILES),
    **dict.fromkeys(("validate_config", "default_resource_request", "resource_help", "_init"), _CONFIG),
}


class Algorithm(algorithm.Algorithm):
    """An `athlete.Algorithm` with RLlib's constructor and with the methods that RLlib's users override.

    Subclasses may override `setup(config)`, called when all is made, `get_default_config()` (a configuration, or a
    dictionary of what differs from the algorithm's), `cleanup()`, called by `stop()`, and every public method:
    `train()` calls `self.evaluate()`.

    Raises:
        TypeError: a subclass overrides what nothing would call; the sentence says what to do instead.
    """

    config_class: ClassVar[type[AlgorithmConfig] | None] = None

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        for name in NOT_CALLED.keys() & vars(cls).keys():
            raise TypeError(f"{cls.__name__}.{name} would never be called: {NOT_CALLED[name]}")

    def __init__(
        self,
        config: AlgorithmConfig | Mapping[str, Any] | None = None,
        env: Any = None,
        logger_creator: Any = None,
        begins: bool = True,
    ):
        if logger_creator is not None:
            logger.info("logger_creator: tune.run and .reporting() say where results go; it has no effect")
        super().__init__(self._ready(config, env), begins)
        self.setup(self.config.to_dict())

    @classmethod
    def _ready(cls, config: Any, env: Any) -> AlgorithmConfig:
        """The frozen configuration: the defaults with what is given."""
        if not isinstance(config, AlgorithmConfig):
            default = cls._defaults()
            known = default.to_dict()  # from DEFAULT_CONFIG.copy(): what is as by default was not chosen
            changes = {name: value for name, value in (config or {}).items() if _differs(known, name, value)}
            return default.update_from_dict(changes).ready(env)
        if cls.config_class is not None and not isinstance(config, cls.config_class):
            raise ValueError(
                f"{cls.__name__}(config={type(config).__name__}(...)): that is another algorithm's configuration"
            )
        return config.ready(env)

    @classmethod
    def _defaults(cls) -> AlgorithmConfig:
        given: Any = cls.get_default_config()
        if isinstance(given, AlgorithmConfig):
            return given.copy()
        return cls._config_class().from_dict(given)

    @classmethod
    def _config_class(cls) -> type[AlgorithmConfig]:
        if cls.config_class is None:
            raise TypeError(
                f"{cls.__name__} has no algorithm: subclass one, `class {cls.__name__}(PPO)`, or build a "
                "configuration, PPOConfig().build()"
            )
        return cls.config_class

    @classmethod
    def get_default_config(cls) -> AlgorithmConfig | Mapping[str, Any]:
        """The configuration that what is given goes over."""
        return cls._config_class()()

    @classmethod
    def default_config(cls) -> dict[str, Any]:
        """The same as a new dictionary, RLlib's `DEFAULT_CONFIG`."""
        return cls._defaults().to_dict()

    def setup(self, config: dict[str, Any]) -> None:
        """When the algorithm is made; `config` has all settings."""

    def cleanup(self) -> None:
        """Before environments are closed."""

    def stop(self) -> None:
        """Close environments and end worker processes, after `cleanup()`. May be called twice."""
        if not self._stopped:
            self.cleanup()
        super().stop()

    def __enter__(self) -> Self:
        return self


Trainer = Algorithm


def _differs(known: Mapping[str, Any], name: str, value: Any) -> bool:
    return name not in known or type(value) is not type(known[name]) or bool(value != known[name])


def algorithm_of(name: str) -> type[Algorithm]:
    """The class of the algorithm `name`, with RLlib's constructor. Raises ValueError with the nearest name."""
    return _class_named(get_config_class(name).algorithm_name)


@functools.cache
def _class_named(own: str) -> type[Algorithm]:
    config_class = get_config_class(own)
    path = f"athlete.rllib.algorithms.{config_class.__module__.rpartition('.')[2]}"
    doc = f"{own} with RLlib's constructor: `{own}(config={{...}}, env=...)`; see `{config_class.__name__}`."
    return type(own, (Algorithm,), {"config_class": config_class, "__module__": path, "__doc__": doc})


def get_algorithm_class(name: str, return_config: bool = False) -> Any:
    """The class of the algorithm `name`; with `return_config` also its default settings."""
    found = algorithm_of(name)
    return (found, found.default_config()) if return_config else found


get_trainer_class = get_trainable_cls = get_algorithm_class


def __getattr__(name: str) -> Any:
    """`PPO`, `PPOTrainer` and `PPOConfig` of every algorithm."""
    if name.startswith("__"):
        raise AttributeError(name)
    try:
        if name.endswith("Config"):
            return get_config_class(name.removesuffix("Config"))
        return algorithm_of(name.removesuffix("Trainer"))
    except ValueError as error:
        raise AttributeError(f"module {__name__!r} has no {name!r}: {error}") from error
