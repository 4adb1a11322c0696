"""`@hyper` decides by annotation: floats and what holds floats are traced, all else shapes the program."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest

from athlete.core import hyper
from athlete.core.oldest import OLDEST_JAX, require_jax
from athlete.ops.schedule import Schedule


@hyper
class Inner:
    weight: float = 1.0
    name: str = "inner"


@hyper
class Outer:
    rate: float | Schedule = 0.1
    limit: float | None = None
    table: jax.Array | None = None
    inner: Inner = Inner()
    pair: tuple[float, ...] = (1.0, 2.0)
    size: int = 3
    flag: bool = True
    sizes: tuple[int, ...] = (4, 5)


def test_floats_tables_and_nested_hyperparameters_are_leaves_and_nothing_else():
    assert jax.tree.leaves(Outer()) == [0.1, 1.0, 1.0, 2.0]
    assert jax.tree.leaves(Outer(limit=7.0, rate=Schedule((0.0,), (9.0,)))) == [0.0, 9.0, 7.0, 1.0, 1.0, 2.0]


def test_new_numbers_share_a_program_and_new_shapes_do_not():
    traced = []

    @jax.jit
    def size_times_rate(outer):
        traced.append(outer.size)
        return outer.rate * outer.size * outer.inner.weight

    found = [float(size_times_rate(outer)) for outer in (Outer(), Outer(rate=0.5, inner=Inner(2.0)), Outer(size=4))]
    assert found == pytest.approx([0.3, 3.0, 0.4])
    assert traced == [3, 4]
    assert jax.tree.structure(Outer()) == jax.tree.structure(Outer(rate=9.0)) != jax.tree.structure(Outer(flag=False))


@hyper
class One:
    number: float = 1.0
    name: str = "same"


@hyper
class Other:
    number: float = 1.0
    name: str = "same"


def test_classes_with_the_same_fields_do_not_share_a_program():
    assert jax.tree.structure(One()) != jax.tree.structure(Other())
    assert jax.tree.structure((Inner(), One())) != jax.tree.structure((Inner(), Other()))


def test_leaves_are_named_by_their_fields():
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(Outer())]
    assert paths == [".rate", ".inner.weight", ".pair[0]", ".pair[1]"]


def test_numbers_can_be_mapped_over():
    many = dataclasses.replace(Outer(), rate=np.array([1.0, 2.0], np.float32))
    axes = dataclasses.replace(jax.tree.map(lambda _: None, Outer()), rate=0)
    found = jax.vmap(lambda outer: outer.rate * outer.size, in_axes=(axes,))(many)
    np.testing.assert_allclose(found, [3.0, 6.0])


def test_hyperparameters_are_frozen_and_compare_by_value():
    assert Outer() == Outer() != Outer(size=4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Outer().size = 4


def test_a_subclass_inherits_the_fields_of_its_parent():
    @hyper
    class Special(Inner):
        extra: float = 2.0

    assert jax.tree.leaves(Special()) == [1.0, 2.0]


@pytest.mark.parametrize("version", ["0.4.38", "0.6.2.dev1"])
def test_a_jax_that_is_too_old_is_told_in_one_sentence(version):
    with pytest.raises(ImportError, match=rf"^Athlete needs JAX 0\.7 or newer, and this is JAX {version}: pip install"):
        require_jax(version)


def test_it_is_told_before_anything_else_fails():
    code = "import jax; jax.__version__ = '0.4.30'; del jax.tree; import athlete.algorithms.ppo"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip().splitlines()[-1].startswith("ImportError: Athlete needs JAX 0.7 or newer"), done.stderr


def test_the_oldest_jax_is_the_one_that_is_asked_for_on_installation():
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    assert f"jax>={'.'.join(map(str, OLDEST_JAX))}" in project["project"]["dependencies"]
    require_jax("0.7.0")
    require_jax("1.0")
