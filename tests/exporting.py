"""Policies of every kind of network and space, run in every format and compared with JAX.

`python tests/exporting.py` prints the largest difference of each over 1,000 observations, or why there is none.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.algorithms import get_config_class
from athlete.core import Spec
from athlete.export.trace import Traced, trace
from athlete.export.web_page import script_of
from athlete.ops.random import wrap
from athlete.policy import Policy, view_of
from athlete.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, OneOf, Space, Tuple

VECTOR, TWO = Box(-3, 3, (4,)), Discrete(2)
BOX = Box(np.array([-2, -1]), np.array([2, 3]))
IMAGE = Box(0, 255, (12, 10, 3), np.uint8)
SMALL = {"fcnet_hiddens": [16, 16]}
FILTERS = {"conv_filters": [[8, 4, 2], [8, 3, 1]], "fcnet_hiddens": [16]}
LSTM = {"use_lstm": True, "lstm_cell_size": 16, **SMALL}
GRU = {"use_gru": True, "gru_cell_size": 16, **SMALL}
GTRXL = {
    "use_attention": True,
    "attention_num_transformer_units": 2,
    "attention_dim": 16,
    "attention_num_heads": 2,
    "attention_head_dim": 8,
    "attention_memory_inference": 10,
    **SMALL,
}
MANY = Dict({"image": IMAGE, "pose": Tuple((VECTOR, Discrete(3, start=1))), "flags": MultiBinary((2, 2))})
MASKED = Dict({"observations": VECTOR, "action_mask": MultiBinary((5,))})

Case = tuple[str, Space, Space, dict[str, Any]]  # algorithm, observations, actions, settings


def _ppo(obs: Space, action: Space, model: dict[str, Any] = SMALL, **settings: Any) -> Case:
    return "PPO", obs, action, {"model": model, **settings}


def _replay(name: str, action: Space, **settings: Any) -> Case:
    return name, VECTOR, action, {"model": SMALL, **settings}


CASES: dict[str, Case] = {
    # Networks
    "MLP": _ppo(VECTOR, TWO),
    "MLP, one torso, layer norm": _ppo(VECTOR, TWO, SMALL | {"vf_share_layers": True, "use_layer_norm": True}),
    "MLP, swish": _ppo(VECTOR, BOX, SMALL | {"fcnet_activation": "swish"}),
    "MLP, elu": _ppo(VECTOR, BOX, SMALL | {"fcnet_activation": "elu"}),
    "MLP, gelu": _ppo(VECTOR, BOX, SMALL | {"fcnet_activation": "gelu"}),
    "CNN": _ppo(IMAGE, TWO, FILTERS),
    "CNN, default": _ppo(Box(0, 255, (84, 84, 4), np.uint8), Discrete(6), {}),
    "CNN, channels first, layer norm": _ppo(
        Box(0, 255, (3, 40, 42), np.uint8), TWO, FILTERS | {"use_layer_norm": True}
    ),
    "residual CNN": _ppo(IMAGE, TWO, {"conv_filters": "impala", "fcnet_hiddens": [16]}),
    "LSTM": _ppo(VECTOR, TWO, LSTM),
    "LSTM behind a CNN": _ppo(IMAGE, BOX, LSTM | FILTERS),
    "GRU": _ppo(VECTOR, BOX, GRU | {"use_layer_norm": True}),
    "attention (GTrXL)": _ppo(VECTOR, TWO, GTRXL),
    # Normalisers
    "MeanStdFilter": _ppo(VECTOR, TWO, observation_filter="MeanStdFilter"),
    "MeanStdFilter of parts": _ppo(MANY, TWO, FILTERS, observation_filter="MeanStdFilter"),
    # Spaces of observations
    "Discrete observations": _ppo(Discrete(5, start=2), TWO),
    "MultiDiscrete observations": _ppo(MultiDiscrete((3, 4), start=(1, 0)), TWO),
    "MultiBinary observations": _ppo(MultiBinary((3, 2)), TWO),
    "Dict of images and tuples": _ppo(MANY, BOX, FILTERS),
    "OneOf observations": _ppo(OneOf((VECTOR, Discrete(3))), TWO),
    "Box of integers": _ppo(Box(-5, 5, (3,), np.int32), TWO),
    "Box of float64": _ppo(Box(-5, 5, (3,), np.float64), TWO),
    # Spaces of actions
    "masked Discrete": _ppo(MASKED, Discrete(5, start=3)),
    "masked MultiDiscrete": _ppo(MASKED, MultiDiscrete((2, 3))),
    "masked Discrete, DQN": ("DQN", MASKED, Discrete(5), {"model": SMALL}),
    "MultiDiscrete actions": _ppo(VECTOR, MultiDiscrete((2, 4, 3), start=(1, 0, 0))),
    "MultiBinary actions": _ppo(VECTOR, MultiBinary((2, 2))),
    "Box actions of rank 2": _ppo(VECTOR, Box(-1, 2, (2, 3))),
    "half-bounded Box actions": _ppo(VECTOR, Box(-0.5, np.inf, (3,))),
    "Box actions of integers": _ppo(VECTOR, Box(5, 9, (2,), np.uint8)),
    "Dict and Tuple actions": _ppo(VECTOR, Dict({"a": Discrete(3), "b": Tuple((BOX, MultiBinary((2,))))})),
    # Algorithms
    "DQN": _replay("DQN", Discrete(4)),
    "DQN, noisy, distributional": _replay("DQN", Discrete(3), noisy=True, num_atoms=11, v_min=-2.0, v_max=2.0),
    "QRDQN": _replay("QRDQN", Discrete(3), num_quantiles=11),
    "IQN": _replay("IQN", Discrete(3)),
    "PQN": _replay("PQN", Discrete(3)),
    "R2D2": _replay("R2D2", Discrete(3), model=LSTM),
    "SAC": _replay("SAC", BOX),
    "SAC, discrete": _replay("SAC", Discrete(3)),
    "RNNSAC": _replay("RNNSAC", BOX, model=GRU),
    "TD3": _replay("TD3", BOX),
    "DDPG, parameter noise": _replay("DDPG", BOX, exploration_config={"type": "ParameterNoise"}),
    "TQC": _replay("TQC", BOX),
    "CrossQ": _replay("CrossQ", BOX),
    "DroQ": _replay("DroQ", BOX),
    "A2C": ("A2C", VECTOR, BOX, {"model": SMALL | {"free_log_std": False}}),
}


def policy_of(case: str) -> Policy:
    """A policy with the network of `case`, all of its numbers drawn, so that none is 0 or alike."""
    name, obs, action, settings = CASES[case]
    agent = get_config_class(name).from_dict(settings).make_agent(Spec(obs, action))
    view = view_of(agent, jax.jit(lambda key: agent.init(wrap(key)))(np.array([0, 1], np.uint32)), np.float32(0.5))
    rng = np.random.default_rng(1)

    def drawn(path: Any, leaf: Any) -> np.ndarray:
        array = np.asarray(leaf)
        if array.dtype.kind != "f" or not array.ndim:
            return array
        noise = rng.normal(size=array.shape) * (0.3 / max(1.0, array.shape[0] ** 0.5 if array.ndim > 1 else 1.0))
        return (array + (np.abs(noise) if "variance" in jax.tree_util.keystr(path) else noise)).astype(array.dtype)

    return Policy(agent, jax.tree_util.tree_map_with_path(drawn, jax.device_get(view)), seed=0)


def drawn_from(space: Space, rng: np.random.Generator, rows: int) -> Any:
    """Observations `[rows, ...]` of a space."""
    if isinstance(space, Dict):
        found = {name: drawn_from(part, rng, rows) for name, part in space.items}
        if "action_mask" in found:
            found["action_mask"][:, 0] = 1  # something is legal
        return found
    if isinstance(space, Tuple):
        return tuple(drawn_from(part, rng, rows) for part in space.spaces)
    if isinstance(space, OneOf):
        choice = rng.integers(len(space.spaces), size=rows).astype(np.int32)
        parts = [drawn_from(part, rng, rows) for part in space.spaces]
        return (choice, *(_only(part, choice == i) for i, part in enumerate(parts)))
    if isinstance(space, Discrete):
        return rng.integers(space.start, space.start + space.n, rows).astype(np.int32)
    if isinstance(space, MultiDiscrete):
        return (rng.integers(0, np.asarray(space.nvec), (rows, *space.shape)) + space.lowest).astype(np.int32)
    if isinstance(space, MultiBinary):
        return rng.integers(0, 2, (rows, *space.shape)).astype(np.int8)
    assert isinstance(space, Box)
    if space.is_integer:
        return rng.integers(space.low, space.high.astype(int) + 1, (rows, *space.shape)).astype(space.dtype)
    return rng.uniform(-3, 3, (rows, *space.shape)).astype(np.float32)


def _only(part: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return part * chosen.reshape(-1, *[1] * (part.ndim - 1)).astype(part.dtype)


Outputs = tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]  # actions, states after, scores


class Subject:
    """A policy, two steps of observations for it, and what JAX says to them."""

    def __init__(self, case: str, rows: int = 1000):
        self.policy = policy_of(case)
        start = jax.device_get(self.policy.get_initial_state())
        self.traced: Traced = trace(self.policy.agent, self.policy.get_weights(), start)
        rng = np.random.default_rng(2)
        self.steps = [drawn_from(self.policy.observation_space, rng, rows // 2) for _ in range(2)]

    def start(self) -> list[np.ndarray]:
        rows = len(jax.tree.leaves(self.steps[0])[0])
        return [np.repeat(leaf, rows, axis=0) for leaf in self.traced.acting.start]

    def by_jax(self) -> list[Outputs]:
        """Of each step, the state going on from one to the next. Scores are what JAX's `argmax` is given."""
        acting, argmax = self.traced.acting, jnp.argmax

        def act(parameters: Any, observation: Any, state: Any) -> Any:
            scores: list[Any] = []

            def noting(values: Any, **options: Any) -> Any:
                scores.append(values)
                return argmax(values, **options)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(jnp, "argmax", noting)
                action, state = acting.function(parameters, observation, state)
            return jax.tree.leaves(action), state, scores

        compiled, state, found = jax.jit(act), self.start(), []
        for step in self.steps:
            actions, state, scores = jax.device_get(compiled(acting.parameters, step, state))
            found.append((actions, state, scores))
        return found

    def in_format(self, name: str, folder: Path) -> list[Outputs]:
        """The same in another format. Raises ImportError where what runs it is not there."""
        return RUNNERS[name](self, folder)


