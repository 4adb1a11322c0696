"""Arrows go down only: DESIGN.md's picture, read from the imports, those inside functions included."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import athlete

ROOT = Path(athlete.__file__).parent
BELOW_AGENTS = {"core", "spaces", "ops"}

# Package or module -> which of ours it may import, besides itself.
MAY_IMPORT: dict[str, set[str]] = {
    "version": set(),
    "moved": set(),
    "log": set(),
    "spaces": set(),
    "callbacks": set(),
    "core": {"spaces"},
    "ops": {"core", "spaces"},
    "distributions": {"core", "spaces", "ops"},
    "models": BELOW_AGENTS | {"distributions"},
    "memory": BELOW_AGENTS,
    "env": BELOW_AGENTS | {"log"},
    "loops": BELOW_AGENTS | {"log", "distributions", "memory"},
    "bonuses": BELOW_AGENTS | {"distributions", "models"},
    "combine": BELOW_AGENTS | {"memory", "models", "distributions", "bonuses"},
    "record": {"core", "spaces", "version"},
    "offline": BELOW_AGENTS | {"env", "log", "memory", "record"},
    "exploration": BELOW_AGENTS,
    "settings": BELOW_AGENTS
    | {"log", "callbacks", "distributions", "models", "memory", "exploration", "bonuses", "combine", "offline"},
    "algorithms": BELOW_AGENTS | {"settings", "distributions", "models", "memory", "combine", "exploration"},
    "acting": BELOW_AGENTS | {"env"},
    "totals": BELOW_AGENTS | {"loops"},
    "checkpointing": BELOW_AGENTS | {"algorithms", "env", "models", "record", "settings", "version"},
    "export": BELOW_AGENTS | {"version"},
    "policy": BELOW_AGENTS
    | {"combine", "teams", "acting", "checkpointing", "env", "export", "loops", "matches", "record", "settings"},
}
# What `Algorithm` is made of.
MAY_IMPORT["cluster"] = set()
MAY_IMPORT["worker_processes"] = BELOW_AGENTS | {"env", "log", "loops"}
MAY_IMPORT["ray_workers"] = BELOW_AGENTS | {"env", "log", "loops", "cluster", "worker_processes"}
MAY_IMPORT["hooks"] = BELOW_AGENTS | {"callbacks", "env", "loops", "policy", "settings"}
MAY_IMPORT["teams"] = BELOW_AGENTS | {"algorithms", "combine", "env", "log", "settings"}
MAY_IMPORT["building"] = BELOW_AGENTS | {"log", "env", "hooks", "loops", "memory", "combine", "algorithms", "settings"}
MAY_IMPORT["offline_training"] = BELOW_AGENTS | {
    "combine",
    "env",
    "log",
    "loops",
    "memory",
    "offline",
    "settings",
    "teams",
}
MAY_IMPORT["building"] |= {"callbacks", "teams", "offline_training", "cluster", "ray_workers", "worker_processes"}
MAY_IMPORT["matches"] = BELOW_AGENTS | {"algorithms", "combine", "loops", "teams"}
MAY_IMPORT["evaluation"] = BELOW_AGENTS | {"teams", "building", "env", "hooks", "loops", "policy", "settings", "totals"}
MAY_IMPORT["evaluation"] |= {"combine", "log", "matches", "offline", "worker_processes"}
MAY_IMPORT["estimation"] = BELOW_AGENTS | {"algorithms", "distributions", "loops", "memory", "models", "offline"}
MAY_IMPORT["estimation"] |= {"policy", "settings"}
MAY_IMPORT["restoring"] = BELOW_AGENTS | {"teams", "checkpointing", "log", "loops", "record", "settings"}
MAY_IMPORT["recording"] = {"core", "env", "log", "loops", "record", "settings", "totals"}
MAY_IMPORT["serve"] = BELOW_AGENTS | {"log", "acting", "env", "policy", "record"}
MAY_IMPORT["algorithm"] = {*MAY_IMPORT, "processes"}
MAY_IMPORT["processes"] = {"settings"}
MAY_IMPORT["population"] = BELOW_AGENTS | {"algorithm", "building", "env", "loops", "settings", "teams"}
MAY_IMPORT["tune"] = set(MAY_IMPORT)
MAY_IMPORT["rllib"] = set(MAY_IMPORT)
MAY_IMPORT["sb3"] = set(MAY_IMPORT)
MAY_IMPORT["tuned_examples"] = set(MAY_IMPORT)
MAY_IMPORT["cli"] = set(MAY_IMPORT)
MAY_IMPORT["__main__"] = {"cli"}

# The one arrow up: `config.build()` makes the algorithm, when it is called.
EXCEPTIONS = {("settings/config.py", "algorithm")}

# The rooms of env/, from the bottom up -> which others they may import.
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "membership": set(),
    "masks": set(),
    "randomness": set(),
    "supervision": set(),
    "registry": set(),
    "goals": set(),
    "multi_agent": set(),
    "wrappers": {"masks", "multi_agent"},
    "simulators": {"wrappers", "multi_agent"},
    "adapters": {"errors", "masks", "wrappers", "membership", "randomness", "registry", "supervision", "multi_agent"},
    "games": {"masks", "registry", "wrappers", "adapters", "multi_agent"},  # adapters: to draw as Gymnasium draws
    "twins": {"registry", "wrappers", "adapters", "games"},
    "checks": {"masks", "membership", "randomness", "registry", "adapters", "multi_agent"},
    "world": {
        "checks",
        "masks",
        "registry",
        "supervision",
        "wrappers",
        "adapters",
        "twins",
        "multi_agent",
        "simulators",
    },
    "baseline": {"errors", "masks", "membership", "randomness", "adapters", "world"},
}

# Libraries that one module alone speaks to.
KEEPERS = {
    "gymnasium": {"env/adapters/gymnasium.py"},
    "safetensors": {"record/arrays.py"},
    "tensorboardX": {"record/tensorboard.py"},
    "imageio": {"record/video.py"},
    "pettingzoo": {"env/adapters/pettingzoo.py"},
    "ray": {"cluster.py"},
    "torch": set(),
    "onnx": set(),
    "starlette": {"serve/http.py"},
    "uvicorn": {"serve/http.py"},
    "optax": set(),
    "mctx": {"ops/search.py"},
}


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports, except for type checkers only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unseen = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    skipped = {id(inner) for node in unseen for inner in ast.walk(node)}
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute, so that they can be read"
            module = node.module or ""
            names |= {f"{module}.{alias.name}" for alias in node.names} if module == "athlete" else {module}
    return names


FILES = {str(path.relative_to(ROOT).as_posix()): imported(path) for path in sorted(ROOT.rglob("*.py"))}


def layer_of(name: str) -> str:
    return name.split("/")[0].removesuffix(".py")


def test_every_part_has_a_place_in_the_picture():
    assert {layer_of(name) for name in FILES} - {"__init__"} == set(MAY_IMPORT)


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_imports_go_down_only(layer):
    for name, modules in FILES.items():
        if layer_of(name) != layer:
            continue
        ours = {module.split(".")[1] for module in modules if module.startswith("athlete.")}
        up = ours - MAY_IMPORT[layer] - {layer, "__version__"}
        assert not {part for part in up if (name, part) not in EXCEPTIONS}, f"{name} imports {sorted(up)}"


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_of_environments_import_down_only(room):
    for name, modules in FILES.items():
        if name.startswith(f"env/{room}"):
            others = {module.split(".")[2] for module in modules if module.startswith("athlete.env.")} - {room}
            others -= {part for part in others if (name, f"athlete.env.{part}.rllib") in INSIDE}
            assert others <= ROOMS[room], f"{name} imports {sorted(others - ROOMS[room])}"


def test_every_room_of_environments_has_its_place():
    assert {name.split("/")[1].removesuffix(".py") for name in FILES if name.startswith("env/")} - {"__init__"} == set(
        ROOMS
    )


def test_the_picture_itself_has_no_arrow_up():
    """Nothing that a part may import may import that part."""
    for layer, below in MAY_IMPORT.items():
        assert not [part for part in below if layer in MAY_IMPORT[part]], layer


@pytest.mark.parametrize("library", KEEPERS)
def test_a_library_is_spoken_to_in_one_place(library):
    speakers = {name for name, modules in FILES.items() if library in {module.split(".")[0] for module in modules}}
    assert speakers == KEEPERS[library]


# Imports inside functions are for what is heavy. These stand there for another reason.
INSIDE = {
    ("settings/config.py", "athlete.algorithm"),  # the arrow up
    ("tune/__init__.py", "athlete.tune.tuner"),  # asked for by few, by `__getattr__`
    ("env/registry.py", "athlete.env.games.rllib"),  # these environments are resolved through the registry themselves
    ("env/adapters/gymnasium.py", "gymnasium.envs.classic_control"),  # made for films only
    ("totals.py", "resource"),  # Windows has none
}
HEAVY = {
    *("jax", "numpy", "gymnasium", "pandas", "rich", "yaml", "typer", "safetensors", "tensorboardX", "imageio"),
    "imageio_ffmpeg",
    *("optuna", "wandb", "mlflow", "trackio", "ray", "mctx"),
    *(
        "pygame",
        "IPython",
        "cloudpickle",
        "matplotlib",
        "flax",
        "equinox",
        "envpool",
        "gymnax",
        "jaxmarl",
        "pettingzoo",
        *("brax", "craftax", "jumanji", "mujoco_playground", "navix", "pgx"),
        "cv2",
        "ale_py",
        "starlette",
        "uvicorn",
        "lz4",
        "minari",
        "pyarrow",
    ),
}


def statements(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports of a module that run when it is imported."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            yield from statements([*node.body, *node.orelse])
        elif isinstance(node, ast.Try | ast.ClassDef):
            yield from statements(node.body)


def targets(node: ast.Import | ast.ImportFrom) -> set[str]:
    """The modules that an import statement names."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    full = {f"{node.module}.{alias.name}" for alias in node.names}
    return {name if name in TREES else str(node.module) for name in full}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


