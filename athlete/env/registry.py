"""Names for environments, and how a class or a factory is called with an `env_config`. No Gymnasium and no JAX here."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from types import ModuleType
from typing import Any

_factories: dict[str, Callable[..., Any]] = {}

# Environments of our own under the names that they have elsewhere, and the function `(id, env_config)` that makes them.
MINATAR = [f"MinAtar/{game}-v{i}" for game in ("Asterix", "Breakout", "Freeway", "SpaceInvaders") for i in (0, 1)]
PARTIAL = [
    "StatelessCartPole-v1",
    "StatelessPendulum-v1",
    "RepeatAfterMe-v0",
    "RepeatInitialObs-v0",
    "MemoryChain-v0",
]
# Those of them that Gymnasium has with more to see, and which entries of its observations are seen.
PARTLY_SHOWN: dict[str, tuple[str, tuple[int, ...]]] = {
    "StatelessCartPole-v1": ("CartPole-v1", (0, 2)),
    "StatelessPendulum-v1": ("Pendulum-v1", (0, 1)),
}
MULTI_AGENT = [
    "TwoStepGame-v0",
    "ClimbingGame-v0",
    "PenaltyGame-v0",
    "MatrixGame-v0",
    "Spread-v0",
    "MultiAgentArena-v0",
    "TicTacToe-v0",
    "ConnectFour-v0",
    "RockPaperScissors-v0",
    "MultiAgentCartPole-v1",
]
RECOMMENDERS = ["InterestEvolution-v0", "LongTermSatisfaction-v0", "ParametricRecSys-v0"]
BANDITS = ["LinearBandit-v0", "ItemBandit-v0", "WheelBandit-v0", "ContextualBandit-v0"]
BUILT_IN: dict[str, tuple[str, str]] = {
    **dict.fromkeys(BANDITS, ("athlete.env.games.bandits", "make_bandit")),
    **dict.fromkeys(RECOMMENDERS, ("athlete.env.games.recommenders", "make_recommender")),
    **dict.fromkeys(MINATAR, ("athlete.env.games.minatar", "make_minatar")),
    **dict.fromkeys(PARTIAL, ("athlete.env.games.partial", "make_partial")),
    "DeepSea-v0": ("athlete.env.games.deep_sea", "make_deep_sea"),
    **dict.fromkeys(("Mirror-v0", "MirrorChoice-v0"), ("athlete.env.games.mirror", "make_mirror")),
    **dict.fromkeys(MULTI_AGENT, ("athlete.env.games.multi_agent", "make_game")),
    **dict.fromkeys(("BitFlip-v0", "GoalPendulum-v0"), ("athlete.env.games.goals", "make_goal_env")),
    "Navigation-v0": ("athlete.env.games.navigation", "make_navigation"),
    "MaskedGrid-v0": ("athlete.env.games.masked_grid", "make_masked_grid"),
}
# JAX packages of others, before whose names of environments they stand: `"navix/Navix-Empty-5x5-v0"`. The module of
# each among the adapters has the function `make_<package>(id, env_config)`.
JAX_PACKAGES = ("brax", "craftax", "gymnax", "jaxmarl", "jumanji", "navix", "pgx", "playground")
PETTINGZOO = "pettingzoo:"  # before the modules of PettingZoo's environments
RLLIB = "ray.rllib.examples."  # before the class paths of RLlib's example environments
_PETTINGZOO_ADAPTER = "athlete.env.adapters.pettingzoo"

# What RLlib's users call the one argument of their environments and factories.
_CONFIG_NAMES = {"config", "env_config", "cfg", "env_cfg", "env_context", "env_ctx", "context", "ctx"}
_DOTTED_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


class EnvContext(dict):
    """An `env_config` that also knows for which row the environment is made, as RLlib passes it.

    `worker_index` is 0 in this process and counts worker processes from 1, `vector_index` is the row within the
    process, `num_workers` how many processes there are. `remote` is True in a worker process.
    """

    def __init__(
        self,
        env_config: Mapping[str, Any] | None = None,
        worker_index: int = 0,
        vector_index: int = 0,
        num_workers: int = 0,
    ):
        super().__init__(env_config or {})
        self.worker_index = worker_index
        self.vector_index = vector_index
        self.num_workers = num_workers
        self.remote = worker_index > 0


def register_env(name: str, factory: Callable[..., Any]) -> None:
    """Make `factory` available as `.environment(name)`. A second registration of a name replaces the first.

    The factory takes the `env_config` (an `EnvContext`), or its entries as keyword arguments, or nothing, and returns
    a Gymnasium environment, one of the old Gym API, or a JAX environment (`athlete.core.Env` or `MultiEnv`). A class
    does as well.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"register_env({name!r}, ...): the name must be a string that is not empty")
    if not callable(factory):
        raise ValueError(
            f"register_env({name!r}, {factory!r}): the factory must be callable: a class or a function that makes an "
            f"environment, such as `lambda env_config: MyEnv(env_config)`; got {type(factory).__name__}"
        )
    _factories[name] = factory


