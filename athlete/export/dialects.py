"""Operations as text: NumPy, PyTorch and JavaScript, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from athlete.export.graph import BINARY, UNARY, Graph, Operation, Shape

WIDEST = 80  # letters; a longer expression gets a name of its own

Template = Callable[[Operation, Sequence[str]], str]


class Dialect(NamedTuple):
    """How a language writes values and operations."""

    operations: Mapping[str, Template]
    number: Callable[[Any], str]  # a constant without axes
    constant: Callable[[str], str]  # one that is kept in a file, by its name
    value: Callable[[str], str]  # an input of the graph


class Text(NamedTuple):
    """A graph in a language."""

    steps: list[tuple[str, str]]  # name and expression, in order
    outputs: dict[str, str]  # what it is -> expression
    arrays: dict[str, np.ndarray]  # the constants with axes


def written(graph: Graph, dialect: Dialect, language: str) -> Text:
    """The graph as expressions. A value that is used once stands where it is used, unless that gets too long.

    Raises NotImplementedError for an operation that the dialect does not have.
    """
    uses = Counter(name for operation in graph.operations for name in operation.inputs)
    uses.update(graph.outputs.values())
    texts = {name: dialect.value(name) for name in graph.inputs}
    for name, array in graph.constants.items():
        texts[name] = dialect.constant(name) if array.ndim else dialect.number(array)
    steps: list[tuple[str, str]] = []

    def name_it(value: str) -> None:
        name = f"x{len(steps) + 1}"
        steps.append((name, bare(texts[value])))
        texts[value] = name
        within.discard(value)

    within: set[str] = set()  # values whose expressions stand where they are used
    for operation in graph.operations:
        require_known(operation, dialect.operations, language)
        template = dialect.operations[operation.name]
        text = template(operation, [texts[name] for name in operation.inputs])
        while len(text) > WIDEST and (long := within.intersection(operation.inputs)):
            name_it(max(sorted(long), key=lambda value: len(texts[value])))
            text = template(operation, [texts[name] for name in operation.inputs])
        texts[operation.output] = text
        within.add(operation.output)
        if uses[operation.output] > 1:
            name_it(operation.output)
    outputs = {what: bare(texts[name]) for what, name in graph.outputs.items()}
    return Text(steps, outputs, {name: array for name, array in graph.constants.items() if array.ndim})


def require_known(operation: Operation, known: Mapping[str, Any], language: str) -> None:
    """Raise NotImplementedError for an operation that a format does not have."""
    if operation.name not in known:
        raise NotImplementedError(
            f"export: this policy's network needs the operation {operation.name!r}, which cannot be written in "
            f"{language} yet; format='stablehlo' holds every network"
        )


def bare(text: str) -> str:
    """An expression without parentheses around all of it."""
    if not text.startswith("("):
        return text
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[1:-1] if i == len(text) - 1 else text
    return text


# Templates ------------------------------------------------------------------------------------------------------------


def _call(function: str) -> Template:
    return lambda operation, inputs: f"{function}({', '.join(map(bare, inputs))})"


def _infix(sign: str) -> Template:
    def template(operation: Operation, inputs: Sequence[str]) -> str:
        parts = map(_product, inputs) if sign in ("+", "-") else inputs
        return f"({f' {sign} '.join(parts)})"

    return template


def _product(text: str) -> str:
    """A product without its parentheses, which it does not need in a sum; anything else as it is."""
    inside = bare(text)
    depth, signs = 0, ""
    for i, letter in enumerate(inside):
        depth += (letter in "([") - (letter in ")]")
        signs += letter if depth == 0 and inside[i - 1 : i + 2] == f" {letter} " else ""
    return inside if signs in ("@", "*", "/") else text


def _with(function: str, argument: str, setting: str) -> Template:
    """`function(x, argument=setting)`."""
    return lambda operation, inputs: (
        f"{function}({', '.join(map(bare, inputs))}, {argument}={_plain(operation.settings[setting])})"
    )


def _method(name: str, of: Callable[[Operation], Any]) -> Template:
    def template(operation: Operation, inputs: Sequence[str]) -> str:
        return f"{inputs[0]}.{name}({', '.join(str(part) for part in of(operation))})"

    return template


def _plain(setting: Any) -> Any:
    """One axis as a number."""
    return setting[0] if isinstance(setting, tuple) and len(setting) == 1 else setting


def sizes(shape: Shape) -> list[int]:
    """A shape for reshaping: what depends on the batch is -1."""
    return [max(size, -1) for size in shape]


def _spread(shape: Shape) -> str:
    """A shape to repeat axes to, which says the batch."""
    texts = ["batch" if size == -1 else f"{-size} * batch" if size < 0 else str(size) for size in shape]
    return f"({', '.join(texts)}{',' if len(texts) == 1 else ''})"


def _parts(operation: Operation, inputs: Sequence[str]) -> str:
    settings = operation.settings
    cuts = []
    for start, limit, stride in zip(settings["starts"], settings["limits"], settings["strides"], strict=True):
        text = f"{start or ''}:{limit if limit >= 0 else ''}"
        cuts.append(text if stride == 1 else f"{text}:{stride}")
    while len(cuts) > 1 and cuts[-1] == ":":
        cuts.pop()
    return f"{inputs[0]}[{', '.join(cuts)}]"


def _flipped(operation: Operation, inputs: Sequence[str]) -> str:
    cuts = ["::-1" if axis in operation.settings["axes"] else ":" for axis in range(len(operation.form.shape))]
    return f"{inputs[0]}[{', '.join(cuts)}]"


_SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**", "matmul": "@"}
_SIGNS |= {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "and": "&", "or": "|", "xor": "^"}

_PYTHON: dict[str, Template] = {
    **{name: _infix(sign) for name, sign in _SIGNS.items()},
    "neg": lambda operation, inputs: f"(-{inputs[0]})",
    "not": lambda operation, inputs: f"(~{inputs[0]})",
    "logistic": _call("sigmoid"),
    "slice": _parts,
    "reshape": _method("reshape", lambda operation: sizes(operation.form.shape)),
}

NUMPY: dict[str, Template] = {
    **{name: _call(f"np.{name}") for name in UNARY if name not in ("erf", "is_finite", "logistic", "neg", "not")},
    **_PYTHON,
    "is_finite": _call("np.isfinite"),
    "max": _call("np.maximum"),
    "min": _call("np.minimum"),
    "rem": _call("np.fmod"),
    "atan2": _call("np.arctan2"),
    "where": _call("np.where"),
    "cast": _method("astype", lambda operation: [_numpy_type(operation.form.dtype)]),
    "expand": lambda operation, inputs: f"np.broadcast_to({bare(inputs[0])}, {_spread(operation.form.shape)})",
    "transpose": _method("transpose", lambda operation: operation.settings["permutation"]),
    "concatenate": lambda operation, inputs: (
        f"np.concatenate([{', '.join(map(bare, inputs))}], axis={operation.settings['axis']})"
    ),
    "pad": lambda operation, inputs: (
        f"np.pad({bare(inputs[0])}, {tuple(zip(operation.settings['low'], operation.settings['high'], strict=True))}, "
        f"constant_values={inputs[1]})"
    ),
    "reverse": _flipped,
    "take": _with("np.take", "axis", "axis"),
    "einsum": lambda operation, inputs: (
        f'np.einsum("{operation.settings["equation"]}", {", ".join(map(bare, inputs))})'
    ),
    "cumsum": _with("np.cumsum", "axis", "axis"),
    **{f"reduce_{name}": _with(f"np.{name}", "axis", "axes") for name in ("sum", "max", "min", "prod")},
    "reduce_and": _with("np.all", "axis", "axes"),
    "reduce_or": _with("np.any", "axis", "axes"),
    **{name: _with(f"np.{name}", "axis", "axis") for name in ("argmax", "argmin")},
}


def _numpy_type(dtype: str) -> str:
    return "bool" if dtype == "bool" else f"np.{dtype}"


INFINITY = 'float("inf")'  # in Python without NumPy


def _clamp(side: str) -> Template:
    """A maximum or minimum, of which PyTorch has one for tensors and one for numbers."""

    def template(operation: Operation, inputs: Sequence[str]) -> str:
        numbers = [text for text in inputs if _is_number(text)]
        if not numbers:
            return f"torch.{'maximum' if side == 'min' else 'minimum'}({', '.join(map(bare, inputs))})"
        rest = inputs[1] if inputs[0] == numbers[0] else inputs[0]
        if (side, numbers[0]) == ("min", "0.0"):
            return f"torch.relu({bare(rest)})"
        return f"{rest}.clamp({side}={numbers[0]})"

    return template


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text in (INFINITY, f"-{INFINITY}")
    return True


def _torch_reduction(name: str) -> Template:
    return lambda operation, inputs: f"torch.{name}({bare(inputs[0])}, dim={operation.settings['axes']})"


def _torch_pad(operation: Operation, inputs: Sequence[str]) -> str:
    pairs = list(zip(operation.settings["low"], operation.settings["high"], strict=True))
    flat = [number for pair in reversed(pairs) for number in pair]  # PyTorch begins with the last axis
    return f"functional.pad({bare(inputs[0])}, {flat}, value={inputs[1]})"


TORCH: dict[str, Template] = {
    **{name: _call(f"torch.{name}") for name in UNARY if name not in ("is_finite", "logistic", "neg", "not")},
    **_PYTHON,
    "logistic": _call("torch.sigmoid"),
    "is_finite": _call("torch.isfinite"),
    "max": _clamp("min"),
    "min": _clamp("max"),
    "rem": _call("torch.fmod"),
    "atan2": _call("torch.atan2"),
    "where": _call("torch.where"),
    "cast": _method("to", lambda operation: [f"torch.{operation.form.dtype}"]),
    "expand": lambda operation, inputs: f"{inputs[0]}.expand{_spread(operation.form.shape)}",
    "transpose": _method("permute", lambda operation: operation.settings["permutation"]),
    "concatenate": lambda operation, inputs: (
        f"torch.cat([{', '.join(map(bare, inputs))}], dim={operation.settings['axis']})"
    ),
    "pad": _torch_pad,
    "reverse": lambda operation, inputs: f"{inputs[0]}.flip({list(operation.settings['axes'])})",
    "take": lambda operation, inputs: f"{inputs[0]}.index_select({operation.settings['axis']}, {inputs[1]})",
    "einsum": lambda operation, inputs: (
        f'torch.einsum("{operation.settings["equation"]}", {", ".join(map(bare, inputs))})'
    ),
    "cumsum": _with("torch.cumsum", "dim", "axis"),
    "reduce_sum": _torch_reduction("sum"),
    "reduce_max": _torch_reduction("amax"),
    "reduce_min": _torch_reduction("amin"),
    "reduce_and": _torch_reduction("all"),
    "reduce_or": _torch_reduction("any"),
    **{name: _with(f"torch.{name}", "dim", "axis") for name in ("argmax", "argmin")},
}


def _script(function: str, *settings: str) -> Template:
    """`function(x, [settings])`: in JavaScript all operations are functions of `tensor.js`."""

    def template(operation: Operation, inputs: Sequence[str]) -> str:
        more = [_list(operation.settings[name]) for name in settings]
        return f"{function}({', '.join([*inputs, *more])})"

    return template


def _list(setting: Any) -> str:
    return f'"{setting}"' if isinstance(setting, str) else str(list(setting) if isinstance(setting, tuple) else setting)


def _to_shape(function: str) -> Template:
    return lambda operation, inputs: f"{function}({inputs[0]}, {list(operation.form.shape)})"


def _script_cast(operation: Operation, inputs: Sequence[str]) -> str:
    return f"trunc({inputs[0]})" if operation.form.dtype.startswith(("int", "uint")) else inputs[0]


JAVASCRIPT: dict[str, Template] = {
    **{name: _script(name) for name in (*UNARY, *BINARY, "where", "matmul") if name != "erf"},
    "cast": _script_cast,
    "reshape": _to_shape("reshape"),
    "expand": _to_shape("expand"),
    "transpose": _script("transpose", "permutation"),
    "concatenate": lambda operation, inputs: f"concatenate([{', '.join(inputs)}], {operation.settings['axis']})",
    "slice": _script("slice", "starts", "limits", "strides"),
    "pad": _script("pad", "low", "high"),
    "reverse": _script("reverse", "axes"),
    "take": _script("take", "axis"),
    "einsum": _script("einsum", "equation"),
    **{f"reduce_{name}": _script(f"reduce_{name}", "axes") for name in ("sum", "max", "min", "and", "or")},
    **{name: _script(name, "axis") for name in ("argmax", "argmin")},
}
