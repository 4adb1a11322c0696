"""Which entries of `info` a compiled training tells of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from athlete.core import Env, EnvWrapper, Tree, hyper
from athlete.spaces import zeros


@hyper
class InfoMetrics(EnvWrapper):
    """A JAX environment of whose `info` the entries `info_metrics` are told at the end of each episode."""

    info_metrics: tuple[str, ...]


def with_info_metrics(env: Env, names: Sequence[str] | bool) -> Env:
    """`env`, telling of these entries of its `info`; of all that are scalars where `names` is True.

    Raises ValueError for a name that its `info` does not have, or that is no scalar.
    """
    if not names:
        return env
    scalars = _scalars(env)
    if names is True:
        return InfoMetrics(env, tuple(scalars))
    assert not isinstance(names, bool)
    for name in names:
        if name not in scalars:
            there = ", ".join(map(repr, scalars)) or "none"
            raise ValueError(
                f"reporting(info_metrics={list(names)!r}): info has no number {name!r}; its numbers: {there}"
            )
    return InfoMetrics(env, tuple(names))


def _scalars(env: Env) -> list[str]:
    """The names in `info` that stand for one number."""

    def one_step(data: Any) -> Tree:
        key = jax.random.wrap_key_data(data)
        state, _ = env.reset(key)
        action = jax.tree.map(lambda leaf: leaf[0], zeros(env.action_space, (1,)))
        return env.step(state, action, key)[1].info

    info = jax.eval_shape(one_step, jax.ShapeDtypeStruct((2,), np.uint32))
    if not isinstance(info, dict):
        return []
    return [name for name, leaf in info.items() if getattr(leaf, "shape", None) == ()]
