"""A policy as a list of array operations: what `trace` makes of it, and what every format is written from.

Sizes are numbers; a negative size -n is n times the batch: `(-1, 64)` is one row of 64 an observation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Shape = tuple[int, ...]


class Form(NamedTuple):
    """The shape and the name of the data type of an array."""

    shape: Shape
    dtype: str


class Operation(NamedTuple):
    """`output = name(*inputs)`. Inputs are names of constants, of the graph's inputs, or of earlier operations."""

    name: str
    inputs: tuple[str, ...]
    output: str
    form: Form
    settings: Mapping[str, Any]


class Graph(NamedTuple):
    """Operations in an order in which they can be done."""

    inputs: dict[str, Form]
    constants: dict[str, np.ndarray]  # only those that are used
    operations: list[Operation]
    outputs: dict[str, str]  # what it is -> the name of the value
    forms: dict[str, Form]  # of every value


# Operations of numbers on their own. The graph has them, all on arrays that broadcast as NumPy's do:
UNARY = tuple(
    "abs ceil cos erf exp expm1 floor is_finite log log1p logistic neg not round sign sin sqrt tan tanh".split()  # noqa: SIM905
)
BINARY = tuple("add and atan2 div eq ge gt le lt max min mul ne or pow rem sub xor".split())  # noqa: SIM905
ELEMENTWISE = frozenset((*UNARY, *BINARY, "where"))
# And these, with settings:
#   cast                            to the data type of the form
#   reshape expand                  to the shape of the form; `expand` repeats axes of size 1
#   transpose (permutation)  concatenate (axis)  slice (starts, limits, strides)  pad (low, high)  reverse (axes)
#   take (axis)                     of a constant of integers as second input
#   sum max min all any (axes)      named reduce_sum, ...; the axes vanish
#   argmax argmin (axis)  cumsum (axis)
#   matmul                          [m, k] @ [k, n]
#   einsum (equation)               of two arrays

_NEUTRAL = {"add": 0, "sub": 0, "mul": 1, "div": 1}  # the second numbers that change nothing

Fold = Callable[[Operation, Sequence[np.ndarray]], np.ndarray | None]
LARGEST_FOLD = 1 << 20  # numbers; a larger constant is left to be made where it is used


