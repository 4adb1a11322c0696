"""Mutations of files that Athlete reads, and a process that reads them: `tests/test_fuzz.py` counts what came of it.

Run as a program, `python fuzzing.py KIND SEED FIRST LAST FOLDER`, it reads mutated files, one after another, and prints
a line of JSON for each. What must not happen is watched from inside, by an audit hook, and from outside, by the parent.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CANARIES = (
    "canary",
    "gymnax",
    "envpool",
    "brax",
    "jumanji",
    "pgx",
)  # modules that leave a mark where they are imported
CODE = ["os.system", "canary.Env", "canary:Env-v0", "subprocess.Popen", "gymnax/CartPole-v1", "builtins.exec"]
CODE += ["brax/ant", "jumanji/Snake-v1", "pgx/hex"]
HOSTILE: list[Any] = [
    *(None, True, -1, 0, 1, 40, 10**6, 10**9, 10**12, 2**63, 10**30, 0.5, -1e-9, 1e300, float("nan"), float("inf")),
    *("", "x", "../../victim", "/", "auto", "\x00", "é" * 1000, *CODE),
    *(
        [],
        [0],
        [[]],
        [-1],
        [1e30],
        [8] * 3000,
        {},
        {"x": 1},
        {"grid_search": ["os.system"]},
        {"__class__": "os:system"},
    ),
    {"__object__": "subprocess:Popen", "fields": {"args": "touch mark"}},
    {"type": "Tuple", "spaces": [{"type": "Discrete", "n": 2, "start": 0}] * 3},
]
WATCHED = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn", "socket.connect")
TINY = {"train_batch_size": 16, "model": {"fcnet_hiddens": [4]}, "num_envs_per_worker": 1, "seed": 1}


# What is looked out for


class Watch:
    """Notes what a file must not bring about: code that starts programs, and files written outside `folder`."""

    def __init__(self, folder: Path):
        self.seen: list[str] = []
        self._allowed = (str(folder), os.environ.get("ATHLETE_CACHE_DIR") or "?", "/dev/", "/proc/")
        self.on = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple) -> None:
        if not self.on:
            return
        if event in WATCHED or (event == "import" and str(arguments[0]).split(".")[0] == "canary"):
            self.seen.append(f"{event} {arguments[:1]}")
        if event == "open" and isinstance(arguments[0], str) and isinstance(arguments[2], int):
            writes = arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if writes and not os.path.abspath(arguments[0]).startswith(self._allowed):
                self.seen.append(f"open {arguments[0]}")

    @contextlib.contextmanager
    def watching(self) -> Iterator[list[str]]:
        self.seen, self.on = [], True
        try:
            yield self.seen
        finally:
            self.on = False


def lay_out_canaries(folder: Path) -> Path:
    """Modules in `folder` that write into its `mark` when they are imported."""
    for name in CANARIES:
        (folder / f"{name}.py").write_text(f"open({str(folder / 'mark')!r}, 'a').write('{name} ')\n")
    return folder / "mark"


def is_sentence(message: str) -> bool:
    """Whether an error tells what was wrong, in words."""
    return len(message.split()) >= 4


# Mutations of JSON


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of every entry within nested dictionaries and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in list(items):
        yield (*path, key)
        yield from places(part, (*path, key))


def changed(value: Any, draw: random.Random) -> Any:
    """A copy in which one entry is missing, or another, or one is there that was not."""
    value = copy.deepcopy(value)
    path = draw.choice(list(places(value)))
    inside = value
    for key in path[:-1]:
        inside = inside[key]
    kind = draw.random()
    if kind < 0.25:
        del inside[path[-1]]
    elif kind < 0.35 and isinstance(inside, dict):
        inside[draw.choice(["env", "x", "num_rollout_workers", "model", "callbacks", "seed"])] = draw.choice(HOSTILE)
    elif isinstance(inside[path[-1]], int | float) and kind < 0.6:
        inside[path[-1]] = draw.choice([number for number in HOSTILE if isinstance(number, int | float)])
    else:
        inside[path[-1]] = draw.choice(HOSTILE)
    return value


def spoil_bytes(path: Path, draw: random.Random) -> None:
    """Cut the file, or change some of its bytes."""
    content = bytearray(path.read_bytes())
    if draw.random() < 0.3:
        content = content[: draw.randrange(len(content))]
    else:
        for _ in range(draw.choice([1, 1, 8])):
            content[draw.randrange(min(len(content), draw.choice([64, 10**9])))] = draw.randrange(256)
    path.write_bytes(content)


# Checkpoints


def make_checkpoints(folder: Path) -> None:
    """A checkpoint of each kind: compiled, from a replay memory, and on Gymnasium."""
    from athlete.algorithms.dqn import DQNConfig
    from athlete.algorithms.ppo import PPOConfig

    ppo = PPOConfig.from_dict({**TINY, "minibatch_size": 16, "num_epochs": 1, "rollout_fragment_length": 16})
    dqn = DQNConfig.from_dict({**TINY, "num_steps_sampled_before_learning_starts": 16, "rollout_fragment_length": 4})
    for name, config in {
        "ppo": ppo.copy().environment("CartPole-v1"),
        "dqn": dqn.environment("CartPole-v1"),
        "hosted": ppo.copy().environment("CartPole-v1", backend="gymnasium"),
    }.items():
        with config.build() as algorithm:
            algorithm.train()
            algorithm.save(folder / f"checkpoint_{name}")


def seal(folder: Path) -> None:
    """Sums that are right for whatever the files hold now: a checkpoint that somebody made up."""
    from athlete.record import checkpoint as record

    paths = [path for path in folder.iterdir() if path.name != record.MANIFEST_FILE]
    files = {path.name: {"size": path.stat().st_size, "sha256": record._sum_of(path)} for path in paths}
    (folder / record.MANIFEST_FILE).write_bytes(record._manifest_bytes(files))


def spoil_checkpoint(folder: Path, draw: random.Random) -> str:
    """Change a checkpoint in one of many ways; which."""
    import numpy as np
    import safetensors
    import safetensors.numpy

    kind = draw.choice(
        ["metadata"] * 5 + ["config"] * 4 + ["array"] * 4 + ["bytes"] * 3 + ["sealed bytes"] * 2 + ["file"]
    )
    path = draw.choice(sorted(folder.iterdir()))
    metadata = folder / "checkpoint.json"
    if kind in ("metadata", "config"):
        content = json.loads(metadata.read_bytes())
        if kind == "metadata":
            content = changed(content, draw)
        else:
            content["config"] = changed(content["config"], draw)
        metadata.write_text(json.dumps(content, indent=1) + "\n")
        seal(folder)
    elif kind == "array":
        path = draw.choice(sorted(folder.glob("*.safetensors")))
        arrays = safetensors.numpy.load_file(path)
        about = safetensors.safe_open(path, framework="np").metadata()
        name = draw.choice(sorted(arrays))
        spoiled = spoil_array(arrays.pop(name), draw)
        if spoiled is not None:
            arrays[draw.choice([name] * 9 + ["other"])] = np.ascontiguousarray(spoiled)
        safetensors.numpy.save_file(arrays, path, about)
        seal(folder)
    elif kind == "file":
        path.unlink()
    else:
        spoil_bytes(path, draw)
        if kind == "sealed bytes":
            seal(folder)
    return f"{kind} {path.name}"


def spoil_array(array: Any, draw: random.Random) -> Any:
    """The array with other values, in another form, or None."""
    import numpy as np

    kind = draw.choice(["values"] * 4 + ["bits", "shape", "type", "gone"])
    if kind == "values":
        value = draw.choice([float("nan"), float("inf"), -1, 10**9, -(2**31), 1e30])
        with np.errstate(all="ignore"):
            return np.full(array.shape, value).astype(array.dtype)
    if kind == "bits":
        return np.frombuffer(draw.randbytes(array.nbytes), array.dtype).reshape(array.shape)
    if kind == "shape":
        return np.zeros((*array.shape, 2), array.dtype)
    return array.astype(np.float64) if kind == "type" else None


def read_checkpoint(folder: Path) -> None:
    """All that a user does with a checkpoint."""
    from athlete.algorithm import Algorithm

    with Algorithm.from_checkpoint(folder) as algorithm:
        algorithm.train()
        algorithm.evaluate(episodes=1)
        algorithm.save(folder.parent / "again")


# Files of experiments, and the states of tune

YAML = """
tiny:
    env: CartPole-v1
    run: PPO
    num_samples: 1
    stop: {training_iteration: 1, episode_reward_mean: 500}
    config:
        train_batch_size: 16
        minibatch_size: 16
        num_epochs: 1
        num_envs_per_worker: 1
        lr: {grid_search: [0.001]}
        evaluation_config: {explore: false}
        model: {fcnet_hiddens: [4]}
