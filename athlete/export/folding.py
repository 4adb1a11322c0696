"""Operations on constants, computed while a policy is traced, so that nobody computes them while it acts."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from athlete.export.graph import UNARY, Operation


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), which does not overflow in this form."""
    return np.float32(0.5) * np.tanh(np.float32(0.5) * x) + np.float32(0.5)


def fold(operation: Operation, arrays: Sequence[np.ndarray]) -> np.ndarray | None:
    """What an operation gives for constants, as the NumPy module would compute it; None for one that NumPy lacks."""
    if operation.name in ON_NUMBERS:
        with np.errstate(all="ignore"):
            return ON_NUMBERS[operation.name](*arrays)
    if operation.name in WITH_SETTINGS:
        return WITH_SETTINGS[operation.name](operation, *arrays)
    return None


_OWN = {"erf", "is_finite", "logistic", "neg", "not"}  # that NumPy calls otherwise, or lacks
ON_NUMBERS: dict[str, Callable[..., Any]] = {
    **{name: getattr(np, name) for name in UNARY if name not in _OWN},
    "add": operator.add,
    "and": operator.and_,
    "atan2": np.arctan2,
    "div": operator.truediv,
    "eq": operator.eq,
    "ge": operator.ge,
    "gt": operator.gt,
    "is_finite": np.isfinite,
    "le": operator.le,
    "logistic": sigmoid,
    "lt": operator.lt,
    "matmul": operator.matmul,
    "max": np.maximum,
    "min": np.minimum,
    "mul": operator.mul,
    "ne": operator.ne,
    "neg": operator.neg,
    "not": operator.invert,
    "or": operator.or_,
    "pow": operator.pow,
    "rem": np.fmod,
    "sub": operator.sub,
    "where": np.where,
    "xor": operator.xor,
}


def _slice(operation: Operation, x: np.ndarray) -> np.ndarray:
    limits = [limit if limit >= 0 else None for limit in operation.settings["limits"]]
    settings = operation.settings
    return x[tuple(map(slice, settings["starts"], limits, settings["strides"]))]


def _pad(operation: Operation, x: np.ndarray, value: np.ndarray) -> np.ndarray:
    widths = list(zip(operation.settings["low"], operation.settings["high"], strict=True))
    return np.pad(x, widths, constant_values=value)


def _reduced(reduce: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda operation, x: reduce(x, axis=operation.settings["axes"])


WITH_SETTINGS: Mapping[str, Callable[..., Any]] = {
    "cast": lambda operation, x: x.astype(operation.form.dtype),
    "reshape": lambda operation, x: x.reshape([max(size, -1) for size in operation.form.shape]),
    "expand": lambda operation, x: np.broadcast_to(x, operation.form.shape),
    "transpose": lambda operation, x: x.transpose(operation.settings["permutation"]),
    "concatenate": lambda operation, *parts: np.concatenate(parts, axis=operation.settings["axis"]),
    "slice": _slice,
    "pad": _pad,
    "reverse": lambda operation, x: np.flip(x, operation.settings["axes"]),
    "take": lambda operation, x, index: np.take(x, index, axis=operation.settings["axis"]),
    "einsum": lambda operation, *parts: np.einsum(operation.settings["equation"], *parts),
    "cumsum": lambda operation, x: np.cumsum(x, axis=operation.settings["axis"]),
    "argmax": lambda operation, x: np.argmax(x, axis=operation.settings["axis"]),
    "argmin": lambda operation, x: np.argmin(x, axis=operation.settings["axis"]),
    "reduce_sum": _reduced(np.sum),
    "reduce_max": _reduced(np.max),
    "reduce_min": _reduced(np.min),
    "reduce_prod": _reduced(np.prod),
    "reduce_and": _reduced(np.all),
    "reduce_or": _reduced(np.any),
}
