"""A policy as a Python file beside its weights: in NumPy alone, or as a module of PyTorch."""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from athlete.core import Tree
from athlete.export.dialects import INFINITY, NUMPY, TORCH, Dialect, written
from athlete.export.trace import Traced
from athlete.version import __version__

NUMPY_FILE = string.Template('''"""A policy in NumPy alone, written by Athlete $version. Its weights are in $weights.

Observations  $observation_space
Actions       $action_space

    from $module import Policy

    policy = Policy()
    action, state, extras = policy.compute_single_action(observation, policy.get_initial_state())
    actions, state, extras = policy.compute_actions(observations)  # arrays [B, ...]
"""

from pathlib import Path

import numpy as np

$helpers
class Policy:
    """Greedy actions, as the environment takes them."""

    def __init__(self, weights=Path(__file__).with_name("$weights")):
        with np.load(weights) as file:
            self.weights = dict(file)

    def get_initial_state(self, rows=1):
        """What the network remembers at the start of `rows` episodes."""
        return $start

    def compute_single_action(self, observation, state=None):
        """`(action, state, extras)` for one observation; without `state` an episode begins."""
        action, state, extras = self.compute_actions($one, state)
        return $first, state, extras

    def compute_actions(self, observations, state=None):
        """`(actions, state, extras)` for observations with a batch in front, [B, ...]."""
        w = self.weights
$body
''')

TORCH_FILE = string.Template('''"""A policy as a module of PyTorch, written by Athlete $version.

Its weights are in $weights.

Observations  $observation_space
Actions       $action_space

    from $module import Policy

    policy = Policy()
    actions, state, extras = policy(observations)  # tensors [B, ...]
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn$helpers


class Policy(nn.Module):
    """Greedy actions, as the environment takes them."""

    def __init__(self, weights=Path(__file__).with_name("$weights")):
        super().__init__()
        with np.load(weights) as file:
            for name in file:
                tensor = torch.from_numpy(file[name])
                if tensor.is_floating_point() and not name.startswith("constant"):
                    self.register_parameter(name.replace(".", "_"), nn.Parameter(tensor))
                else:
                    self.register_buffer(name.replace(".", "_"), tensor)

    def get_initial_state(self, rows=1):
        """What the network remembers at the start of `rows` episodes."""
        return $start

    def forward(self, observations, state=None):
        """`(actions, state, extras)` for observations with a batch in front, [B, ...]; None begins an episode."""
$body
''')

SIGMOID = """
def sigmoid(x):
    return np.float32(0.5) * np.tanh(np.float32(0.5) * x) + np.float32(0.5)

"""


def write_numpy(traced: Traced, path: Path, spaces: tuple[Any, Any]) -> list[Path]:
    """Write `path` and its weights beside it. The file needs NumPy and nothing else."""
    dialect = Dialect(NUMPY, _number("np.inf"), lambda name: f'w["{name}"]', _identifier)
    body = _body(traced, dialect, "NumPy", "np.asarray({}, np.{})")
    more = {
        "helpers": SIGMOID if "sigmoid(" in body else "",
        "start": _start(traced, "np.full", "np."),
        "one": _expression(traced.observation, lambda name, place: f"np.asarray({place})[None]", "observation"),
        "first": _expression(traced.action, lambda name, place: f"{place}[0]", "action"),
        "body": body,
    }
    return _write(NUMPY_FILE, traced, path, spaces, more)


def write_torch(traced: Traced, path: Path, spaces: tuple[Any, Any]) -> list[Path]:
    """Write `path`, an `nn.Module`, and its weights beside it. PyTorch is not needed for that."""
    dialect = Dialect(TORCH, _number(INFINITY), lambda name: f"self.{_identifier(name)}", _identifier)
    body = _body(traced, dialect, "PyTorch", "torch.as_tensor({}, dtype=torch.{})")
    helpers = "\nfrom torch.nn import functional" if "functional." in body else ""
    more = {"start": _start(traced, "torch.full", "dtype=torch."), "body": body, "helpers": helpers}
    return _write(TORCH_FILE, traced, path, spaces, more)


def _write(template: string.Template, traced: Traced, path: Path, spaces: tuple[Any, Any], more: Any) -> list[Path]:
    weights = path.with_suffix(".npz")
    text = template.substitute(
        version=__version__,
        module=path.stem,
        weights=weights.name,
        observation_space=_short(spaces[0]),
        action_space=_short(spaces[1]),
        **more,
    )
    path.write_text(text, encoding="utf-8")
    arrays: Any = {name: array for name, array in traced.graph.constants.items() if array.ndim}
    np.savez(weights, **arrays)
    return [path, weights]


def _short(space: Any) -> str:
    text = repr(space)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _body(traced: Traced, dialect: Dialect, language: str, array: str) -> str:
    """The lines that compute actions, and the last, which returns them."""
    graph = traced.graph
    text = written(graph, dialect, language)
    lines: list[str] = []

    def read(name: str, place: str) -> str:
        if name in graph.inputs:
            lines.append(f"{_identifier(name)} = {array.format(place, graph.inputs[name].dtype)}")
        return place

    _expression(traced.observation, read, "observations")
    seen = next(_identifier(name) for name in graph.inputs if name.startswith("observation"))
    if traced.state:
        names = [_identifier(before) for before, _ in traced.state]
        lines.append(f"state = self.get_initial_state(len({seen})) if state is None else state")
        lines.append(f"{', '.join(names)}{',' if len(names) == 1 else ''} = state")
    steps = [f"{name} = {line}" for name, line in text.steps]
    action = _expression(traced.action, lambda name, place: text.outputs[name], "")
    state = ", ".join(text.outputs[after] for _, after in traced.state)
    extras = ", ".join(f'"{name}": {text.outputs[name]}' for name in traced.scores)
    steps.append(f"return {action}, [{state}], {{{extras}}}")
    if any("batch" in step for step in steps):
        lines.append(f"batch = len({seen})")
    return "\n".join(f"        {line}" for line in [*lines, *steps])


def _start(traced: Traced, full: str, kind: str) -> str:
    """The state at the start of an episode, as an expression of `rows`."""
    arrays = []
    for array in traced.acting.start:
        if (array != array.flat[0]).any():
            raise NotImplementedError("export: this network begins episodes with numbers of its own, which no file has")
        sizes = ", ".join(map(str, ("rows", *array.shape[1:])))
        sizes += "," * (array.ndim == 1)
        arrays.append(f"{full}(({sizes}), {array.flat[0].item()}, {kind}{array.dtype})")
    return f"[{', '.join(arrays)}]"


def _number(infinity: str) -> Callable[[Any], str]:
    """How a constant without axes is written: the shortest text that is read as the same number."""

    def number(array: np.ndarray) -> str:
        if array.dtype.kind != "f":
            return str(array.item())
        return str(array) if np.isfinite(array) else infinity if array > 0 else f"-{infinity}"

    return number


def _identifier(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def _expression(tree: Tree, leaf: Callable[[Any, str], str], place: str) -> str:
    """A tree as a Python expression; `leaf` is given each leaf and the expression that leads there from `place`."""
    if isinstance(tree, dict):
        entries = [f"{name!r}: {_expression(part, leaf, f'{place}[{name!r}]')}" for name, part in tree.items()]
        return f"{{{', '.join(entries)}}}"
    if isinstance(tree, tuple):
        parts = [_expression(part, leaf, f"{place}[{i}]") for i, part in enumerate(tree)]
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
    return leaf(tree, place)