TREES = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))}


@functools.cache
def brought_by(module: str) -> frozenset[str]:
    """The heavy libraries that importing a module imports."""
    found: set[str] = set()
    open_modules, seen = [module], set()
    while open_modules:
        name = open_modules.pop()
        if name.partition(".")[0] != "athlete":
            found |= {name.partition(".")[0]} & HEAVY
        elif name not in seen:
            seen.add(name)
            open_modules += [
                target for node in statements(getattr(TREES.get(name), "body", [])) for target in targets(node)
            ]
            open_modules.append(name.rpartition(".")[0] or "athlete")
    return frozenset(found)


# Commands import what they use when they are called, so that help is there at once.
@pytest.mark.parametrize("module", [module for module in sorted(TREES) if not module.startswith("athlete.cli")])
def test_imports_inside_functions_are_for_what_is_heavy(module):
    """An import inside a function brings a heavy library that its file does not import anyway."""
    functions = [node for node in ast.walk(TREES[module]) if isinstance(node, ast.FunctionDef)]
    nodes = [node for function in functions for node in ast.walk(function)]
    inside = {node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)}
    light = {name for node in inside for name in targets(node) if not brought_by(name) - brought_by(module)}
    file = "/".join(module.split(".")[1:])
    assert not {name for name in light if not {(f"{file}.py", name), (f"{file}/__init__.py", name)} & INSIDE}


def modules_after(program: str) -> set[str]:
    """The modules that a new process has imported after `program`."""
    printing = f"{program}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", printing], capture_output=True, text=True, check=True, timeout=300)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "program",
    ["import athlete", "import athlete, athlete.version\nathlete.__dir__()", "from athlete import register_env"],
)
def test_importing_athlete_imports_nothing_heavy(program):
    found = modules_after(program)
    assert not found & {"jax", "numpy", "gymnasium", "pandas", "rich", "yaml"}


def test_training_a_compiled_environment_needs_jax_and_numpy_only():
    found = modules_after(
        "from athlete.algorithms.ppo import PPOConfig\n"
        "config = PPOConfig().environment('CartPole-v1').training(train_batch_size=64, minibatch_size=32, num_epochs=1,"
        " model={'fcnet_hiddens': [8]}).rollouts(num_envs_per_worker=2)\n"
        "config.build().train()"
    )
    assert "jax" in found
    assert not found & {
        "gymnasium",
        "pandas",
        "rich",
        "yaml",
        "tensorboardX",
        "safetensors",
        "imageio",
        "scipy",
        "optax",
    }
