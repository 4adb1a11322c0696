"""What `Policy.export` writes: a format is a function from a traced policy to files."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax import export as jax_export

from athlete.core import Agent, Tree
from athlete.export.onnx_model import write_onnx
from athlete.export.python_modules import write_numpy, write_torch
from athlete.export.trace import Traced, trace
from athlete.export.web_page import write_web


def write_stablehlo(traced: Traced, path: Path, spaces: tuple[Any, Any]) -> list[Path]:
    """Write a program for CPU, GPU and TPU that `jax.export.deserialize` reads, with any batch.

    `call(observation, state)` gives `(action, state)`; the state is a list, empty for a network without memory.
    """
    acting = traced.acting
    parameters = jax.tree.map(jax.numpy.asarray, acting.parameters)
    program = jax.jit(lambda observation, state: acting.function(parameters, observation, state))
    if importlib.util.find_spec("flatbuffers") is None:
        raise ImportError(
            "export(format='stablehlo') needs the package flatbuffers, with which JAX writes programs: "
            "pip install flatbuffers"
        )
    exported = jax_export.export(program, platforms=("cpu", "cuda", "tpu"))(acting.observation, acting.state)
    path.write_bytes(exported.serialize())
    return [path]


Writer = Callable[[Traced, Path, tuple[Any, Any]], list[Path]]
FORMATS: dict[str, tuple[str, Writer]] = {  # name -> the usual file, and what writes it
    "onnx": ("policy.onnx", write_onnx),
    "stablehlo": ("policy.stablehlo", write_stablehlo),
    "torch": ("policy_torch.py", write_torch),
    "numpy": ("policy.py", write_numpy),
    "web": ("policy.html", write_web),
}


def format_of(path: Path, given: str | None) -> str:
    """The format that is meant. Raises ValueError with those that there are."""
    by_ending = {Path(file).suffix: name for name, (file, _) in FORMATS.items()}
    name = given if given is not None else by_ending.get(path.suffix)
    if name in FORMATS:
        return name
    near = difflib.get_close_matches(str(name), FORMATS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(FORMATS)}"
    raise ValueError(f"export({str(path)!r}, format={given!r}): no such format; {hint}")


def write(agent: Agent, parameters: Tree, start: Tree, path: Path, name: str) -> list[Path]:
    """Write the greedy policy of an agent in the format `name` to `path`, and what belongs to it beside it.

    `parameters` is the agent's view and `start` its state of one row, as NumPy arrays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    spaces = (agent.spec.obs, agent.spec.action)
    return FORMATS[name][1](trace(agent, parameters, start), path, spaces)