"""
LINES = [
    *(
        "env: os.system",
        "env: canary.Env",
        "run: !!python/object/apply:os.system ['touch mark']",
        "a: &a [*a]",
        "\t- x",
    ),
    *("run: !!python/name:os.system", "<<: *x", "env: {grid_search: [canary.Env]}", "? [x]", "name: ../../victim", "%"),
    *("num_samples: 1000000000", "x: " + "[" * 3000, "local_dir: 7", "checkpoint_freq: -1", "metric: [1]", "stop: 3"),
]


def spoil_yaml(text: str, draw: random.Random) -> str:
    import yaml

    kind = draw.random()
    if kind < 0.5:
        return json.dumps(changed(yaml.safe_load(text), draw))
    if kind < 0.8:
        lines = text.splitlines()
        place = draw.randrange(1, len(lines))
        indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
        lines.insert(place, indent + draw.choice(LINES))
        return "\n".join(lines)
    content = bytearray(text.encode())
    for _ in range(3):
        content[draw.randrange(len(content))] = draw.randrange(32, 127)
    return content.decode()


def read_yaml(path: Path) -> None:
    """`athlete train FILE`."""
    from typer.testing import CliRunner

    from athlete.cli.main import app

    result = CliRunner().invoke(app, ["train", str(path), "--stop-iters", "1", "--local-dir", str(path.parent / "out")])
    if result.exit_code == 0:
        return
    sentences = [line.partition("rror: ")[2] for line in result.stderr.splitlines() if "rror: " in line]
    defects = ("KeyError", "TypeError", "IndexError", "AttributeError", "AssertionError", "RecursionError")
    if not sentences or "shows the traceback" in result.stderr or any(word in sentences[-1] for word in defects):
        raise RuntimeError(f"exit {result.exit_code}: {result.output[-500:]} {result.exception!r}")
    raise ValueError(sentences[-1] if is_sentence(sentences[-1]) else f"it said: {result.stderr}")


class Counting:
    """A training that counts, for states of experiments."""

    def __init__(self, config: dict[str, Any]):
        self.iteration = 0

    def train(self) -> dict[str, Any]:
        self.iteration += 1
        return {"training_iteration": self.iteration, "score": 1.0}

    def save(self, checkpoint_dir: str) -> str:
        Path(checkpoint_dir).mkdir(parents=True, exist_ok=True)
        (Path(checkpoint_dir) / "count").write_text(str(self.iteration))
        return checkpoint_dir

    def restore(self, checkpoint_path: str) -> None:
        self.iteration = int((Path(checkpoint_path) / "count").read_text())

    def stop(self) -> None: ...


def make_states(folder: Path) -> None:
    """An experiment of each kind that is not at its end."""
    from athlete import tune

    settings: dict[str, Any] = {"stop": {"training_iteration": 2}, "checkpoint_freq": 1, "verbose": 0}
    tune.run(Counting, name="counting", config={"x": tune.grid_search([1, 2])}, local_dir=folder, **settings)
    config = {"env": "CartPole-v1", **TINY, "minibatch_size": 16, "num_epochs": 1, "lr": tune.uniform(1e-4, 1e-3)}
    tune.run("PPO", name="ppo", config=config, local_dir=folder, **settings)
    for state in folder.glob("*/experiment_state.json"):
        state.write_text(state.read_text().replace('"TERMINATED"', '"PAUSED"'))


def read_state(folder: Path) -> None:
    """A resume that takes the configuration from the state file."""
    from athlete import tune

    what = "PPO" if folder.name == "ppo" else Counting
    tune.run(what, name=folder.name, local_dir=folder.parent, resume=True, verbose=0, stop={"training_iteration": 3})


# The program


def case_of_checkpoint(place: Path, draw: random.Random) -> tuple[str, Callable[[], None]]:
    original = draw.choice(sorted(path for path in place.parent.glob("originals/checkpoint_*") if path.is_dir()))
    folder = Path(shutil.copytree(original, place / original.name))
    return f"{original.name}: {spoil_checkpoint(folder, draw)}", lambda: read_checkpoint(folder)


def case_of_file(place: Path, draw: random.Random) -> tuple[str, Callable[[], None]]:
    if draw.random() < 0.5:
        (place / "experiments.yaml").write_text(spoil_yaml(YAML, draw))
        return "yaml", lambda: read_yaml(place / "experiments.yaml")
    original = draw.choice(
        sorted(path for path in place.parent.glob("originals/*") if (path / "experiment_state.json").exists())
    )
    folder = Path(shutil.copytree(original, place / original.name))
    state = folder / "experiment_state.json"
    if draw.random() < 0.2:
        spoil_bytes(state, draw)
    else:
        state.write_text(json.dumps(changed(json.loads(state.read_text()), draw)))
    return f"state {original.name}", lambda: read_state(folder)


CASES = {"checkpoint": case_of_checkpoint, "file": case_of_file}


def outcome_of(read: Callable[[], None], watch: Watch, mark: Path) -> tuple[str, str]:
    """What came of reading a file, and what was said."""
    from athlete.tune import TuneError

    said, result = "", "harmless"
    with watch.watching() as seen:
        try:
            read()
        except (ValueError, TuneError, OSError, FloatingPointError, ImportError) as error:
            said, result = str(error), "refused"
            if not is_sentence(said):
                said, result = traceback.format_exc(), "crashed"
        except Exception as error:
            is_ours = type(error).__module__.startswith("athlete.")
            said, result = (str(error), "refused") if is_ours else (traceback.format_exc(), "crashed")
    if seen or mark.exists():
        return "executed", f"{seen} {mark.read_text() if mark.exists() else ''}"
    return result, said


def main(kind: str, seed: int, first: int, last: int, folder: Path) -> None:
    from athlete.loops.compiling import set_up

    set_up()  # asks the system for the name of its processor
    os.chdir(folder)
    mark = lay_out_canaries(folder)
    sys.path.append(str(folder))  # as if the user's folder were on the path: what a file names must still not run
    watch = Watch(folder)
    for number in range(first, last):
        draw = random.Random(f"{kind} {seed} {number}")
        place = folder / f"{kind}_{number}"
        shutil.rmtree(place, ignore_errors=True)  # of a process that ended in the middle of it
        place.mkdir()
        what, read = CASES[kind](place, draw)
        print(json.dumps({"case": number, "begins": what}), flush=True)
        outcome, said = outcome_of(read, watch, mark)
        mark.unlink(missing_ok=True)
        left = [str(path) for path in place.rglob("*") if path.name.startswith((".tmp-", ".lock-", ".replaced-"))]
        left += [str(path) for path in place.rglob(".*.tmp")]
        print(json.dumps({"case": number, "what": what, "outcome": outcome, "said": said, "left": left}), flush=True)
        shutil.rmtree(place)


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make_checkpoints(Path(sys.argv[2]))
        make_states(Path(sys.argv[2]))
    else:
        main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
