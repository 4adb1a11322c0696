"""Old names of modules go on: the same modules, however they are imported first."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import athlete
from athlete.moved import MOVED, RENAMED, new_name


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_an_old_name_is_the_same_module(old, new):
    if new.endswith((".envpool", ".gymnax")):
        pytest.importorskip(new.rpartition(".")[2])
    assert importlib.import_module(old) is importlib.import_module(new)


@pytest.mark.parametrize(("module", "names"), RENAMED.items())
def test_an_old_name_in_a_moved_module_is_the_same_object(module, names):
    for old, new in names.items():
        assert getattr(importlib.import_module(module), old) is getattr(importlib.import_module(MOVED[module]), new)


def test_modules_of_a_moved_package_are_not_loaded_twice():
    program = (
        "from athlete.env.classic.cartpole import CartPole as old\n"
        "from athlete.env.games.classic.cartpole import CartPole as new\n"
        "import sys; module = sys.modules['athlete.env.games.classic']\n"
        "print(old is new, module.__spec__.name)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["True", "athlete.env.games.classic"]


def test_what_has_not_moved_has_no_new_name():
    assert new_name("athlete.env.world") is None
    assert new_name("athlete.env.classic.cartpole") == "athlete.env.games.classic.cartpole"


def test_a_misspelt_module_is_not_found():
    with pytest.raises(ModuleNotFoundError, match=r"athlete\.env\.games\.classic\.cartpol"):
        importlib.import_module("athlete.env.classic.cartpol")


def test_a_module_by_its_old_name_takes_nothing_from_the_package():
    importlib.import_module("athlete.rllib_names")
    with pytest.raises(AttributeError, match="module 'athlete' has no 'remote': there is no cluster"):
        athlete.remote  # noqa: B018
