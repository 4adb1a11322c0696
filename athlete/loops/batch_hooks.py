"""The hooks that see a collected trajectory, and may change it, before it is learned from."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from athlete.core import Transition, Tree
from athlete.loops.episodes import Episode, WatchedSource, is_scalar

# RLlib's names of what a transition holds.
_FIELDS: dict[str, str] = {
    "obs": "obs",
    "actions": "action",
    "rewards": "reward",
    "new_obs": "next_obs",
    "terminateds": "terminated",
    "truncateds": "truncated",
}
_EXTRAS: dict[str, str] = {"log_prob": "action_logp", "value": "vf_preds"}


class BatchHooks:
    """Calls `on_postprocess_trajectory` and `on_learn_on_batch`, those of them that `hooks` names."""

    def __init__(self, callbacks: Any, hooks: frozenset[str], policies: Mapping[str, Any]):
        self._callbacks, self._hooks, self._policies = callbacks, hooks, policies

    def see(self, trajectory: Transition, source: WatchedSource) -> dict[str, float]:
        """Let hooks see and change a trajectory `[T, B, ...]` in place: the numbers that they want reported."""
        batch = as_batch(trajectory)
        if "on_postprocess_trajectory" in self._hooks:
            for row, episodes in enumerate(source.take_episodes()):
                self._see_row(batch, trajectory.first[:, row], row, episodes, source)
        result: dict[str, Any] = {}
        if "on_learn_on_batch" in self._hooks:
            given = dict(batch)
            self._callbacks.on_learn_on_batch(policy=self._policies["default_policy"], train_batch=given, result=result)
            _write_back(given, batch)
        return {name: float(value) for name, value in result.items() if is_scalar(value)}

    def _see_row(
        self, batch: dict[str, Tree], first: np.ndarray, row: int, episodes: list[Episode], source: WatchedSource
    ) -> None:
        """The parts of a row that belong to one episode each."""
        starts = np.flatnonzero(first).tolist()
        bounds = sorted({0, *starts, len(first)})
        for episode, (begin, end) in zip(episodes, itertools.pairwise(bounds), strict=True):
            part = {name: _part(tree, begin, end, row) for name, tree in batch.items()}
            given = dict(part)
            self._callbacks.on_postprocess_trajectory(
                worker=source.place,
                episode=episode,
                agent_id="agent0",
                policy_id="default_policy",
                policies=self._policies,
                postprocessed_batch=given,
                original_batches={"agent0": (None, {name: _copied(tree) for name, tree in part.items()})},
            )
            _write_back(given, part)


def as_batch(trajectory: Transition) -> dict[str, Tree]:
    """The arrays of a trajectory under RLlib's names, not copied; what `act` attached is under `Transition`'s own."""
    batch: dict[str, Tree] = {name: getattr(trajectory, field) for name, field in _FIELDS.items()}
    if isinstance(trajectory.extras, dict):
        extras: dict[str, Tree] = trajectory.extras
        batch |= {_EXTRAS.get(name, name): value for name, value in extras.items()}
    return batch


def _write_back(given: Mapping[Any, Tree], own: Mapping[Any, Tree]) -> None:
    """Where a hook put another array into its dictionary, write that into ours."""
    for name, new in given.items():
        if name not in own:
            raise ValueError(
                f"a hook put {name!r} into a batch, which nothing here reads; a batch has {', '.join(map(repr, own))}"
            )
        _overwrite(own[name], new, repr(name))


def _overwrite(own: Tree, new: Tree, name: str) -> None:
    if new is own:
        return
    if isinstance(own, np.ndarray):
        if np.shape(new) != own.shape:
            raise ValueError(
                f"a hook set {name} of a batch to shape {np.shape(new)}; expected {own.shape}: "
                "batches keep their shapes"
            )
        own[...] = new
        return
    keys = list(own) if isinstance(own, dict) else list(range(len(own)))
    there = list(new) if isinstance(new, dict) else list(range(len(new)))
    if set(there) != set(keys):
        raise ValueError(f"a hook set {name} of a batch to the entries {there}; expected {keys}")
    for key in keys:
        _overwrite(own[key], new[key], f"{name}[{key!r}]")


def _part(tree: Tree, begin: int, end: int, row: int) -> Tree:
    if isinstance(tree, tuple):
        return tuple(_part(leaf, begin, end, row) for leaf in tree)
    if isinstance(tree, dict):
        return {name: _part(leaf, begin, end, row) for name, leaf in tree.items()}
    return tree[begin:end, row]


def _copied(tree: Tree) -> Tree:
    if isinstance(tree, tuple):
        return tuple(map(_copied, tree))
    return {name: _copied(leaf) for name, leaf in tree.items()} if isinstance(tree, dict) else tree.copy()