def difference(expected: list[Outputs], found: list[Outputs]) -> float:
    """The largest between two runs; of actions that are whole numbers only where the scores are not nearly alike."""
    largest = 0.0
    for (actions, states, scores), (own_actions, own_states, own_scores) in zip(expected, found, strict=True):
        pairs = [*zip(states, own_states, strict=True), *zip(scores, own_scores, strict=True)]
        for action, own in zip(actions, own_actions, strict=True):
            own = np.asarray(own)
            assert action.shape == own.shape
            if action.dtype.kind == "f":
                pairs.append((action, own))
            elif not np.array_equal(action, own):
                clear = _clear(scores)
                differs = (action != own).reshape(len(action), -1).any(axis=1)
                assert not (differs & clear).any(), "another action, and not for want of a difference"
        for a, b in pairs:
            assert a.shape == np.shape(b)
            if a.size:
                scale = np.maximum(1.0, np.abs(a))  # forbidden actions have scores of -1e30
                largest = max(largest, float((np.abs(a.astype(np.float64) - np.asarray(b)) / scale).max()))
    return largest


def _clear(scores: list[np.ndarray]) -> np.ndarray:
    """In which rows the largest score of every choice is clearly above the next."""
    rows = [np.ones(len(scores[0]), bool)]
    for values in scores:
        ordered = np.sort(values, axis=-1)
        gap = ordered[..., -1] - ordered[..., -2] if values.shape[-1] > 1 else np.ones(values.shape[:-1])
        rows.append((gap > 2e-5).reshape(len(values), -1).all(axis=1))
    return np.all(rows, axis=0)


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _by_numpy(subject: Subject, folder: Path) -> list[Outputs]:
    path, _ = subject.policy.export(folder / "policy.py")
    policy, state, found = _module(Path(path)).Policy(), None, []
    for step in subject.steps:
        action, state, extras = policy.compute_actions(step, state)
        found.append((jax.tree.leaves(action), state, list(extras.values())))
    return found


