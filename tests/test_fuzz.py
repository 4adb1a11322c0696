"""Files that are damaged or made up are refused or harmless, and a kill at any moment loses nothing: in numbers.

A small sample runs with all tests; `make fuzz` runs 500 checkpoints, 100 other files and 100 kills.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import jax  # noqa: F401 (here, so that what is forked need not import it)
import numpy as np
import pytest
import safetensors.numpy  # noqa: F401

from athlete.record.checkpoint import drop_tree, open_checkpoint, save_checkpoint
from athlete.record.results import read_results

HERE = Path(__file__).parent
PATIENCE = 300.0  # seconds without a word, after which a reader hangs; a machine that is busy needs some
SEED = int(os.environ.get("ATHLETE_FUZZ_SEED", "0"))

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills and modes of other systems")


def program(*arguments: object, **settings: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}
    command = [sys.executable, "-P", str(HERE / "fuzzing.py"), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, **settings)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that are spoiled, in `originals`."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "originals").mkdir()
    assert program("make", folder / "originals").wait() == 0
    return folder


# Files


def put_lines(output: TextIO, lines: queue.SimpleQueue[str]) -> None:
    for line in output:
        lines.put(line)
    lines.put("")


def read_all(kind: str, count: int, folder: Path) -> list[dict[str, Any]]:
    """What a reading process said of each case; where it hangs or dies, another goes on with the next."""
    told: list[dict[str, Any]] = []
    while len(told) < count:
        errors = folder / f"{kind}_errors.txt"
        process = program(kind, SEED, len(told), count, folder, stderr=errors.open("w"))
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        assert process.stdout is not None
        threading.Thread(target=put_lines, args=(process.stdout, lines), daemon=True).start()
        begun = {"case": len(told), "what": "before it began", "left": []}
        while len(told) < count:
            try:
                line = lines.get(timeout=PATIENCE)
            except queue.Empty:
                told.append({**begun, "outcome": "hung", "said": ""})
                break
            if not line:
                told.append(
                    {**begun, "outcome": "died", "said": f"exit {process.wait()}: {errors.read_text()[-2000:]}"}
                )
                break
            message = json.loads(line)
            if "outcome" in message:
                told.append(message)
            else:
                begun = {"case": message["case"], "what": message["begins"], "left": []}
        process.kill()
        process.wait()
    return told


def judge(kind: str, count: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = read_all(kind, count, folder)
    figures = Counter(case["outcome"] for case in told)
    left = sum(bool(case["left"]) for case in told)
    line = f"{count} {kind}s: {figures['refused']} refused with a sentence, {figures['harmless']} harmless"
    others = [f"{figures[name]} {name}" for name in ("executed", "hung", "crashed", "died")]
    with capsys.disabled():
        print(f"\n{line}, {', '.join(others)}, {left} left over")
    wrong = [case for case in told if case["outcome"] not in ("refused", "harmless") or case["left"]]
    assert not wrong, "\n\n".join(
        f"{case['case']} {case['what']} {case['outcome']}: {case['said']}" for case in wrong[:20]
    )
    assert figures["refused"] > count / 4


@pytest.mark.parametrize("count", [8, pytest.param(500, marks=pytest.mark.fuzz)])
def test_checkpoints_that_are_damaged_or_made_up(
    count: int, originals: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge("checkpoint", count, originals, capsys)


@pytest.mark.parametrize("count", [8, pytest.param(100, marks=pytest.mark.fuzz)])
def test_experiments_and_states_that_are_damaged_or_made_up(
    count: int, originals: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge("file", count, originals, capsys)


# Kills


class Killed(NamedTuple):
    """What was found after a kill."""

    intact: bool  # the last checkpoint that was complete is there, or a newer one, and all that are there are whole
    fell_back: bool  # a newer one was on its way


def save_for_ever(folder: Path, first: int, told: int) -> None:
    """Write checkpoint after checkpoint, each with a memory that is dropped when the next is there; tell each."""
    number = first
    memory = np.arange(200_000, dtype=np.int32)
    while True:
        path = save_checkpoint(
            folder / f"checkpoint_{number:06d}", {"agent": memory[:9] + number, "memory": memory}, {"n": number}
        )
        os.write(told, f"{number}\n".encode())
        if number > first:
            drop_tree(path.with_name(f"checkpoint_{number - 1:06d}"), "memory")
        number += 1


def kill_a_saver(folder: Path, draw: random.Random) -> Killed:
    """Fork a process that saves, kill it at some moment, and look at what is there."""
    numbers = [int(path.name[-6:]) for path in folder.glob("checkpoint_*")]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            save_for_ever(folder, max(numbers, default=0) + 1, writer)
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as lines:
        first = lines.readline()
        time.sleep(draw.uniform(0.0, 0.1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        complete = [int(line) for line in [first, *lines.read().splitlines(keepends=True)] if line.endswith("\n")]
    assert complete, "it saved nothing"
    there = sorted(folder.glob("checkpoint_*"))
    for path in there:
        opened = open_checkpoint(path)
        assert opened.load("agent", np.zeros(9, np.int32))[0] == opened.metadata["n"] == int(path.name[-6:])
    newest = int(there[-1].name[-6:]) if there else 0
    last = max([*numbers, *complete], default=0)
    has_memory = not there or "memory" in open_checkpoint(there[-1]).files
    return Killed(newest >= last and has_memory, bool(list(folder.glob(".tmp-*"))))


TRAINING = """
import sys
from athlete import tune
class Tell(tune.Callback):
    def on_trial_result(self, iteration, trials, trial, result, **info): print(result["training_iteration"], flush=True)
