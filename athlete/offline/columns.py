"""From columns under the names of RLlib, D4RL or ours to a data set, checked row by row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from athlete.log import logger
from athlete.offline.dataset import DataError, DataSet, Part, mapped, named_leaves
from athlete.spaces import Space

# What a column is called elsewhere -> RLlib's name, which is ours.
NAMES: dict[str, str] = {
    **dict.fromkeys(("obs", "observations", "observation"), "obs"),
    **dict.fromkeys(("new_obs", "next_observations", "next_obs", "next_observation"), "new_obs"),
    **dict.fromkeys(("actions", "action"), "actions"),
    **dict.fromkeys(("rewards", "reward"), "rewards"),
    **dict.fromkeys(("terminateds", "terminated", "terminations", "terminals"), "terminateds"),
    **dict.fromkeys(("truncateds", "truncated", "truncations", "timeouts"), "truncateds"),
    **dict.fromkeys(("dones", "done"), "dones"),
    **dict.fromkeys(("eps_id", "episode_id", "episode"), "eps_id"),
    "action_logp": "action_logp",
    "action_prob": "action_prob",
}
ENDS = ("terminateds", "truncateds", "dones", "eps_id")  # what tells where episodes end


def from_columns(
    columns: Mapping[str, Any],
    name: str,
    *,
    observation_space: Space | None = None,
    action_space: Space | None = None,
    max_episode_steps: int | None = None,
    normalized: bool = False,
    first_row: int = 0,
    doubts: bool = True,
) -> DataSet:
    """A data set of columns `[N, ...]`, episodes one behind the other. `name` is what messages call it.

    `obs`, `actions` and `rewards` there must be, and something that tells where episodes end: `terminateds` and
    `truncateds`, `dones`, or `eps_id`. `dones` cannot tell an end from a time limit: those after `max_episode_steps`
    are taken for cut. Where `new_obs` is missing it is the next step's `obs`, and a cut episode ends one step earlier.
    The first step is row `first_row` of what `name` names; `doubts` are warned of, unless that was done before.

    Raises DataError, naming row and column, for what is missing, of another length, or no finite number.
    """
    known = known_columns(columns, name)
    steps = len(known["rewards"])
    for column, tree in known.items():
        for path, leaf in named_leaves(tree, column):
            _require_finite(leaf, path, name, first_row)
    terminated, truncated = _ends(known, name, max_episode_steps, doubts)
    next_obs, kept = known.get("new_obs"), None
    if next_obs is None:
        next_obs, truncated, kept = _shifted(known["obs"], terminated, truncated)
    data = DataSet(
        known["obs"],
        known["actions"],
        known["rewards"].astype(np.float32).reshape(steps),
        next_obs,
        terminated,
        truncated,
        log_prob=_log_prob(known, name, first_row),
        observation_space=observation_space,
        action_space=action_space,
        normalized=normalized,
        parts=[Part(name, steps, first_row)],
    )
    if kept is None:
        return data
    if not kept.any():
        raise DataError(f"{name}: no step is left, as new_obs is missing and each episode is cut after its first step")
    return data.mapped(lambda array: array[kept], [Part(name, int(kept.sum()), first_row)])


def known_columns(columns: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Those of the columns that data are made of, under RLlib's names, as arrays `[N, ...]` or trees of them.

    Raises DataError for what is missing or of another length.
    """
    known = {NAMES[key]: _arrays(value, f"{name}: {key}") for key, value in columns.items() if key in NAMES}
    for needed in ("obs", "actions", "rewards"):
        if needed not in known:
            raise DataError(f"{name} has no column {needed!r}; it has {', '.join(map(str, columns)) or 'none'}")
    steps = len(known["rewards"])
    if steps == 0:
        raise DataError(f"{name} holds no step")
    for column, tree in known.items():
        for path, leaf in named_leaves(tree, column):
            if len(leaf) != steps:
                raise DataError(
                    f"{name}: {path} has {len(leaf)} rows, and rewards has {steps}: the file is cut or mixed"
                )
    if not any(column in known for column in ENDS):
        raise DataError(
            f"{name} does not tell where episodes end: it has neither terminateds and truncateds, dones nor eps_id"
        )
    return known


def steps_of_whole_episodes(known: Mapping[str, Any]) -> int:
    """How many of the steps are of episodes of which these columns hold the end."""
    ends = [np.flatnonzero(known[column].reshape(-1)) for column in ENDS[:-1] if column in known]
    if "eps_id" in known:
        ends.append(np.flatnonzero(np.diff(known["eps_id"].reshape(-1))))
    return int(max((each[-1] + 1 for each in ends if each.size), default=0))


