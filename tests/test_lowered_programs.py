"""The programs of single agents stay what they are, whatever is built for many."""

from __future__ import annotations

import json

import jax
import lowered_programs
import pytest

KNOWN = json.loads(lowered_programs.FILE.read_text())


@pytest.mark.skipif(jax.__version__ != KNOWN["jax"], reason=f"the programs are those of JAX {KNOWN['jax']}")
@pytest.mark.parametrize("algorithm", lowered_programs.single_agent_algorithms())
def test_the_program_of_a_single_agent_is_the_one_that_is_known(algorithm):
    told = "after a change that is meant: python tests/lowered_programs.py"
    assert lowered_programs.lowered(algorithm) == KNOWN["programs"][algorithm], told
