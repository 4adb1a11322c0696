"""A policy as an ONNX model, with any batch. The one module that speaks to `onnx`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from athlete.export.dialects import require_known, sizes
from athlete.export.graph import Form, Operation
from athlete.export.trace import Traced
from athlete.version import __version__

OPSET = 18

_SAME = {
    "abs": "Abs", "ceil": "Ceil", "cos": "Cos", "erf": "Erf", "exp": "Exp", "floor": "Floor", "log": "Log",
    "logistic": "Sigmoid", "neg": "Neg", "not": "Not", "round": "Round", "sign": "Sign", "sin": "Sin", "sqrt": "Sqrt",
    "tan": "Tan", "tanh": "Tanh", "add": "Add", "and": "And", "div": "Div", "eq": "Equal", "ge": "GreaterOrEqual",
    "gt": "Greater", "le": "LessOrEqual", "lt": "Less", "max": "Max", "min": "Min", "mul": "Mul", "or": "Or",
    "pow": "Pow", "sub": "Sub", "xor": "Xor", "where": "Where", "matmul": "MatMul",
}  # fmt: skip
_REDUCTIONS = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin"}
_SMALL = frozenset(("bool", "int8", "uint8", "int16", "uint16"))  # types that few kernels are there for


class _Nodes:
    """Collects the nodes of a model; each method adds some and gives the name of the value."""

    def __init__(self, onnx: Any, traced: Traced):
        self.onnx, self.traced = onnx, traced
        self.nodes: list[Any] = []
        self.arrays: dict[str, np.ndarray] = dict(traced.graph.constants)

    def node(self, kind: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        output = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def whole_numbers(self, numbers: Any) -> str:
        """A constant of 64-bit integers, as sizes and axes are given."""
        name = f"numbers_{len(self.arrays)}"
        self.arrays[name] = np.asarray(numbers, np.int64)
        return name

    def cast(self, value: str, dtype: str, output: str | None = None) -> str:
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.node("Cast", [value], output, to=kind)

    def batch(self) -> str:
        """The size of the batch, `[1]`."""
        seen = next(name for name in self.traced.graph.inputs if name.startswith("observation"))
        return self.node("Shape", [seen], start=0, end=1)

    def spread(self, shape: Sequence[int]) -> str:
        """A shape, of which some sizes are the batch's."""
        if all(size >= 0 for size in shape):
            return self.whole_numbers(shape)
        batch, parts = self.batch(), []
        for size in shape:
            if size >= 0:
                parts.append(self.whole_numbers([size]))
            else:
                parts.append(batch if size == -1 else self.node("Mul", [batch, self.whole_numbers([-size])]))
        return self.node("Concat", parts, axis=0)


Rule = Callable[[_Nodes, Operation, Sequence[str]], str]


def _elementwise(nodes: _Nodes, operation: Operation, inputs: Sequence[str]) -> str:
    name = _SAME[operation.name]
    forms = [nodes.traced.graph.forms[value] for value in operation.inputs]
    compares = operation.name in ("eq", "ge", "gt", "le", "lt")
    if compares and any(form.dtype in _SMALL for form in forms):
        inputs = [nodes.cast(value, "int32") for value in inputs]
    return nodes.node(name, inputs)


def _slice(nodes: _Nodes, operation: Operation, inputs: Sequence[str]) -> str:
    settings = operation.settings
    whole = nodes.traced.graph.forms[operation.inputs[0]].shape
    rows = [
        (start, limit, axis, stride)
        for axis, (start, limit, stride) in enumerate(
            zip(settings["starts"], settings["limits"], settings["strides"], strict=True)
        )
        if (start, limit, stride) != (0, whole[axis], 1)
    ]
    return nodes.node("Slice", [inputs[0], *(nodes.whole_numbers(column) for column in zip(*rows, strict=True))])


def _reverse(nodes: _Nodes, operation: Operation, inputs: Sequence[str]) -> str:
    axes = operation.settings["axes"]
    columns = ([-1] * len(axes), [np.iinfo(np.int64).min] * len(axes), axes, [-1] * len(axes))
    return nodes.node("Slice", [inputs[0], *map(nodes.whole_numbers, columns)])


def _flags(kind: str) -> Rule:
    """All or any of flags: the least or the greatest of them as numbers."""

    def rule(nodes: _Nodes, operation: Operation, inputs: Sequence[str]) -> str:
        axes = nodes.whole_numbers(operation.settings["axes"])
        return nodes.cast(nodes.node(kind, [nodes.cast(inputs[0], "int32"), axes], keepdims=0), "bool")

    return rule


def _finite(nodes: _Nodes, operation: Operation, inputs: Sequence[str]) -> str:
    return nodes.node("Not", [nodes.node("Or", [nodes.node("IsNaN", inputs), nodes.node("IsInf", inputs)])])


RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME, _elementwise),
    "ne": lambda nodes, operation, inputs: nodes.node("Not", [nodes.node("Equal", inputs)]),
    "rem": lambda nodes, operation, inputs: nodes.node("Mod", inputs, fmod=1),
    "is_finite": _finite,
    "expm1": lambda nodes, operation, inputs: nodes.node("Sub", [nodes.node("Exp", inputs), _one(nodes)]),
    "log1p": lambda nodes, operation, inputs: nodes.node("Log", [nodes.node("Add", [inputs[0], _one(nodes)])]),
    "cast": lambda nodes, operation, inputs: nodes.cast(inputs[0], operation.form.dtype),
    "reshape": lambda nodes, operation, inputs: nodes.node(
        "Reshape", [inputs[0], nodes.whole_numbers(sizes(operation.form.shape))]
    ),
    "expand": lambda nodes, operation, inputs: nodes.node("Expand", [inputs[0], nodes.spread(operation.form.shape)]),
    "transpose": lambda nodes, operation, inputs: nodes.node(
        "Transpose", inputs, perm=operation.settings["permutation"]
    ),
    "concatenate": lambda nodes, operation, inputs: nodes.node("Concat", inputs, axis=operation.settings["axis"]),
    "slice": _slice,
    "reverse": _reverse,
    "pad": lambda nodes, operation, inputs: nodes.node(
        "Pad", [inputs[0], nodes.whole_numbers(operation.settings["low"] + operation.settings["high"]), inputs[1]]
    ),
    "take": lambda nodes, operation, inputs: nodes.node("Gather", inputs, axis=operation.settings["axis"]),
    "einsum": lambda nodes, operation, inputs: nodes.node("Einsum", inputs, equation=operation.settings["equation"]),
    "cumsum": lambda nodes, operation, inputs: nodes.node(
        "CumSum", [inputs[0], nodes.whole_numbers(operation.settings["axis"])]
    ),
    **{
        name: lambda nodes, operation, inputs, kind=kind: nodes.node(  # type: ignore[misc]
            kind, [inputs[0], nodes.whole_numbers(operation.settings["axes"])], keepdims=0
        )
        for name, kind in _REDUCTIONS.items()
    },
    "reduce_and": _flags("ReduceMin"),
    "reduce_or": _flags("ReduceMax"),
    "argmax": lambda nodes, operation, inputs: nodes.cast(
        nodes.node("ArgMax", inputs, axis=operation.settings["axis"], keepdims=0), operation.form.dtype
    ),
    "argmin": lambda nodes, operation, inputs: nodes.cast(
        nodes.node("ArgMin", inputs, axis=operation.settings["axis"], keepdims=0), operation.form.dtype
    ),
}


def _one(nodes: _Nodes) -> str:
    nodes.arrays["one"] = np.ones((), np.float32)
    return "one"


def write_onnx(traced: Traced, path: Path, spaces: tuple[Any, Any]) -> list[Path]:
    """Write the model `path`. Inputs are `observation` and `state...`, outputs `action`, `scores`, `next_state...`.

    Raises ImportError, naming the extra, where `onnx` is not installed.
    """
    try:
        onnx = importlib.import_module("onnx")
    except ImportError as error:
        raise ImportError("export(format='onnx') needs the package onnx: pip install onnx onnxruntime") from error
    nodes, graph = _Nodes(onnx, traced), traced.graph
    names: dict[str, str] = {}
    for operation in graph.operations:
        require_known(operation, RULES, "ONNX")
        inputs = [names.get(name, name) for name in operation.inputs]
        names[operation.output] = RULES[operation.name](nodes, operation, inputs)
    for what, value in graph.outputs.items():
        nodes.node("Identity", [names.get(value, value)], what)
    helper = onnx.helper
    model = helper.make_model(
        helper.make_graph(
            nodes.nodes,
            "policy",
            [_described(onnx, name, form) for name, form in graph.inputs.items()],
            [_described(onnx, what, graph.forms[value]) for what, value in graph.outputs.items()],
            [onnx.numpy_helper.from_array(array, name) for name, array in nodes.arrays.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="athlete",
        producer_version=__version__,
        doc_string=f"Greedy actions of {spaces[1]!r} for observations of {spaces[0]!r}.",
    )
    model.ir_version = 9  # of that opset, so that runtimes of its time read it
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return [path]


def _described(onnx: Any, name: str, form: Form) -> Any:
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(form.dtype))
    shape = ["batch" if size == -1 else f"{-size}_batch" if size < 0 else size for size in form.shape]
    return onnx.helper.make_tensor_value_info(name, kind, shape)