def _arrays(value: Any, where: str) -> Any:
    """Nested lists as arrays of 32 bits or less; dictionaries and tuples of them as trees."""
    if isinstance(value, Mapping):
        return {key: _arrays(part, f"{where}[{key!r}]") for key, part in sorted(value.items())}
    if isinstance(value, tuple):
        return tuple(_arrays(part, f"{where}[{i}]") for i, part in enumerate(value))
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where} is no column of numbers, all of one shape")
    if array.ndim == 0:
        raise DataError(f"{where} is one number, and a column has a row for each step")
    narrow: dict[str, Any] = {"float64": np.float32, "float16": np.float32, "int64": np.int32, "uint64": np.int32}
    if array.dtype.name == "int64" and np.abs(array).max(initial=0) >= 2**31:
        return array  # numbers of episodes, which are not learned from
    return np.ascontiguousarray(array, narrow.get(array.dtype.name, array.dtype))


def _require_finite(leaf: np.ndarray, column: str, name: str, first_row: int) -> None:
    if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
        row = first_row + int(np.flatnonzero(~np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1))[0])
        raise DataError(f"{name}, row {row}: {column} holds NaN or infinity")


def _ends(
    known: Mapping[str, Any], name: str, max_episode_steps: int | None, doubts: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Which steps terminated and which cut their episode; the last one of all cuts what it did not end."""
    steps = len(known["rewards"])
    flags = {column: known[column].reshape(steps).astype(bool) for column in ENDS[:-1] if column in known}
    none = np.zeros(steps, bool)
    truncated = flags.get("truncateds", none)
    terminated = flags.get("terminateds", flags.get("dones", none) & ~truncated)
    if "eps_id" in known:
        changes = np.diff(known["eps_id"].reshape(steps)) != 0
        truncated = truncated | np.append(changes & ~terminated[:-1], False)
    if "terminateds" not in flags and "truncateds" not in flags and "dones" in flags:
        if doubts and max_episode_steps is None:
            _doubt_ends(terminated | truncated, terminated, name)
        terminated, truncated = _told_apart(terminated, truncated, max_episode_steps)
    if doubts and not (terminated | truncated).any():
        logger.warning("%s: no episode ends in its %d steps; the last one is taken for cut", name, steps)
    truncated = truncated.copy()
    truncated[-1] |= not terminated[-1]
    return terminated, truncated


def _told_apart(
    done: np.ndarray, truncated: np.ndarray, max_episode_steps: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Ends and cuts where only `dones` are told."""
    if max_episode_steps is None:
        return done, truncated
    ends = np.flatnonzero(done | truncated)
    lengths = np.diff(ends, prepend=-1)
    cut = np.zeros(len(done), bool)
    cut[ends[lengths >= max_episode_steps]] = True
    return done & ~cut, truncated | (done & cut)


def _doubt_ends(ended: np.ndarray, done: np.ndarray, name: str) -> None:
    """Warn where only `dones` are told, and all episodes are of one length."""
    lengths = np.diff(np.flatnonzero(ended), prepend=-1)
    if len(lengths) > 1 and (lengths == lengths[0]).all() and lengths[0] > 1 and done.any():
        logger.warning(
            "%s: all of its %d episodes have %d steps and are told as dones alone, which look terminated: if a time "
            "limit cut them, say input_config={'max_episode_steps': %d}",
            name,
            len(lengths),
            lengths[0],
            lengths[0],
        )


def _shifted(obs: Any, terminated: np.ndarray, truncated: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
    """Where each step led, told by the next one; cut episodes end a step earlier. The steps that are kept are last."""
    next_obs = mapped(lambda leaf: np.concatenate([leaf[1:], leaf[-1:]]), obs)
    kept = ~truncated
    before = np.append(truncated[1:] & ~(terminated | truncated)[:-1], False)
    return next_obs, truncated | before, kept


def _log_prob(known: Mapping[str, Any], name: str, first_row: int) -> np.ndarray | None:
    if "action_logp" in known:
        return known["action_logp"].astype(np.float32).reshape(-1)
    if "action_prob" not in known:
        return None
    probability = known["action_prob"].astype(np.float64).reshape(-1)
    if (probability <= 0).any():
        row = int(np.flatnonzero(probability <= 0)[0])
        raise DataError(
            f"{name}, row {first_row + row}: action_prob is {probability[row]}, and what was done has a probability"
        )
    return np.log(probability).astype(np.float32)


def columns_of(data: DataSet) -> dict[str, Any]:
    """The columns of a data set under RLlib's names, arrays `[N, ...]`.

    Raises DataError where observations or actions have several entries, which columns cannot hold.
    """
    for name, tree in (("observations", data.obs), ("actions", data.action)):
        if not isinstance(tree, np.ndarray):
            raise DataError(f"{name} of several entries have no column; write them as .safetensors")
    columns = {
        "obs": data.obs,
        "actions": data.action,
        "rewards": data.reward,
        "new_obs": data.next_obs,
        "terminateds": data.terminated,
        "truncateds": data.truncated,
        "dones": data.done,
        "eps_id": np.repeat(np.arange(len(data.ends)), data.lengths),
        "t": np.concatenate([np.arange(length) for length in data.lengths]),
    }
    if data.log_prob is not None:
        columns |= {"action_logp": data.log_prob, "action_prob": np.exp(data.log_prob)}
    return columns