def _by_torch(subject: Subject, folder: Path) -> list[Outputs]:
    import torch

    path, _ = subject.policy.export(folder / "policy_torch.py", format="torch")
    policy, state, found = _module(Path(path)).Policy(), None, []
    for step in subject.steps:
        with torch.no_grad():
            action, state, extras = policy(step, state)
        tensors = jax.tree.leaves(action), state, list(extras.values())
        found.append(tuple([tensor.numpy() for tensor in part] for part in tensors))
    return found


def _by_onnx(subject: Subject, folder: Path) -> list[Outputs]:
    import onnx  # noqa: F401  (writes it)
    import onnxruntime

    (path,) = subject.policy.export(folder / "policy.onnx")
    session = onnxruntime.InferenceSession(path)
    wanted = {given.name for given in session.get_inputs()}
    return _named_steps(subject, lambda given: session.run(None, {k: v for k, v in given.items() if k in wanted}))


def _named_steps(subject: Subject, run: Any) -> list[Outputs]:
    """Steps of what takes arrays by name and gives those of the graph's outputs, in their order."""
    traced, state, found = subject.traced, subject.start(), []
    names, outputs = jax.tree.leaves(traced.observation), list(traced.graph.outputs)
    for step in subject.steps:
        leaves = [_as_graph(traced, name, leaf) for name, leaf in zip(names, jax.tree.leaves(step), strict=True)]
        given = dict(zip(names, leaves, strict=True))
        given |= {before: array for (before, _), array in zip(traced.state, state, strict=True)}
        results = dict(zip(outputs, run(given), strict=True))
        state = [results[after] for _, after in traced.state]
        actions = [results[name] for name in jax.tree.leaves(traced.action)]
        found.append((actions, state, [results[name] for name in traced.scores]))
    return found


