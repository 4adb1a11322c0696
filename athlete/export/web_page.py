"""A policy as a web page in which it plays, in one file that loads nothing."""

from __future__ import annotations

import base64
import html
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from athlete.export.dialects import JAVASCRIPT, Dialect, written
from athlete.export.trace import Traced
from athlete.spaces import Box, Discrete, Space
from athlete.version import __version__

# The games of games.js -> the bounds of their observations, their actions, and steps a second.
GAMES: dict[str, tuple[list[float], Space, int]] = {
    "CartPole": ([4.8, np.inf, 0.41887903, np.inf], Discrete(2), 50),
    "MountainCar": ([0.6, 0.07], Discrete(3), 33),
    "MountainCarContinuous": ([0.6, 0.07], Box(-1, 1, (1,)), 33),
    "Acrobot": ([1, 1, 1, 1, 4 * np.pi, 9 * np.pi], Discrete(3), 17),
    "Pendulum": ([1, 1, 8], Box(-2, 2, (1,)), 20),
}
DECODE = """const weight = ([shape, text]) => ({
  shape, data: new Float32Array(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer),
});"""


def write_web(traced: Traced, path: Path, spaces: tuple[Any, Any]) -> list[Path]:
    """Write the page `path`.

    Raises ValueError where the spaces are of none of the games that the page can play.
    """
    game = game_of(*spaces)
    size = sum(array.size for array in traced.graph.constants.values() if array.ndim)
    entries = {
        "title": f"A trained policy plays {game}",
        "about": html.escape(f"{size:,} numbers, trained and written by Athlete {__version__}. Nothing is loaded."),
        "interval": str(GAMES[game][2]),
        "game": game,
        "script": f"{script_of(traced)}\n{_resource('games.js')}",
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda found: entries[found.group(1)], _resource("page.html"))
    path.write_text(page, encoding="utf-8")
    return [path]


def game_of(observations: Space, actions: Space) -> str:
    """The game that has these spaces. Raises ValueError where there is none."""
    for name, (high, known, _) in GAMES.items():
        seen = isinstance(observations, Box) and observations.shape == (len(high),)
        if seen and actions == known and np.allclose(observations.high, high):  # type: ignore[attr-defined]
            return name
    raise ValueError(
        f"export(format='web'): the page plays {', '.join(GAMES)}, and this policy sees {observations} and acts in "
        f"{actions}; the other formats take it"
    )


def script_of(traced: Traced) -> str:
    """The policy in JavaScript: `policy(inputs)` takes and gives objects of arrays by name, as an ONNX model does."""
    graph = traced.graph
    dialect = Dialect(JAVASCRIPT, _number, lambda name: f"w[{json.dumps(name)}]", _identifier)
    text = written(graph, dialect, "JavaScript")
    lines = [f"const {_identifier(name)} = inputs[{json.dumps(name)}];" for name in graph.inputs]
    lines += [f"const {name} = {line};" for name, line in text.steps]
    outputs = ", ".join(f"{json.dumps(what)}: {line}" for what, line in text.outputs.items())
    body = "\n".join(f"  {line}" for line in [*lines, f"return {{ {outputs} }};"])
    weights = ",\n".join(f"  {json.dumps(name)}: weight({_encoded(array)})" for name, array in text.arrays.items())
    names = zip(traced.state, traced.acting.start, strict=True)
    memory = ", ".join(
        f"{json.dumps(before)}: full({list(start.shape)}, {start.flat[0].item()})" for (before, _), start in names
    )
    return "\n".join(
        (
            _resource("tensor.js"),
            DECODE,
            "const full = (shape, value) => ({ shape, data: new Float32Array(product(shape)).fill(value) });",
            f"const w = {{\n{weights}\n}};",
            f"const initialMemory = () => ({{ {memory} }});",
            f"function policy(inputs) {{\n{body}\n}}",
        )
    )


def _encoded(array: np.ndarray) -> str:
    return json.dumps([list(array.shape), base64.b64encode(array.astype("<f4").tobytes()).decode()])


def _number(array: np.ndarray) -> str:
    if array.dtype.kind != "f":
        return str(int(array))
    return str(array) if np.isfinite(array) else "Infinity" if array > 0 else "-Infinity"


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name)


def _resource(name: str) -> str:
    return resources.files("athlete.export").joinpath(name).read_text(encoding="utf-8")
