"""Updates a second from recorded data beside single-file PyTorch programs, and how fast files are read.

    benchmarks/setup_rivals.sh sb3
    python benchmarks/offline_speed.py [--json FILE]

TD3+BC, IQL and CQL on 100,000 steps of 17 observations and 6 actions, at equal networks and batches, in turn with
`rivals/torch_offline.py`, which is built as CORL's programs are. Compiling and a warm-up are left out. Then the same
steps are read from our own file, and from RLlib's JSON and Parquet beside the libraries that parse them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from manifest import ROOT, add_speed_options, require_idle, rival_python, write_manifest

from athlete.algorithms import get_config_class
from athlete.offline.columns import from_columns
from athlete.offline.dataset import DataSet
from athlete.offline.files import read_data, write_data

OBS, ACTION, STEPS, BATCH = 17, 6, 100_000, 256
UPDATES = {"TD3BC": 2000, "IQL": 2000, "CQL": 200}
TO_REACH = {"TD3BC": 5.0, "IQL": 5.0, "CQL": 3.0}
NETWORKS = {"model": {"fcnet_hiddens": [256, 256], "fcnet_activation": "relu"}, "train_batch_size": BATCH}
OWN = {"TD3BC": {"observation_filter": "NoFilter"}, "IQL": {}, "CQL": {"bc_iters": 0}}


def random_data() -> DataSet:
    """Episodes of 1,000 steps of noise."""
    random = np.random.default_rng(0)
    obs, next_obs = random.normal(size=(2, STEPS, OBS)).astype(np.float32)
    cut = np.arange(1, STEPS + 1) % 1000 == 0
    columns = {"obs": obs, "new_obs": next_obs, "rewards": random.normal(size=STEPS), "truncateds": cut}
    actions = random.uniform(-0.99, 0.99, size=(STEPS, ACTION)).astype(np.float32)
    return from_columns(columns | {"actions": actions, "terminateds": np.zeros(STEPS, bool)}, "noise")


def ours(algorithm: str, data: DataSet) -> float:
    """Updates a second of this library, after the first run of its program."""
    updates = UPDATES[algorithm]
    config = get_config_class(algorithm).from_dict({**NETWORKS, **OWN[algorithm], "seed": 0, "logdir": False})
    config.offline_data(input_=data).reporting(min_sample_timesteps_per_iteration=updates * BATCH)
    with config.build() as algo:
        algo.train()
        start = time.perf_counter()
        algo.train()
        return updates / (time.perf_counter() - start)


def rival(algorithm: str) -> float:
    """Updates a second of the PyTorch program."""
    command = [rival_python("sb3"), "benchmarks/rivals/torch_offline.py", algorithm, "--updates"]
    output = subprocess.run(
        [*command, str(UPDATES[algorithm])], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    return float(json.loads(output)["updates_per_second"])


def seconds(call: Callable[[], Any]) -> float:
    """Of this process's processors: others on the machine do not count."""
    start = time.process_time()
    call()
    return time.process_time() - start


def parsed_json(path: Path) -> None:
    """What any reader of such a file has to do."""
    with path.open("rb") as file:
        for line in file:
            json.loads(line)


def parsed_parquet(path: Path) -> None:
    from pyarrow import parquet

    table = parquet.read_table(path)
    for name in table.column_names:
        table[name].combine_chunks()


def reading(data: DataSet, rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds of reading the data, and of parsing their file alone: in turn, the first of each left out."""
    parsers: dict[str, Callable[[Path], None]] = {"json": parsed_json, "parquet": parsed_parquet}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("safetensors", "json", "parquet"):
            try:
                path = write_data(data, Path(folder) / f"data.{kind}")
            except ImportError as error:
                print(f"{kind}: {error}")
                continue
            calls: dict[str, Callable[[Path], Any]] = {"read": read_data}
            if kind in parsers:
                calls["parse"] = parsers[kind]
            rows = [
                {name: seconds(lambda c=call, p=path: c(p)) for name, call in calls.items()} for _ in range(rounds + 1)
            ]
            found[kind] = {name: statistics.median(row[name] for row in rows[1:]) for name in calls}
            print(f"{kind}: {', '.join(f'{what} {number:.3f} s' for what, number in found[kind].items())}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[*UPDATES, "reading"])
    add_speed_options(parser, rounds=3)
    arguments = parser.parse_args()
    require_idle(arguments)
    data, matches = random_data(), []
    for algorithm in [name for name in UPDATES if arguments.only in (None, name)]:
        speeds: dict[str, list[float]] = {"ours": [], "rival": []}
        for _ in range(arguments.rounds):
            speeds["ours"].append(ours(algorithm, data))
            speeds["rival"].append(rival(algorithm))
        medians = {name: statistics.median(each) for name, each in speeds.items()}
        ratio = medians["ours"] / medians["rival"]
        print(
            f"{algorithm}: ours {medians['ours']:,.0f}, rival {medians['rival']:,.0f} updates/s, ratio {ratio:.2f} "
            f"(to reach: {TO_REACH[algorithm]:g})",
            flush=True,
        )
        matches.append({"title": algorithm, "median_updates_per_second": medians, "ratio": ratio, "runs": speeds})
    files = reading(data, arguments.rounds) if arguments.only in (None, "reading") else {}
    if arguments.json:
        figures = {"matches": matches, "seconds": files}
        interpreters = {"athlete": sys.executable, "torch": rival_python("sb3")}
        write_manifest(arguments.json, figures, interpreters, rounds=arguments.rounds)


if __name__ == "__main__":
    main()
