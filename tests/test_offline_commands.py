"""Recorded data from the command line, and in experiments: record, look, convert, learn."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from athlete import tune
from athlete.algorithms.ppo import PPOConfig
from athlete.cli.main import app
from athlete.offline.files import read_data


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, and what its policy did."""
    folder = tmp_path_factory.mktemp("recorded")
    config = PPOConfig().environment("CartPole-v1").training(model={"fcnet_hiddens": [8]}).debugging(seed=3)
    with config.reporting(logdir=False).build() as algo:
        algo.save(folder / "checkpoint")
        algo.record(folder / "same.safetensors", 4)
    return folder


def athlete(line: str) -> Result:
    """What the command does, in this process."""
    return CliRunner().invoke(app, shlex.split(line))


def test_record_plays_what_the_algorithm_would_have(recorded: Path) -> None:
    out = recorded / "out.safetensors"
    found = athlete(f"record {recorded / 'checkpoint'} --episodes 4 --out {out}")
    assert (found.exit_code, found.stdout.split()) == (0, [str(out)])
    assert read_data(out).obs.tobytes() == read_data(recorded / "same.safetensors").obs.tobytes()


def test_data_tells_what_is_in_files(recorded: Path) -> None:
    found = athlete(f"data {recorded / 'same.safetensors'} {recorded / 'same.safetensors'}")
    data = read_data(recorded / "same.safetensors")
    assert found.exit_code == 0
    assert f"{2 * len(data):,} from 2 files" in found.stdout and "8: 8 terminated, 0 cut" in found.stdout
    assert "actions" in found.stdout and "Discrete(n=2" in found.stdout


def test_convert_writes_another_format_and_tells_its_size(recorded: Path) -> None:
    out = recorded / "same.json"
    found = athlete(f"convert {recorded / 'same.safetensors'} {out}")
    assert found.exit_code == 0 and f"{out.stat().st_size:,} bytes" in found.stdout
    batch = json.loads(out.read_text().splitlines()[0])
    assert batch["type"] == "SampleBatch" and {"obs", "new_obs", "actions", "rewards", "eps_id"} <= set(batch)
    assert read_data(out).obs.tobytes() == read_data(recorded / "same.safetensors").obs.tobytes()


def test_a_file_that_is_wrong_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    found = athlete(f"data {tmp_path / 'x.json'}")
    assert found.exit_code == 1
    assert found.stderr.strip() == f"Error: {tmp_path / 'x.json'}, line 1, row 0: the line is cut or no JSON"


def test_an_experiment_learns_from_data_and_stops_on_evaluation(recorded: Path, tmp_path: Path) -> None:
    config = {
        "env": "CartPole-v1",
        "input": str(recorded / "same.safetensors"),
        "train_batch_size": 20,
        "min_sample_timesteps_per_iteration": 20,
        "lr": tune.grid_search([1e-3, 1e-2]),
        "model": {"fcnet_hiddens": [8]},
        "evaluation_interval": 2,
        "evaluation_duration": 2,
        "seed": 0,
    }
    stop = {"evaluation/episode_reward_mean": 1.0, "training_iteration": 5}
    analysis = tune.run("BC", config=config, stop=stop, local_dir=str(tmp_path), verbose=0)
    assert [trial.last_result["training_iteration"] for trial in analysis.trials] == [2, 2]