def _as_graph(traced: Traced, name: str, leaf: np.ndarray) -> np.ndarray:
    form = traced.graph.inputs.get(name)
    return leaf if form is None else leaf.astype(form.dtype)


def _by_stablehlo(subject: Subject, folder: Path) -> list[Outputs]:
    from jax import export

    (path,) = subject.policy.export(folder / "policy.stablehlo")
    program, state, found = export.deserialize(bytearray(Path(path).read_bytes())), subject.start(), []
    scores = [scores for _, _, scores in subject.by_jax()]  # which the program does not tell
    for i, step in enumerate(subject.steps):
        step = jax.tree.map(lambda leaf: leaf.astype(jax.dtypes.canonicalize_dtype(leaf.dtype)), step)
        action, state = jax.device_get(program.call(step, state))
        found.append((jax.tree.leaves(action), state, scores[i]))
    return found


JAVASCRIPT_STEP = """
const read = require("fs").readFileSync, given = JSON.parse(read(0, "utf8")), parts = [];
for (let start = 0; start < given.rows; start += 50) {
  batch = Math.min(50, given.rows - start);
  const inputs = {};
  for (const [name, [shape, file]] of Object.entries(given.inputs)) {
    const whole = new Uint8Array(read(file)), width = product(shape.slice(1));
    const data = new Float32Array(whole.buffer, 4 * start * width, batch * width);
    inputs[name] = { shape: [batch, ...shape.slice(1)], data };
  }
  parts.push(Object.entries(policy(inputs)).map(([name, x]) => [name, x.shape, [...x.data]]));
}
process.stdout.write(JSON.stringify(parts));
"""


def _by_javascript(subject: Subject, folder: Path) -> list[Outputs]:
    node = shutil.which("node")
    if node is None:
        raise ImportError("node is not installed")
    script = folder / "policy.js"
    script.write_text(script_of(subject.traced) + JAVASCRIPT_STEP)

    def run(given: dict[str, np.ndarray]) -> list[np.ndarray]:
        inputs = {}
        for i, (name, array) in enumerate(given.items()):
            (folder / f"{i}.bin").write_bytes(array.astype(np.float32).tobytes())
            inputs[name] = array.shape, str(folder / f"{i}.bin")
        text = json.dumps({"rows": len(next(iter(given.values()))), "inputs": inputs})
        done = subprocess.run([node, str(script)], input=text, capture_output=True, text=True, check=True)
        parts = [[np.array(data).reshape(shape) for _, shape, data in part] for part in json.loads(done.stdout)]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    return _named_steps(subject, run)


RUNNERS = {
    "numpy": _by_numpy,
    "torch": _by_torch,
    "onnx": _by_onnx,
    "stablehlo": _by_stablehlo,
    "web": _by_javascript,
}


def _cell(subject: Subject, expected: list[Outputs], name: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        try:
            return f"{difference(expected, subject.in_format(name, Path(folder))):.1e}"
        except ImportError:
            return "not here"
        except Exception as error:  # a table of all, those that fail too
            return f"{type(error).__name__}: {str(error)[:150]}"


def main(rows: int, *chosen: str) -> None:
    print(f"Largest difference to JAX over {rows} observations, of actions, scores and states after each of two steps:")
    print("| policy | " + " | ".join(RUNNERS) + " |")
    print("|---|" + "---|" * len(RUNNERS))
    for case in chosen or CASES:
        try:
            subject = Subject(case, rows)
            expected = subject.by_jax()
        except Exception as error:
            print(f"| {case} | {type(error).__name__}: {str(error)[:200]} |")
            continue
        print(f"| {case} | " + " | ".join(_cell(subject, expected, name) for name in RUNNERS) + " |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000, *sys.argv[2:])