def registered(name: str) -> Callable[..., Any] | None:
    """The factory registered under `name`, or None."""
    return _factories.get(name)


def registered_names() -> list[str]:
    """All names given to `register_env`, sorted."""
    return sorted(_factories)


def is_dotted_path(name: str) -> bool:
    """Whether `name` reads as `"package.module.Class"`, which `resolve` imports."""
    return _DOTTED_PATH.fullmatch(name) is not None


def _is_served_example(env: str) -> bool:
    """Whether it is the class path of an example of RLlib's that ours serve."""
    return env.startswith(RLLIB) and importlib.import_module("athlete.env.games.rllib").is_known(env)


def runs_code(env: Any) -> bool:
    """Whether making the environment `env` would import a module, or call something, that only this name chose.

    That is so for a path `"package.module.Class"`, unless it is an environment class of a module that is imported
    already, and for an id `"module:Id-v0"` whose module is not. Whoever reads a name in a file asks this before
    `resolve`: files may choose among what is registered or imported here, and never what code runs.
    """
    if not isinstance(env, str) or env in _factories or env in BUILT_IN or _is_served_example(env):
        return False
    if env.startswith(PETTINGZOO):
        return not _is_known_to_pettingzoo(env.removeprefix(PETTINGZOO))
    if ":" in env:
        return env.rpartition(":")[0] not in sys.modules
    if not is_dotted_path(env):
        return False
    module_name, _, attribute = env.rpartition(".")
    # Not getattr: a module's __getattr__ may import.
    return not is_environment_class(getattr(sys.modules.get(module_name), "__dict__", {}).get(attribute))


def _is_known_to_pettingzoo(name: str) -> bool:
    """Whether it is a module that is imported already, or an id in PettingZoo's registries, if that is."""
    registries = (getattr(sys.modules.get("pettingzoo"), f"{form}_registry", ()) for form in ("parallel", "aec"))
    return name in sys.modules or any(name in ids for ids in registries)


def foreign_code(config: Mapping[str, Any]) -> str | None:
    """The first environment for which `runs_code` among those that a configuration names, in searches too."""
    evaluation = config.get("evaluation_config")
    places = [config.get("env"), evaluation.get("env") if isinstance(evaluation, Mapping) else None]
    return next((name for place in places for name in _strings(place) if runs_code(name)), None)


