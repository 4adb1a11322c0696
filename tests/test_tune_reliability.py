"""Damaged checkpoints, full disks, removed folders and a second process: an experiment says so and stays in order."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_checkpointing import TINY, change_arrays, change_metadata
from tune_fakes import Counter

from athlete import tune
from athlete.record.files import locked, write_beside
from athlete.record.progress import SilentReporter
from athlete.record.results import RESULTS, ResultWriter, read_results
from athlete.tune.experiment import STATE


@pytest.fixture(autouse=True)
def results_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHLETE_RESULTS_DIR", str(tmp_path))


class Lines(SilentReporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.closed = False

    def print(self, text: str) -> None:
        self.said.append(text)

    def close(self) -> None:
        self.closed = True


# A damaged checkpoint


def trained(last: int, **settings: Any) -> tuple[tune.Trial, Lines]:
    lines = Lines()
    arguments: dict[str, Any] = {"stop": {"training_iteration": last}, "name": "mine", "checkpoint_freq": 1, **settings}
    config = {"env": "CartPole-v1", "seed": 0, **TINY}
    return tune.run("PPO", config=config, progress_reporter=lines, verbose=0, **arguments).trials[0], lines


def cut(folder: Path) -> None:
    content = (folder / "agent.safetensors").read_bytes()
    (folder / "agent.safetensors").write_bytes(content[: len(content) // 2])


def without_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def not_a_number(folder: Path) -> None:
    change_arrays(folder, lambda arrays: [array.fill(float("nan")) for array in arrays.values() if array.dtype == "f4"])


def never_ending(folder: Path) -> None:
    change_metadata(folder, lambda metadata: metadata["counters"].update(memory_since_timesteps=10**9))


@pytest.mark.parametrize("damage", [cut, without_manifest, not_a_number, never_ending])
def test_a_resume_goes_on_from_the_checkpoint_before_a_damaged_one(tmp_path: Path, damage: Any) -> None:
    trial, _ = trained(3)
    damage(trial.folder / "checkpoint_000003")
    state = tmp_path / "mine" / STATE
    state.write_text(state.read_text().replace('"TERMINATED"', '"PAUSED"'))
    trial, lines = trained(4, resume=True)
    (said,) = [line for line in lines.said if "damaged_checkpoint_000003" in line]
    assert said.endswith(
        f"It is now damaged_checkpoint_000003; the trial goes on from {trial.folder}/checkpoint_000002"
    )
    assert (trial.status, trial.failures, trial.iteration) == ("TERMINATED", 0, 4)
    assert [row["training_iteration"] for row in read_results(trial.folder)] == [1, 2, 3, 4]
    assert (trial.folder / "checkpoint_000003").is_dir(), "it was written anew"


def test_where_all_checkpoints_are_damaged_the_trial_begins_anew(tmp_path: Path) -> None:
    trial, _ = trained(2)
    for name in ("checkpoint_000001", "checkpoint_000002"):
        cut(trial.folder / name)
    state = tmp_path / "mine" / STATE
    state.write_text(state.read_text().replace('"TERMINATED"', '"PAUSED"'))
    trial, lines = trained(3, resume=True)
    assert lines.said[1].endswith("the trial goes on from its beginning") and trial.iteration == 3


class Saver(tune.Trainable):
    """Fails once at its fifth step, when it has also damaged its newest checkpoint."""

    def step(self) -> dict[str, Any]:
        marker = Path(self.config["marker"])
        if self.iteration == 4 and not marker.exists():
            marker.touch()
            (newest,) = Path(self.config["results"]).glob("*/*/checkpoint_000004")
            (newest / ".iteration").unlink()
            raise RuntimeError("the environment broke")
        return {"score": self.iteration}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / "x").write_text("x")

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        assert (Path(checkpoint_dir) / "x").exists()


@pytest.mark.parametrize("processes", [1, 2])
def test_so_does_a_retry_of_a_failed_trial(tmp_path: Path, processes: int) -> None:
    lines = Lines()
    config = {"marker": str(tmp_path / "marker"), "results": str(tmp_path)}
    settings: dict[str, Any] = {"max_concurrent_trials": processes, "progress_reporter": lines, "verbose": 0}
    analysis = tune.run(
        Saver, config=config, stop={"training_iteration": 6}, checkpoint_freq=1, max_failures=1, **settings
    )
    (trial,) = analysis.trials
    assert (trial.status, trial.failures, trial.iteration) == ("TERMINATED", 1, 6)
    assert any("incomplete" in line and line.endswith("checkpoint_000003") for line in lines.said)


def test_a_checkpoint_of_other_settings_is_not_damaged(tmp_path: Path) -> None:
    trial, _ = trained(2)
    state = tmp_path / "mine" / STATE
    state.write_text(state.read_text().replace('"TERMINATED"', '"PAUSED"'))
    config = {"env": "CartPole-v1", **TINY, "model": {"fcnet_hiddens": [16]}}
    with pytest.raises(tune.TuneError, match="has arrays of other shapes"):
        tune.run("PPO", config=config, name="mine", resume=True, verbose=0, stop={"training_iteration": 3})
    assert sorted(path.name for path in trial.folder.glob("*checkpoint*")) == ["checkpoint_000001", "checkpoint_000002"]


def test_a_trial_whose_learning_ends_in_no_numbers_is_an_error(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"name": "mine", "verbose": 0, "raise_on_failed_trial": False, "checkpoint_at_end": True}
    config = {"env": "CartPole-v1", "seed": 0, **TINY, "lr": 1e30}
    (trial,) = tune.run("PPO", config=config, stop={"training_iteration": 5}, **settings).trials
    assert trial.status == "ERROR" and not trial.checkpoints
    assert "NaN or infinity" in Path(str(trial.error_file)).read_text()


# Locks


def test_two_runs_of_one_experiment_are_told(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"stop": {"training_iteration": 1}, "verbose": 0, "name": "mine"}
    with locked(tmp_path / "mine"), pytest.raises(tune.TuneError, match=f"process {os.getpid()} is running the experi"):
        tune.run(Counter, **settings)
    assert not (tmp_path / "mine").exists()
    tune.run(Counter, **settings)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"], "no lock stays"


def test_the_lock_is_between_processes_and_a_killed_one_has_none(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from athlete.record.files import locked\n"
        "with locked(Path(sys.argv[1])): print('mine', flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(tune.__file__).parents[2])}
    command = [sys.executable, "-c", program, str(tmp_path / "mine")]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"mine\n"
        with pytest.raises(tune.TuneError, match=f"process {holder.pid} is running the experiment"):
            tune.run(Counter, stop={"training_iteration": 1}, verbose=0, name="mine")
    finally:
        holder.kill()
        holder.wait()
    tune.run(Counter, stop={"training_iteration": 1}, verbose=0, name="mine")


def test_experiments_without_a_name_never_share_a_folder(tmp_path: Path) -> None:
    inner: list[tune.ExperimentAnalysis] = []

    class Another(tune.Callback):
        def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            inner.append(tune.run(Counter, stop={"training_iteration": 1}, verbose=0))

    outer = tune.run(Counter, stop={"training_iteration": 1}, verbose=0, callbacks=[Another()])
    assert outer.folder != inner[0].folder


# The disk


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "state.json").mkdir()  # what cannot be replaced
    with pytest.raises(OSError, match=rf"state\.json could not be written into {tmp_path}"):
        write_beside(tmp_path / "state.json", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
    with pytest.raises(FileNotFoundError, match=f"the folder {tmp_path}/gone was removed"):
        write_beside(tmp_path / "gone" / "state.json", "text")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full")
def test_a_full_disk_is_told_and_all_else_closes(tmp_path: Path) -> None:
    ended: list[str] = []

    class Ends(tune.Callback):
        def on_experiment_end(self, trials: list, **info: Any) -> None:
            ended.append(trials[0].status)

    lines = Lines()
    original = ResultWriter.__init__

    def on_a_full_disk(self: ResultWriter, folder: Any, *settings: Any) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / RESULTS).symlink_to("/dev/full")
        original(self, folder, *settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResultWriter, "__init__", on_a_full_disk)
        settings: dict[str, Any] = {"verbose": 0, "progress_reporter": lines, "name": "mine"}
        with pytest.raises(OSError, match=r"result\.json could not be written into .*: No space left") as error:
            tune.run(Counter, stop={"training_iteration": 2}, callbacks=[Ends()], **settings)
    assert error.value.errno == errno.ENOSPC
    assert ended == ["PAUSED"] and lines.closed
    assert tune.ExperimentAnalysis(tmp_path / "mine").trials[0].status == "PAUSED"
    assert not [path for path in tmp_path.rglob("*") if ".tmp" in path.name or ".lock" in path.name]


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no folder with open files")
@pytest.mark.parametrize("what", ["trial", "experiment"])
def test_a_results_folder_that_is_removed_is_noticed(tmp_path: Path, what: str) -> None:
    class Remove(tune.Callback):
        def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
            if result["training_iteration"] == 2:
                shutil.rmtree(trial.folder if what == "trial" else trial.folder.parent)

    stop = {"training_iteration": 10_000}
    with pytest.raises(FileNotFoundError, match=r"the folder .* was removed"):
        tune.run(Counter, config={"sleep": 0.3}, stop=stop, name="mine", verbose=0, callbacks=[Remove()])


def test_what_a_killed_run_left_half_written_is_cleared_by_its_resume(tmp_path: Path) -> None:
    trial, _ = trained(1)
    (trial.folder / ".progress.csv.123.tmp").write_text("half")
    (trial.folder / ".tmp-checkpoint_000002").mkdir()
    (trial.folder / ".lock-checkpoint_000002").touch()
    state = tmp_path / "mine" / STATE
    state.write_text(state.read_text().replace('"TERMINATED"', '"PAUSED"'))
    trained(2, resume=True)
    assert not [path.name for path in trial.folder.iterdir() if path.name.startswith(".")]
