"""Whether the tests notice wrong code: each mutation of `mutations.py` is applied alone, and its tests have to fail.

    python tools/mutate.py                             all of them, two at a time
    python tools/mutate.py ops/returns td3             those whose file or text contains one of the words
    python tools/mutate.py --sample 10 --seed COMMIT   ten of them, others for another seed
    python tools/mutate.py | tee -a mutants.log        and, where that was stopped,
    python tools/mutate.py --resume mutants.log | tee -a mutants.log

Exit status 1: a mutation survived. 2: the list is wrong (a text that is not there, a test that fails by itself or that
does not exist), which a refactoring has to mend in the list too.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import queue
import random
import re
import shlex
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parents[1]
COPIED = ("athlete", "tests", "pyproject.toml", "README.md")
TIMEOUT = 600  # seconds; a program that does not end is noticed too
PASSED, FAILED = 0, 1  # exit statuses of pytest
ENDLESS = -1  # in place of one
VERDICTS = {PASSED: "SURVIVED", FAILED: "killed", ENDLESS: "no end"}
CHILDREN = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")


def mutated(mutation: Mutation, text: str) -> str:
    """The file's text with the mutation. Raises LookupError where its old text is not what the list says."""
    places = text.count(mutation.old)
    if mutation.nth is None and places != 1:
        raise LookupError(f"{mutation.file}: {mutation.old!r} is there {places} times; it must be there once")
    if places < (mutation.nth or 1):
        raise LookupError(f"{mutation.file}: {mutation.old!r} is there {places} times, not {mutation.nth}")
    parts = text.split(mutation.old)
    before = mutation.nth or 1
    return mutation.old.join(parts[:before]) + mutation.new + mutation.old.join(parts[before:])


def stale(mutations: list[Mutation]) -> list[str]:
    """What of the list does not fit the code any more, in sentences."""
    found = []
    for mutation in mutations:
        missing = [test for test in shlex.split(mutation.tests) if not (ROOT / test.split("::")[0]).exists()]
        found += [f"{mutation.file}: its test {test} does not exist" for test in missing]
        try:
            mutated(mutation, (ROOT / mutation.file).read_text())
        except (LookupError, OSError) as error:
            found.append(str(error))
    return found


def prepare() -> None:
    """Programs are compiled once for all mutations, and what is not mutated is imported once: children are forked."""
    cache = Path(tempfile.gettempdir()) / f"athlete-mutants-{os.getuid() if hasattr(os, 'getuid') else 0}"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    CHILDREN.set_forkserver_preload(["hypothesis", "jax.numpy", "jax.scipy.sparse.linalg", "pytest"])


def _tests(folder: Path, tests: list[str], output: Path) -> None:
    """In a process of its own: run pytest in a copy of the tree, and leave with its exit status."""
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder)  # of what the tests start
    original = {"", *map(str, (ROOT, ROOT / "tools", ROOT / "tests"))}  # the environment may lie inside the tree
    sys.path[:] = [str(folder), *(path for path in sys.path if path not in original)]
    import pytest

    sys.exit(
        pytest.main(["-x", "-q", "--tb=line", "-p", "no:cacheprovider", "-m", "not learning and not fuzz", *tests])
    )


def run_tests(folder: Path, tests: list[str], timeout: float | None = TIMEOUT) -> tuple[int, str]:
    """pytest's exit status in a copy of the tree, and what it printed; `ENDLESS` where it does not end in time."""
    output = folder / "output"
    child = CHILDREN.Process(target=_tests, args=(folder, tests, output))
    child.start()
    child.join(timeout)
    if child.exitcode is None:
        child.kill()
        child.join()
        return ENDLESS, ""
    return child.exitcode, output.read_text()


def try_out(mutation: Mutation, folders: queue.Queue[Path]) -> tuple[Mutation, int, str, float]:
    """Its tests' exit status and output in one of the copies, which is then as it was, and the seconds."""
    folder, start = folders.get(), time.monotonic()
    path = folder / mutation.file
    text = path.read_text()
    try:
        path.write_text(mutated(mutation, text))
        return mutation, *run_tests(folder, shlex.split(mutation.tests)), time.monotonic() - start
    finally:
        path.write_text(text)
        # Compiled modules are told by size and whole seconds: too little between two mutations of one file.
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
        folders.put(folder)


def copies(parent: str, number: int) -> queue.Queue[Path]:
    folders: queue.Queue[Path] = queue.Queue()
    for i in range(number):
        folder = Path(parent) / str(i)
        folder.mkdir()
        for name in COPIED:
            source = ROOT / name
            copy = shutil.copytree if source.is_dir() else shutil.copy2
            copy(source, folder / name)
        folders.put(folder)
    return folders


def selected(arguments: argparse.Namespace) -> list[Mutation]:
    words = arguments.words
    chosen = [each for each in MUTATIONS if not words or any(word in each.file + each.old for word in words)]
    if arguments.sample is not None:
        chosen = random.Random(arguments.seed).sample(chosen, min(arguments.sample, len(chosen)))
    return chosen


def killed_before(path: Path | None) -> set[str]:
    """The mutations that an earlier output says were killed."""
    lines = [] if path is None else path.read_text().splitlines()
    return {found[1] for found in (re.fullmatch(r"killed +\d+ s  (.*)", line) for line in lines) if found}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only mutations whose file or text contains one of these")
    parser.add_argument("--sample", type=int, help="so many of them, drawn by the seed")
    parser.add_argument("--seed", default="0", help="any text, as a commit's hash")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--resume", type=Path, metavar="OUTPUT", help="pass over what this output says was killed")
    parser.add_argument("--unchecked", action="store_true", help="do not first run the tests on the code as it is")
    arguments = parser.parse_args()
    before = killed_before(arguments.resume)
    chosen = [mutation for mutation in selected(arguments) if str(mutation) not in before]
    prepare()
    if wrong := stale(list(MUTATIONS)):
        print(*wrong, sep="\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="mutants-") as parent:
        folders = copies(parent, arguments.processes)
        if not arguments.unchecked:
            tests = sorted({test for mutation in chosen for test in shlex.split(mutation.tests)})
            status, output = run_tests(Path(parent) / "0", [*tests, "-n", str(arguments.processes)], timeout=None)
            if status != PASSED:
                print(output, "these tests fail on the code as it is", sep="\n")
                return 2
        return report(chosen, folders, arguments.processes)


def report(chosen: list[Mutation], folders: queue.Queue[Path], processes: int) -> int:
    """Run them all and print what became of each; the exit status."""
    survivors, broken = [], []
    start = time.monotonic()
    with ThreadPoolExecutor(processes) as pool:
        for mutation, status, output, seconds in pool.map(lambda each: try_out(each, folders), chosen):
            print(f"{VERDICTS.get(status, 'BROKEN'):8} {seconds:4.0f} s  {mutation}", flush=True)
            if status == PASSED:
                survivors.append(mutation)
            elif status not in VERDICTS:
                broken.append(mutation)
                print(output)
    minutes = (time.monotonic() - start) / 60
    print(
        f"{len(chosen)} mutations in {minutes:.1f} minutes: {len(survivors)} survived, {len(broken)} could not be run"
    )
    for mutation in survivors:
        print(f"survived: {mutation}; tests: {mutation.tests}")
    return 2 if broken else 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
