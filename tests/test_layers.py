"""Arrows go down only: DESIGN.md's picture, read from the imports, those inside functions included."""

from __future__ import annotations

import ast
import subprocess
import sys
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
    "loops": BELOW_AGENTS | {"log"},
    "bonuses": BELOW_AGENTS | {"distributions", "models"},
    "combine": BELOW_AGENTS | {"memory", "models", "distributions", "bonuses"},
    "record": {"core", "spaces", "version"},
    "exploration": BELOW_AGENTS,
    "settings": BELOW_AGENTS
    | {"log", "callbacks", "distributions", "models", "memory", "exploration", "bonuses", "combine"},
    "algorithms": BELOW_AGENTS | {"settings", "distributions", "models", "memory", "combine", "exploration"},
    "policy": BELOW_AGENTS | {"loops"},
    "acting": BELOW_AGENTS | {"env", "policy"},
    "totals": BELOW_AGENTS | {"loops"},
    "checkpointing": BELOW_AGENTS | {"env", "models", "record", "settings", "version"},
}
# What `Algorithm` is made of.
MAY_IMPORT["acting"] = BELOW_AGENTS | {"env", "policy"}
MAY_IMPORT["totals"] = BELOW_AGENTS | {"loops"}
MAY_IMPORT["checkpointing"] = BELOW_AGENTS | {"env", "models", "record", "settings", "version"}
MAY_IMPORT["algorithm"] = set(MAY_IMPORT)
MAY_IMPORT["tune"] = set(MAY_IMPORT)
MAY_IMPORT["tuned_examples"] = set(MAY_IMPORT)
MAY_IMPORT["cli"] = set(MAY_IMPORT)

# The one arrow up: `config.build()` makes the algorithm, when it is called.
EXCEPTIONS = {("settings/config.py", "algorithm")}

# Libraries that one module alone speaks to.
KEEPERS = {
    "gymnasium": {"env/adapters/gymnasium.py"},
    "safetensors": {"record/checkpoint.py"},
    "tensorboardX": {"record/tensorboard.py"},
    "imageio": {"record/video.py"},
    "ray": set(),
    "torch": set(),
    "optax": set(),
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


def test_the_picture_itself_has_no_arrow_up():
    """Nothing that a part may import may import that part."""
    for layer, below in MAY_IMPORT.items():
        assert not [part for part in below if layer in MAY_IMPORT[part]], layer


@pytest.mark.parametrize("library", KEEPERS)
def test_a_library_is_spoken_to_in_one_place(library):
    speakers = {name for name, modules in FILES.items() if library in {module.split(".")[0] for module in modules}}
    assert speakers == KEEPERS[library]


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