def _strings(value: Any) -> Iterator[str]:
    """All strings in nested dictionaries and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(part)


def is_environment_class(found: Any) -> bool:
    """Whether `found` is a class of environments, of Gymnasium or JAX.

    A `Source` is none, though it is stepped: it makes whatever environment it is given the name of.
    """
    if not isinstance(found, type) or not all(hasattr(found, method) for method in ("reset", "step")):
        return False
    core = sys.modules.get("athlete.core")
    return core is None or not issubclass(found, core.Source)


def is_of_package(env: str) -> bool:
    """Whether a name begins with that of a package of others: `"brax/ant"`, `"pettingzoo:mpe2.simple_spread_v3"`."""
    package, slash, _ = env.partition("/")
    return env.startswith(PETTINGZOO) or (bool(slash) and package in JAX_PACKAGES)


def resolve(env: Any) -> Any:
    """What stands behind `env`: the factory of a registered or built-in name, the class of a path `"module.Class"`.

    A path of one of RLlib's example environments is served by ours, and a module of PettingZoo's form is the factory of
    its environment, as is its name after `"pettingzoo:"`.

    All else comes back as it is: a Gymnasium id, a class, a factory, an instance.

    Raises:
        ValueError: a dotted path whose module or attribute does not exist.
    """
    if isinstance(env, ModuleType):
        return functools.partial(importlib.import_module(_PETTINGZOO_ADAPTER).make_of_module, env)
    if not isinstance(env, str):
        return env
    if env in _factories:
        return _factories[env]
    if env in BUILT_IN:
        place, maker = BUILT_IN[env]
        return functools.partial(getattr(importlib.import_module(place), maker), env)
    package, slash, _ = env.partition("/")
    if slash and package in JAX_PACKAGES:
        adapter = importlib.import_module(f"athlete.env.adapters.{package}")
        return functools.partial(getattr(adapter, f"make_{package}"), env)
    if env.startswith(PETTINGZOO):
        return functools.partial(importlib.import_module(_PETTINGZOO_ADAPTER).make_pettingzoo, env)
    if _is_served_example(env):
        return functools.partial(importlib.import_module("athlete.env.games.rllib").make_example, env)
    if not is_dotted_path(env):
        return env
    module_name, _, attribute = env.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(f"environment {env!r}: there is no module {error.name!r} to import") from error
    if not hasattr(module, attribute):
        near = difflib.get_close_matches(attribute, dir(module), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"environment {env!r}: module {module_name!r} has no {attribute!r}{hint}")
    return getattr(module, attribute)


def create(maker: Callable[..., Any], context: EnvContext) -> Any:
    """Call a class or a factory with what it accepts: the context as one argument, or its entries by keyword.

    One argument (RLlib's way) if the first parameter is called like a configuration (`config`, `env_config`, ...) or
    is annotated `EnvContext`, or if it is the only one that must be given; else keyword arguments (Gymnasium's way).

    Raises:
        ValueError: the entries of `env_config` fit neither way.
    """
    try:
        signature = inspect.signature(maker)
    except (TypeError, ValueError):  # some callables written in C have none
        return maker(**context)
    first = next(iter(signature.parameters.values()), None)
    if first is not None and _is_config(first) and first.name not in context:
        # What Gymnasium itself passes stands beside the configuration in many classes.
        beside = {name: context[name] for name in ("render_mode",) if name in context and name in signature.parameters}
        return maker(_without(context, beside), **beside)
    if _binds(signature, **context):
        return maker(**context)
    required = first is not None and first.default is first.empty
    mistyped = any(difflib.get_close_matches(str(key), signature.parameters, n=1) for key in context)
    if required and not mistyped and _binds(signature, context):
        return maker(context)
    raise ValueError(misfit(getattr(maker, "__qualname__", repr(maker)), signature, context))


def _without(context: EnvContext, names: Collection[str]) -> EnvContext:
    if not names:
        return context
    kept = {name: value for name, value in context.items() if name not in names}
    return EnvContext(kept, context.worker_index, context.vector_index, context.num_workers)


def told_config(env_config: Mapping[str, Any]) -> str:
    """An `env_config` for messages: of tables and the like only the kind is said."""
    texts = {key: repr(value) for key, value in env_config.items()}
    short = {
        key: text if len(text) <= 60 and "\n" not in text else f"<{type(env_config[key]).__name__}>"
        for key, text in texts.items()
    }
    return "{" + ", ".join(f"{key!r}: {text}" for key, text in short.items()) + "}"


def misfit(name: str, signature: inspect.Signature, env_config: Mapping[str, Any]) -> str:
    """The sentence for an `env_config` that `name(signature)` does not accept."""
    accepted = [parameter.name for parameter in signature.parameters.values()]
    unknown = [str(key) for key in env_config if key not in accepted]
    sentence = f"env_config={told_config(env_config)} does not fit {name}{signature}"
    for key in unknown[:1]:
        near = difflib.get_close_matches(key, accepted, n=1)
        sentence += f": it has no {key!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    if not unknown:
        sentence += ": give all that it needs in env_config, or let it take one argument, the env_config"
    return sentence


def is_jax_env(env: Any) -> bool:
    """Whether `env` is a JAX environment (`athlete.core.Env` or `MultiEnv`) or a class of them."""
    # Only a process that has imported athlete.core can hold one; asking must not import JAX.
    core = sys.modules.get("athlete.core")
    if core is None:
        return False
    kinds = (core.Env, core.MultiEnv)
    return isinstance(env, kinds) or (isinstance(env, type) and issubclass(env, kinds))


def _is_config(parameter: inspect.Parameter) -> bool:
    positional = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    return positional and ("EnvContext" in str(parameter.annotation) or parameter.name in _CONFIG_NAMES)


def _binds(signature: inspect.Signature, *args: Any, **kwargs: Any) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True
