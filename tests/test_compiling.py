"""Programs are counted, and kept between processes where the user wants it."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from athlete.loops import compiling
from athlete.loops.compiling import cache_folder, compilations, set_up


def test_each_program_is_counted_once_however_often_it_runs():
    set_up()
    set_up()  # counts no double
    number = np.float32(3)
    double = jax.jit(lambda x: x * 2)
    before, seconds = compilations()
    assert float(double(number)) == float(double(number)) == 6
    after, more_seconds = compilations()
    assert after == before + 1
    assert more_seconds > seconds
    double(np.ones(3, np.float32))  # another shape is another program
    assert compilations()[0] == after + 1


def test_the_cache_is_the_users_choice(monkeypatch, tmp_path):
    monkeypatch.setenv("ATHLETE_CACHE_DIR", str(tmp_path))
    assert cache_folder().parent == tmp_path
    assert jax.__version__ in cache_folder().name, "machine code of another JAX is not ours"
    monkeypatch.setenv("ATHLETE_CACHE_DIR", "")
    assert cache_folder() is None
    monkeypatch.delenv("ATHLETE_CACHE_DIR")
    assert cache_folder().is_relative_to(os.path.expanduser("~"))


def test_another_processor_has_a_folder_of_its_own(monkeypatch):
    here = cache_folder()
    monkeypatch.setattr(compiling.platform, "machine", lambda: "another")
    assert cache_folder() != here


PROGRAM = """
import jax, sys
from athlete.loops.compiling import set_up
set_up()
print(jax.config.jax_compilation_cache_dir)
def step(carry, x):
    for _ in range(30):
        carry = jax.numpy.tanh(carry @ carry) + x
    return carry, carry.sum()
jax.jit(lambda m: jax.lax.scan(step, m, jax.numpy.arange(9.0)))(jax.numpy.eye(8))
"""


@pytest.fixture
def run(tmp_path):
    def run_with(**variables):
        environment = {**os.environ, "ATHLETE_CACHE_DIR": str(tmp_path / "ours"), **variables}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        files = {path.name for path in tmp_path.rglob("jit__lambda*-cache")}
        return done.stdout.strip(), files

    return run_with


def test_a_second_process_finds_the_programs_of_the_first(run, tmp_path):
    folder, first = run()
    assert folder.startswith(str(tmp_path / "ours"))
    assert len(first) == 1
    assert run()[1] == first, "nothing new had to be kept"


def test_a_cache_that_the_user_gave_jax_is_left_as_it_is(run, tmp_path):
    folder, _ = run(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine"))
    assert folder == str(tmp_path / "mine")
    assert not (tmp_path / "ours").exists()
