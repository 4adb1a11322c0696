"""Modules under the names that they had before they moved: programs and checkpoints that say the old name go on."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

# Old name of a module or a package -> where it is now.
MOVED: dict[str, str] = {
    "athlete.env.gymnasium": "athlete.env.adapters.gymnasium",
    "athlete.env.source": "athlete.env.adapters.source",
    "athlete.env.envpool": "athlete.env.adapters.envpool",
    "athlete.env.gymnax": "athlete.env.adapters.gymnax",
    "athlete.env.conversion": "athlete.env.adapters.conversion",
    "athlete.env.time_limit": "athlete.env.wrappers.time_limit",
    "athlete.env.frame_stack": "athlete.env.wrappers.frame_stack",
    "athlete.env.previous": "athlete.env.wrappers.previous",
    "athlete.env.classic": "athlete.env.games.classic",
    "athlete.env.minatar": "athlete.env.games.minatar",
    "athlete.env.partial": "athlete.env.games.partial",
    "athlete.env.tabular": "athlete.env.games.tabular",
    "athlete.env.deep_sea": "athlete.env.games.deep_sea",
    "athlete.env.masked_grid": "athlete.env.games.masked_grid",
    "athlete.env.mirror": "athlete.env.games.mirror",
    "athlete.env.check_jax": "athlete.env.checks.check_jax",
    "athlete.env.check": "athlete.env.checks.check",
    "athlete.config": "athlete.settings.config",
    "athlete.replay_config": "athlete.settings.families",
    "athlete.exploration_config": "athlete.settings.exploration",
    "athlete.setting_checks": "athlete.settings.checks",
    "athlete.rllib_names": "athlete.settings.rllib_names",
    "athlete.env.games.partial.repeat_after_me": "athlete.env.games.partial.repeat",
    "athlete.env.games.partial.repeat_initial_obs": "athlete.env.games.partial.repeat",
    "athlete.memory.latest": "athlete.memory.rollout",
    "athlete.combine.around": "athlete.combine.wrapper",
    "athlete.ops.soft": "athlete.ops.td",
}
# Names in them that are others now: old module -> old name -> new name.
RENAMED: dict[str, dict[str, str]] = {
    "athlete.memory.latest": {"Latest": "Rollout"},
    "athlete.combine.around": {"Around": "AgentWrapper"},
    "athlete.ops.soft": {"SoftSamples": "CriticBatches", "soft_samples": "soft_critic_batches"},
}


def new_name(name: str) -> str | None:
    """Where the module that was called `name` is now; None for one that has not moved."""
    parts = name.split(".")
    for length in range(len(parts), 2 - 1, -1):
        new = MOVED.get(".".join(parts[:length]))
        if new is not None:
            return ".".join([new, *parts[length:]])
    return None


class MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules of `MOVED`: the old name is another name of the same module object."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith("athlete.") or new_name(fullname) is None:
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        new = new_name(spec.name)
        assert new is not None
        module = importlib.import_module(new)
        self._own = module.__spec__
        for old_name, name in RENAMED.get(spec.name, {}).items():
            setattr(module, old_name, getattr(module, name))
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._own  # importing under the old name has replaced it


def install() -> None:
    """Let old names be imported. Before all other finders, which would load a second copy of a moved package."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, MovedModules())
