"""`hyper`: frozen dataclasses whose floats are traced, so that new values never recompile a program."""

from __future__ import annotations

import dataclasses
import operator
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax

_Class = TypeVar("_Class", bound=type)


def _is_traced(hint: Any) -> bool:
    """Whether a field of this annotation holds numbers that may change without changing the program."""
    if hint is float or hint is jax.Array or getattr(hint, "__hyper__", False):
        return True
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType, tuple):
        return any(_is_traced(part) for part in typing.get_args(hint))
    return False


def _getter(names: list[str]) -> Callable[[Any], tuple]:
    """The values of these attributes as a tuple. `attrgetter`, since jit asks for them in every call."""
    return operator.attrgetter(*names) if len(names) > 1 else lambda self: tuple([getattr(self, x) for x in names])


def _register(cls: Any, traced: list[str], static: list[str]) -> None:
    """Make instances of a dataclass pytrees.

    By hand, since the structures that `jax.tree_util.register_dataclass` gives compare equal for two classes whose
    static fields agree: now and then jit took the program of one class for the other (JAX 0.10.2).
    """
    children, meta = _getter(traced), _getter(static)
    keys = [jax.tree_util.GetAttrKey(name) for name in traced]

    def unflatten(aux: tuple, leaves: Iterable) -> Any:
        return cls(**dict(zip(static, aux, strict=True)), **dict(zip(traced, leaves, strict=True)))

    jax.tree_util.register_pytree_with_keys(
        cls,
        lambda self: (tuple(zip(keys, children(self), strict=True)), meta(self)),
        unflatten,
        lambda self: (children(self), meta(self)),
    )


@typing.dataclass_transform(frozen_default=True)
def hyper(cls: _Class) -> _Class:
    """Make a class a frozen dataclass whose floats are traced and whose every other field is static.

    Traced: fields annotated `float`, `jax.Array` (a table), a `@hyper` class (a schedule, a model, an environment), a
    union or a tuple with one of these. They are leaves of a pytree: a new value never recompiles, and `jax.vmap` can
    map over it.
    Static: all the rest (integers, strings, switches); they shape the program and must be hashable.
    """
    data_class: Any = dataclasses.dataclass(frozen=True)(cls)
    hints = typing.get_type_hints(data_class)
    names = [field.name for field in dataclasses.fields(data_class)]
    traced = [name for name in names if _is_traced(hints[name])]
    static = [name for name in names if name not in traced]
    _register(data_class, traced, static)
    data_class.__hyper__ = True
    return data_class
