"""Athlete: reinforcement learning, compiled. The public names, each imported when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from athlete import moved
from athlete.rllib import names as _names_of_rllib  # not "rllib_names": a moved module of that name would replace it
from athlete.version import __version__

if TYPE_CHECKING:
    from athlete import tune as tune
    from athlete.algorithm import Algorithm as Algorithm
    from athlete.callbacks import DefaultCallbacks as DefaultCallbacks
    from athlete.env.baseline import baseline as baseline
    from athlete.env.checks.check import check_env as check_env
    from athlete.env.registry import register_env as register_env
    from athlete.policy import Policy as Policy
    from athlete.record.pretty import pretty_print as pretty_print
    from athlete.settings.config import AlgorithmConfig as AlgorithmConfig
    from athlete.settings.multi_agent import Past as Past
    from athlete.settings.multi_agent import PolicySpec as PolicySpec

moved.install()
_names_of_rllib.install()

_HOMES = {
    "Algorithm": "athlete.algorithm",
    "AlgorithmConfig": "athlete.settings.config",
    "DefaultCallbacks": "athlete.callbacks",
    "Past": "athlete.settings.multi_agent",
    "Policy": "athlete.policy",
    "PolicySpec": "athlete.settings.multi_agent",
    "baseline": "athlete.env.baseline",
    "check_env": "athlete.env.checks.check",
    "pretty_print": "athlete.record.pretty",
    "register_env": "athlete.env.registry",
}

__all__ = ["__version__", "algorithms", "spaces", "tune", *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in ("algorithms", "spaces", "tune", "rllib", "air", "sb3"):
        return importlib.import_module(f"athlete.{name}")
    if name in ("init", "shutdown", "is_initialized"):  # Ray's
        return getattr(importlib.import_module("athlete.rllib.utilities"), name)
    raise AttributeError(f"module 'athlete' has no {name!r}{_names_of_rllib.instead_of(name)}")


def __dir__() -> list[str]:
    return sorted(__all__)
