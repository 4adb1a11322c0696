"""The list of mutations fits the code, and each is one change at one place."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.fixture(scope="module")
def mutate():
    sys.path.insert(0, str(TOOLS))
    try:
        spec = importlib.util.spec_from_file_location("mutate", TOOLS / "mutate.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(TOOLS))


def test_every_text_of_the_list_is_in_the_code_and_its_tests_exist(mutate):
    assert mutate.stale(list(mutate.MUTATIONS)) == []
    assert len(mutate.MUTATIONS) >= 150


def test_every_mutation_is_another_one(mutate):
    assert len({(each.file, each.old, each.new, each.nth) for each in mutate.MUTATIONS}) == len(mutate.MUTATIONS)
    assert all(each.old != each.new for each in mutate.MUTATIONS)


def test_a_mutation_changes_the_place_that_it_names(mutate):
    mutation = mutate.Mutation("file.py", "a + b", "a - b", "tests")
    assert mutate.mutated(mutation, "x = a + b\n") == "x = a - b\n"
    assert mutate.mutated(mutation._replace(nth=2), "a + b; a + b; a + b") == "a + b; a - b; a + b"
    for text, nth in {"a * b": None, "a + b; a + b": None, "only a + b": 2}.items():
        with pytest.raises(LookupError, match=r"file\.py: 'a \+ b' is there \d times"):
            mutate.mutated(mutation._replace(nth=nth), text)


def test_every_mutation_is_printed_differently_and_what_was_killed_is_not_run_again(mutate, tmp_path):
    assert len({str(each) for each in mutate.MUTATIONS}) == len(mutate.MUTATIONS)
    first, second, third = mutate.MUTATIONS[:3]
    output = tmp_path / "mutants.log"
    output.write_text(f"killed      3 s  {first}\nSURVIVED   12 s  {second}\nno end    600 s  {third}\nkilled\n")
    assert mutate.killed_before(output) == {str(first)}
    assert mutate.killed_before(None) == set()