class Builder:
    """Makes a graph, one operation at a time, and leaves out what need not be done when it acts.

    `fold` computes an operation on constants in NumPy, or gives None where it cannot.
    """

    def __init__(self, fold: Fold):
        self.inputs: dict[str, Form] = {}
        self.forms: dict[str, Form] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.operations: dict[str, Operation] = {}
        self._parameters: set[str] = set()
        self._known: dict[Any, str] = {}
        self._before_reshape: dict[str, str] = {}  # constants -> the constant that they are in another shape
        self._fold = fold

    def input(self, name: str, form: Form) -> str:
        """The name of an input, `name` unless that is taken."""
        name = self._free(name)
        self.inputs[name] = self.forms[name] = form
        return name

    def _free(self, name: str) -> str:
        free = name
        while free in self.forms:
            free = f"{name}_{len(self.forms)}"
        return free

    def parameter(self, array: np.ndarray, name: str) -> str:
        """A named constant, which stays apart from others that happen to be equal."""
        name = self._free(name)
        self._parameters.add(name)
        self.constants[name] = array
        self.forms[name] = Form(array.shape, array.dtype.name)
        return name

    def constant(self, array: Any, name: str = "constant") -> str:
        """The name of an array; equal ones are one."""
        array = np.asarray(array)
        key = (array.shape, array.dtype.name, array.tobytes())
        if key not in self._known:
            free = self._known[key] = self._free(name)
            self.constants[free] = array
            self.forms[free] = Form(array.shape, array.dtype.name)
        return self._known[key]

    def add(self, name: str, inputs: Sequence[str], form: Form, **settings: Any) -> str:
        """The name of the value of an operation."""
        if name in ELEMENTWISE:
            inputs = [self._as_broadcast(value, form, inputs) for value in inputs]
        if (same := self._trivial(name, inputs, form, settings)) is not None:
            return same
        before = self.operations.get(inputs[0]) if name == "reshape" else None
        if before is not None and before.name == "reshape":
            return self.add("reshape", before.inputs, form)
        if before is not None and before.name == "expand" and math.prod(self.forms[before.inputs[0]].shape) == 1:
            one = self.add("reshape", before.inputs, Form((1,) * len(form.shape), form.dtype))
            return self.add("expand", [one], form)
        if name == "expand" and (before := self.operations.get(inputs[0])) and before.name == "expand":
            return self.add("expand", before.inputs, form)
        if name in ELEMENTWISE and (sources := self._before_reshapes(inputs, form)) is not None:
            flat = self.forms[next(value for value in sources if self.forms[value].shape)].shape
            return self.add("reshape", [self.add(name, sources, Form(flat, form.dtype))], form)
        key = (name, tuple(inputs), form, repr(settings))
        if key in self._known:
            return self._known[key]
        operation = Operation(name, tuple(inputs), f"%{len(self.operations)}", form, settings)
        if (folded := self._folded(operation)) is not None:
            return folded
        self._known[key] = operation.output
        self.operations[operation.output] = operation
        self.forms[operation.output] = form
        return operation.output

    def _trivial(self, name: str, inputs: Sequence[str], form: Form, settings: Mapping[str, Any]) -> str | None:
        """The input that this operation would give unchanged, if it is one."""
        before = self.forms[inputs[0]] if inputs else None
        rank = len(form.shape)
        if (
            (name in ("cast", "reshape", "expand") and before == form)
            or (name == "transpose" and settings["permutation"] == tuple(range(rank)))
            or (name == "slice" and before == form)
            or (name == "pad" and not any(settings["low"] + settings["high"]))
            or (name == "concatenate" and len(inputs) == 1)
        ):
            return inputs[0]
        if name in _NEUTRAL and inputs[1] in self.constants and before == form:
            neutral = self.constants[inputs[1]]
            if neutral.ndim == 0 and inputs[1] not in self._parameters and neutral == _NEUTRAL[name]:
                return inputs[0]
        if name == "where" and inputs[0] in self.constants:
            condition = self.constants[inputs[0]]
            chosen = inputs[1] if condition.all() else inputs[2] if not condition.any() else None
            return self.add("expand", [self._in_rank(chosen, rank)], form) if chosen is not None else None
        return None

    def _before_reshapes(self, inputs: Sequence[str], form: Form) -> list[str] | None:
        """The inputs before they all were brought from one shape into another; None where it is not so."""
        sources, shapes = [], set()
        for value in inputs:
            operation = self.operations.get(value)
            if not self.forms[value].shape and value in self.constants:
                sources.append(value)
            elif operation is not None and operation.name == "reshape" and operation.form.shape == form.shape:
                sources.append(operation.inputs[0])
                shapes.add(self.forms[operation.inputs[0]].shape)
            else:
                return None
        return sources if len(shapes) == 1 else None

    def _in_rank(self, value: str, rank: int) -> str:
        """The value with axes of size 1 in front."""
        shape, dtype = self.forms[value]
        return self.add("reshape", [value], Form((1,) * (rank - len(shape)) + shape, dtype))

    def _folded(self, operation: Operation) -> str | None:
        form, inputs = operation.form, operation.inputs
        small = all(size >= 0 for size in form.shape) and math.prod(form.shape) <= LARGEST_FOLD
        if not small or not all(name in self.constants for name in inputs):
            return None
        array = self._fold(operation, [self.constants[name] for name in inputs])
        if array is None:
            return None
        named = [name for name in inputs if not name.startswith("constant")] or ["constant"]
        made = self.constant(np.asarray(array, form.dtype).reshape(form.shape), named[0])
        if operation.name == "reshape":
            self._before_reshape.setdefault(made, self._before_reshape.get(inputs[0], inputs[0]))
        return made

    def _as_broadcast(self, value: str, form: Form, others: Sequence[str]) -> str:
        """The value before it was spread to the shape of an elementwise operation, where NumPy's rules spread it."""
        operation = self.operations.get(value)
        if operation is not None and operation.name == "expand":
            source = operation.inputs[0]
            rest = [self.forms[other].shape for other in others if other != value]
            if broadcast(self.forms[source].shape, *rest) == form.shape:
                return source
        if value in self.constants and len(others) > 1:
            rest = [self.forms[other].shape for other in others if other != value]
            source = self._before_reshape.get(value, value)
            is_number = self.constants[value].size == 1 and source not in self._parameters
            if is_number and any(len(shape) == len(form.shape) for shape in rest):
                return self.constant(self.constants[value].reshape(()))
            if rest and broadcast(self.forms[source].shape, *rest) == form.shape:
                return source
        return value

    def graph(self, outputs: Mapping[str, str]) -> Graph:
        """The graph of what `outputs` need."""
        needed = self.needed_for(outputs.values())
        names = _short([name for name in self.constants if name in needed and self.constants[name].ndim])
        operations = [
            operation._replace(inputs=tuple(names.get(value, value) for value in operation.inputs))
            for operation in self.operations.values()
            if operation.output in needed
        ]
        constants = {names.get(name, name): array for name, array in self.constants.items() if name in needed}
        inputs = {name: form for name, form in self.inputs.items() if name in needed}
        outputs = {what: names.get(value, value) for what, value in outputs.items()}
        return Graph(inputs, constants, operations, outputs, {names.get(k, k): form for k, form in self.forms.items()})

    def needed_for(self, values: Any) -> set[str]:
        """All that these values are computed from, themselves included."""
        needed: set[str] = set()
        left = list(values)
        while left:
            value = left.pop()
            if value not in needed:
                needed.add(value)
                left += self.operations[value].inputs if value in self.operations else ()
        return needed


def _short(names: Sequence[str]) -> dict[str, str]:
    """Each name without what all begin with: `agent.network.policy.layers.0.kernel` is `layers.0.kernel`."""
    parts = [name.split(".") for name in names if not name.startswith("constant")]
    shared = 0
    while parts and all(len(part) > shared + 1 and part[shared] == parts[0][shared] for part in parts):
        shared += 1
    return {name: name if name.startswith("constant") else ".".join(name.split(".")[shared:]) for name in names}


def broadcast(*shapes: Shape) -> Shape | None:
    """The shape of an elementwise operation by NumPy's rules; None where they do not fit."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    sizes = []
    for axis in zip(*padded, strict=True):
        wide = {size for size in axis if size != 1}
        if len(wide) > 1:
            return None
        sizes.append(wide.pop() if wide else 1)
    return tuple(sizes)
