"""Which environments of this process rows step: one that somebody else steps too is torn between their episodes."""

from __future__ import annotations

import contextlib
import weakref
from typing import Any

_stepped: dict[int, weakref.ref[Any]] = {}  # by identity: environments may compare as they like


def _innermost(env: Any) -> Any:
    return getattr(env, "unwrapped", env)


def note(env: Any) -> None:
    """A row steps `env` from now on."""
    inner = _innermost(env)
    with contextlib.suppress(TypeError):  # of classes with slots there is no weak reference
        _stepped[id(inner)] = weakref.ref(inner)


def forget(env: Any) -> None:
    """No row steps `env` any more."""
    _stepped.pop(id(_innermost(env)), None)


def require_unstepped(env: Any) -> None:
    """Raise ValueError where a factory has given an environment that a row steps already."""
    inner = _innermost(env)
    reference = _stepped.get(id(inner))
    if reference is not None and reference() is inner:
        raise ValueError(
            f"the factory gave {inner} once more, which is stepped already: make a new environment at each call, such "
            f"as `lambda env_config: {type(inner).__name__}(...)`"
        )