config = {{"env": "CartPole-v1", "seed": 0, "train_batch_size": 16, "minibatch_size": 16, "num_epochs": 1,
          "num_envs_per_worker": 1, "model": {{"fcnet_hiddens": [4]}}}}
tune.run("PPO", config=config, name="mine", local_dir=sys.argv[1], resume="AUTO", checkpoint_freq=1, verbose=0,
         keep_checkpoints_num=3, stop={{"training_iteration": int(sys.argv[2])}}, callbacks=[Tell()])
"""


def training(folder: Path, last: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    command = [sys.executable, "-c", TRAINING.replace("{{", "{").replace("}}", "}"), str(folder), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def kill_a_training(folder: Path, draw: random.Random) -> None:
    """Resume the training and kill it some moments after its first result."""
    process = training(folder, 10**6)
    assert process.stdout is not None
    lines = itertools.takewhile(lambda line: not line.strip().isdigit(), process.stdout)
    said = "".join(lines)  # up to its first result
    assert process.poll() is None, said
    time.sleep(draw.uniform(0.0, 0.5))
    process.kill()
    process.wait()


def left_over(folder: Path) -> list[str]:
    """What killed processes left: half written files, locks, and files of checkpoints that no manifest lists."""
    hidden = [path.name for path in folder.rglob(".*")]
    left = [name for name in hidden if name.startswith((".tmp-", ".lock-", ".replaced-")) or name.endswith(".tmp")]
    for manifest in folder.rglob("manifest.json"):
        listed = json.loads(manifest.read_bytes())["files"]
        left += [str(path) for path in manifest.parent.iterdir() if path.name not in listed and path != manifest]
    return left


@pytest.mark.parametrize(("savers", "trainings"), [(6, 1), pytest.param(85, 15, marks=pytest.mark.fuzz)])
def test_a_kill_at_any_moment_loses_nothing(
    savers: int, trainings: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(SEED)
    (tmp_path / "saved").mkdir()
    found = [kill_a_saver(tmp_path / "saved", draw) for _ in range(savers)]
    save_checkpoint(tmp_path / "saved" / "checkpoint_999999", {}, {})
    for _ in range(trainings):
        kill_a_training(tmp_path / "trained", draw)
    resumed = [int(path.name[-6:]) for path in (tmp_path / "trained").rglob("checkpoint_*")]
    last = max(resumed, default=0) + 2
    output, _ = training(tmp_path / "trained", last).communicate(timeout=PATIENCE)
    (trial,) = (path.parent for path in (tmp_path / "trained").rglob("result.json"))
    iterations = [row["training_iteration"] for row in read_results(trial)]
    left = left_over(tmp_path)
    intact = sum(killed.intact for killed in found) + (trainings if iterations == list(range(1, last + 1)) else 0)
    with capsys.disabled():
        fell_back = sum(killed.fell_back for killed in found)
        middle = f"{fell_back} in the middle of a checkpoint"
        print(f"\n{savers + trainings} kills: {intact} intact ({middle}), {len(left)} left over")
    assert all(killed.intact for killed in found) and iterations == list(range(1, last + 1)), output
    assert not left
