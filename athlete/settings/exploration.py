"""`exploration_config`: RLlib's types of exploration and their settings, and the bonuses that go around them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from athlete.log import logger
from athlete.models.catalog import check_model, is_recurrent, make_model
from athlete.settings.checks import is_schedule, require_count, require_known, require_number

# Type -> its settings and their defaults, RLlib's.
EXPLORATIONS: dict[str, dict[str, Any]] = {
    "EpsilonGreedy": {
        "initial_epsilon": 1.0,
        "final_epsilon": 0.05,
        "epsilon_timesteps": 100_000,
        "warmup_timesteps": 0,  # at initial_epsilon before it falls
        "random_timesteps": 0,
    },
    "SlateEpsilonGreedy": {
        "initial_epsilon": 1.0,
        "final_epsilon": 0.05,
        "epsilon_timesteps": 100_000,
        "warmup_timesteps": 0,
        "random_timesteps": 0,
    },
    "PerWorkerEpsilonGreedy": {"epsilon": 0.4, "exponent": 7.0, "random_timesteps": 0},
    "SoftQ": {"temperature": 1.0, "random_timesteps": 0},  # a number or a schedule
    "GaussianNoise": {
        "stddev": 0.1,
        "initial_scale": 1.0,
        "final_scale": 0.02,
        "scale_timesteps": 10_000,
        "random_timesteps": 1000,
    },
    "OrnsteinUhlenbeckNoise": {
        "ou_theta": 0.15,
        "ou_sigma": 0.2,
        "ou_base_scale": 0.1,
        "initial_scale": 1.0,
        "final_scale": 0.02,
        "scale_timesteps": 10_000,
        "random_timesteps": 1000,
    },
    "PerWorkerGaussianNoise": {"stddev": 0.1, "scale": 0.4, "exponent": 7.0, "random_timesteps": 1000},
    "PerWorkerOrnsteinUhlenbeckNoise": {
        "ou_theta": 0.15,
        "ou_sigma": 0.2,
        "ou_base_scale": 0.1,
        "scale": 0.4,
        "exponent": 7.0,
        "random_timesteps": 1000,
    },
    "ParameterNoise": {"initial_stddev": 0.1, "target": 0.1, "random_timesteps": 0},
    "StochasticSampling": {"random_timesteps": 0},
    "UpperConfidenceBound": {"random_timesteps": 0},
    "ThompsonSampling": {"random_timesteps": 0},
}

# Bonus -> its settings and their defaults under RLlib's names. Each also has `sub_exploration`, a type above with its
# settings: how actions are chosen meanwhile; by default as without a bonus.
_FEATURE_NET = {"fcnet_hiddens": [64, 64], "fcnet_activation": "relu"}  # settings of `model`
BONUSES: dict[str, dict[str, Any]] = {
    "RND": {
        "eta": 1.0,
        "lr": 1e-4,
        "minibatch_size": 128,
        "gamma": 0.99,
        "feature_dim": 64,
        "feature_net_config": _FEATURE_NET,
    },
    "Curiosity": {
        "eta": 1.0,
        "beta": 0.2,
        "lr": 1e-3,
        "minibatch_size": 128,
        "feature_dim": 64,
        "feature_net_config": _FEATURE_NET,
        "inverse_net_hiddens": [64],
        "inverse_net_activation": "relu",
        "forward_net_hiddens": [64],
        "forward_net_activation": "relu",
    },
    "Counts": {"eta": 0.1, "hash_bits": 18},
}
MOST = {"beta": 1.0, "gamma": 1.0, "hash_bits": 24}  # of hash bits: 64 MiB of counters
WHERE = "exploration_config"


class ExplorationSettings(NamedTuple):
    """An `exploration_config`, checked and with all defaults."""

    exploration: dict[str, Any]  # how actions are chosen
    bonus: dict[str, Any] | None


def checked_exploration(
    given: Mapping[str, Any], title: str, types: tuple[str, ...], own: Mapping[str, Any]
) -> ExplorationSettings:
    """`exploration_config` over the defaults of its type; that of a bonus has the exploration in `sub_exploration`.

    `types` are those that the algorithm `title` serves, the default first, and `own` its settings by default, which a
    `sub_exploration` of the same type changes. Raises ValueError for names and values that cannot be.
    """
    kind = given.get("type", types[0])
    if kind not in tuple(BONUSES):  # it may be anything
        return ExplorationSettings(_checked_type(given, title, types), None)
    bonus = {"type": kind, "sub_exploration": {}, **BONUSES[kind]}
    for name, value in given.items():
        require_known(name, bonus, f"{WHERE}={{{name!r}: {value!r}}}")
        bonus[name] = value
    sub = bonus.pop("sub_exploration")
    if not isinstance(sub, Mapping):
        raise ValueError(
            f"{WHERE}={{'sub_exploration': {sub!r}}}: expected a dictionary such as {{'type': {types[0]!r}}}"
        )
    _check_bonus(bonus)
    default = own.get("type", types[0])
    changed = {**own, **sub} if sub.get("type", default) == default else sub
    return ExplorationSettings(_checked_type(changed, title, types), bonus)


def _checked_type(given: Mapping[str, Any], title: str, types: tuple[str, ...]) -> dict[str, Any]:
    """The settings of a type over its defaults."""
    kind = given.get("type", types[0])
    if kind not in types:
        raise ValueError(
            f"{WHERE}={{'type': {kind!r}}}: {title} explores with {', '.join(types)}, "
            f"and has the bonuses {', '.join(BONUSES)}"
        )
    settings = {"type": kind, **EXPLORATIONS[kind]}
    for name, value in given.items():
        plain = kind.removeprefix("PerWorker")
        if plain != kind and name in EXPLORATIONS[plain] and name not in settings:
            kept = "epsilon" if plain == "EpsilonGreedy" else "scale"
            logger.warning(f"{WHERE}={{{name!r}: {value!r}}} has no effect: each actor of {kind} keeps its {kept}")
            continue
        require_known(name, settings, f"{WHERE}={{{name!r}: {value!r}}}")
        settings[name] = value
    for name in settings:
        if name.endswith("_timesteps"):
            require_count(settings, name, 0, WHERE)
        elif name != "type" and not (name == "temperature" and is_schedule(settings[name])):
            require_number(settings, name, WHERE)
    return settings


def _check_bonus(settings: Mapping[str, Any]) -> None:
    """Raise ValueError for a value that cannot be."""
    for name, default in BONUSES[settings["type"]].items():
        if isinstance(default, int):
            require_count(settings, name, 1, WHERE)
        elif isinstance(default, float):
            require_number(settings, name, WHERE)
        if name in MOST and settings[name] > MOST[name]:
            raise ValueError(f"{WHERE}={{{name!r}: {settings[name]!r}}}: expected at most {MOST[name]:g}")
    for name, network in bonus_networks(settings).items():
        _check_network(name, network)


def _check_network(name: str, settings: Any) -> None:
    """Raise ValueError for settings that describe no feed-forward network."""
    if not isinstance(settings, Mapping):
        raise ValueError(f"{WHERE}={{{name!r}: {settings!r}}}: expected a dictionary such as {_FEATURE_NET}")
    try:
        check_model(settings)
    except ValueError as error:
        raise ValueError(f"{WHERE}: {name}: {error}") from error
    if is_recurrent(make_model(settings)):
        raise ValueError(f"{WHERE}: {name}: a bonus looks at single steps; take a network without memory")


def bonus_networks(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Name of a bonus's network -> its settings, as those of `model`."""
    networks = {"feature_net_config": settings["feature_net_config"]} if "feature_net_config" in settings else {}
    for part in ("inverse_net", "forward_net"):
        if f"{part}_hiddens" in settings:
            hiddens, activation = settings[f"{part}_hiddens"], settings[f"{part}_activation"]
            networks[part] = {"fcnet_hiddens": hiddens, "fcnet_activation": activation}
    return networks
