"""Configurations as JSON: what a checkpoint keeps of classes and objects, and how they are found again.

Nothing is imported or called on reading: a class is taken only from a module that this process has already imported.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

from athlete.core import Source

_CLASS, _OBJECT, _OPAQUE = "__class__", "__object__", "__opaque__"


def to_portable(value: Any) -> Any:
    """`value` as JSON: classes by name, dataclass instances by class and fields, anything else as its description."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): to_portable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_portable(part) for part in value]
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, type) or callable(value):
        return {_CLASS: f"{value.__module__}:{getattr(value, '__qualname__', repr(value))}"}
    if dataclasses.is_dataclass(value):
        fields = {field.name: to_portable(getattr(value, field.name)) for field in dataclasses.fields(value)}
        kind = type(value)
        return {_OBJECT: f"{kind.__module__}:{kind.__qualname__}", "fields": fields}
    return {_OPAQUE: _described(value)}


def _described(value: Any) -> str:
    """A short text about what has no JSON form: a table is not written out."""
    text, kind = repr(value), type(value)
    package = kind.__module__.partition(".")[0]
    return text if len(text) <= 80 and "\n" not in text else f"a {package}.{kind.__qualname__}"


def from_portable(value: Any, where: str = "config") -> Any:
    """The inverse of `to_portable`.

    Raises LookupError, naming the entry, for a class that this process has not imported and for what has no JSON form.
    """
    if isinstance(value, list):
        return [from_portable(part, where) for part in value]
    if not isinstance(value, Mapping):
        return value
    if _CLASS in value:
        return _find(value[_CLASS], where)
    if _OBJECT in value:
        kind = _find(value[_OBJECT], where)
        if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
            raise LookupError(f"{where}: {value[_OBJECT]} is no dataclass")
        given = value.get("fields")
        if not isinstance(given, Mapping):
            raise LookupError(f"{where}: {value[_OBJECT]} has no fields but {given!r}")
        fields = {key: from_portable(part, f"{where}.{key}") for key, part in given.items()}
        try:
            return kind(**{key: tuple(part) if isinstance(part, list) else part for key, part in fields.items()})
        except (TypeError, ValueError) as error:
            raise LookupError(f"{where}: {value[_OBJECT]} cannot be made of its fields: {error}") from error
    if _OPAQUE in value:
        raise LookupError(f"{where}: {value[_OPAQUE]} could not be kept in a file")
    return {key: from_portable(part, f"{where}.{key}") for key, part in value.items()}


def _has(found: Any, *methods: str) -> bool:
    return isinstance(found, type) and all(hasattr(found, method) for method in methods)


def _find(path: str, where: str) -> Any:
    module_name, _, qualified = str(path).partition(":")
    found: Any = sys.modules.get(module_name)
    for part in qualified.split("."):
        found = getattr(found, "__dict__", {}).get(part)  # not getattr: a module's __getattr__ may import
    # Only classes of the kinds that configurations hold; a name in a file must not reach any other callable.
    # A source of rows is none of them: it makes whatever environment it is given the name of.
    is_environment = _has(found, "reset", "step") and not issubclass(found, Source)
    if not (is_environment or _has(found, "init", "apply") or _has(found, "bind", "act")):
        raise LookupError(f"{where}: {path} is not known here; import or define it first, or pass it")
    return found
