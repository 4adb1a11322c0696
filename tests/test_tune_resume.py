"""Ctrl-C, kill and resume: nothing is lost, nothing comes twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from tune_fakes import Counter, saved_iterations

from athlete import tune
from athlete.record.results import read_results

SCRIPT = """
import sys
from tune_fakes import Counter
from athlete import tune
analysis = tune.run(
    Counter, config={{"sleep": 0.02, "x": tune.grid_search({grid}), "y": tune.uniform(0, 1)}}, name="mine",
    stop={{"training_iteration": {last}}}, checkpoint_freq={freq}, max_concurrent_trials={processes}, resume={resume},
)
print("interrupted", analysis.interrupted)
"""


@pytest.fixture(autouse=True)
def results_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHLETE_RESULTS_DIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def start(**settings: Any) -> subprocess.Popen[str]:
    settings = {"grid": [1], "last": 10_000, "freq": 0, "processes": 1, "resume": False} | settings
    code = textwrap.dedent(SCRIPT).format(**settings)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_results(folder: Path, trials: int = 1, count: int = 3) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        files = list(folder.glob("mine/*/result.json"))
        if len(files) >= trials and all(len(read_results(file.parent)) >= count for file in files):
            return
        time.sleep(0.05)
    raise AssertionError(f"no results came into {folder}")


def iterations(trial: tune.Trial) -> list[int]:
    return [row["training_iteration"] for row in read_results(trial.folder)]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to consoles, not to processes")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_says_how_to_go_on_and_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    process = start()
    wait_for_results(tmp_path)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert f"name='mine', local_dir='{tmp_path}', resume=True" in out, err
    if number == signal.SIGINT:
        assert "interrupted True" in out and process.returncode == 0
    else:
        assert process.returncode == -signal.SIGTERM

    (trial,) = tune.ExperimentAnalysis(tmp_path / "mine").trials
    reached = iterations(trial)[-1]
    assert trial.status == "PAUSED" and saved_iterations(trial.folder) == [reached], "nothing trained is lost"

    out, err = start(last=reached + 5, resume=True).communicate(timeout=60)
    assert "interrupted False" in out, err
    (resumed,) = tune.ExperimentAnalysis(tmp_path / "mine").trials
    assert resumed.status == "TERMINATED" and resumed.config["y"] == trial.config["y"]
    assert iterations(resumed) == list(range(1, reached + 6))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to consoles, not to processes")
def test_interrupting_parallel_trials_saves_them_all(tmp_path: Path) -> None:
    process = start(grid=[1, 2, 3], processes=2)
    wait_for_results(tmp_path, trials=2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert "interrupted True" in out, err
    before = tune.ExperimentAnalysis(tmp_path / "mine").trials
    assert [trial.status for trial in before] == ["PAUSED", "PAUSED", "PENDING"]
    last = max(trial.iteration for trial in before) + 3
    out, err = start(grid=[1, 2, 3], processes=2, last=last, resume=True).communicate(timeout=60)
    assert "interrupted False" in out, err
    for trial in tune.ExperimentAnalysis(tmp_path / "mine").trials:
        assert trial.status == "TERMINATED" and iterations(trial) == list(range(1, last + 1))


def test_after_a_kill_a_resume_goes_on_from_the_last_checkpoint(tmp_path: Path) -> None:
    process = start(freq=4)
    wait_for_results(tmp_path, count=10)
    process.kill()
    process.communicate()
    (trial,) = tune.ExperimentAnalysis(tmp_path / "mine").trials
    saved = saved_iterations(trial.folder)[-1]
    with (trial.folder / "result.json").open("a") as file:
        file.write('{"training_iteration": 99')  # as if it had died within a line
    out, err = start(freq=4, last=saved + 6, resume=True).communicate(timeout=60)
    assert "interrupted False" in out, err
    (resumed,) = tune.ExperimentAnalysis(tmp_path / "mine").trials
    assert iterations(resumed) == list(range(1, saved + 7))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to consoles, not to processes")
def test_a_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import time
        from athlete import tune
        def train(config):
            tune.report(score=1)
            time.sleep(600)
        tune.run(train, name="mine", config={})
    """)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_results(tmp_path, count=1)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0 and "KeyboardInterrupt" in err
    assert tune.ExperimentAnalysis(tmp_path / "mine").trials[0].status == "PAUSED"


def interrupted_at(iteration: int, **settings: Any) -> tune.ExperimentAnalysis:
    """A run in this process that gets SIGINT after that many results in all."""

    class Interrupt(tune.Callback):
        seen = 0

        def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
            Interrupt.seen += 1
            if Interrupt.seen == stop_at:
                os.kill(os.getpid(), signal.SIGINT)

    stop_at = iteration
    return tune.run(Counter, name="mine", verbose=0, callbacks=[Interrupt()], **settings)


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends the process on Windows")
def test_finished_trials_are_not_run_again(tmp_path: Path) -> None:
    settings = {"config": {"gain": tune.grid_search([1, 2, 3])}, "stop": {"training_iteration": 4}}
    first = interrupted_at(6, **settings)
    assert [trial.status for trial in first.trials] == ["TERMINATED", "PAUSED", "PENDING"]
    before = (first.trials[0].folder / "result.json").read_bytes()
    second = tune.run(Counter, name="mine", verbose=0, resume=True, **settings)
    assert [trial.status for trial in second.trials] == ["TERMINATED"] * 3
    assert [trial.trial_id for trial in second.trials] == [trial.trial_id for trial in first.trials]
    assert (second.trials[0].folder / "result.json").read_bytes() == before
    assert [iterations(trial) for trial in second.trials] == [[1, 2, 3, 4]] * 3


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends the process on Windows")
def test_choices_come_back_classes_too_and_a_missing_config_is_the_recorded_one(tmp_path: Path) -> None:
    config = {"kind": tune.choice([Counter, Path]), "x": tune.uniform(0, 1), "cap": float("inf"), "none": None}
    first = interrupted_at(2, config=config, stop={"training_iteration": 5})
    second = tune.run(Counter, config=config, stop={"training_iteration": 5}, name="mine", resume=True, verbose=0)
    assert second.trials[0].config == first.trials[0].config

    plain = {"gain": tune.uniform(0, 1), "cap": float("inf"), "none": None}
    first = interrupted_at(2, config=plain, stop={"training_iteration": 5})
    second = tune.run(Counter, stop={"training_iteration": 5}, name="mine", resume=True, verbose=0)
    assert second.trials[0].config == first.trials[0].config


def test_failed_trials_are_taken_up_only_when_asked(tmp_path: Path) -> None:
    config = {"fail_at": 4, "fail_once": str(tmp_path / "marker")}
    settings = {"config": config, "stop": {"training_iteration": 5}, "name": "mine", "checkpoint_freq": 2, "verbose": 0}
    settings["raise_on_failed_trial"] = False
    assert tune.run(Counter, **settings).trials[0].status == "ERROR"
    assert tune.run(Counter, resume=True, **settings).trials[0].status == "ERROR"
    assert tune.run(Counter, resume="ERRORED_ONLY", **settings).trials[0].status == "TERMINATED"
    (trial,) = tune.ExperimentAnalysis(tmp_path / "mine").trials
    assert iterations(trial) == [1, 2, 3, 4, 5]


def test_a_failed_trial_may_begin_anew(tmp_path: Path) -> None:
    config = {"fail_at": 4, "fail_once": str(tmp_path / "marker")}
    settings = {"config": config, "stop": {"training_iteration": 5}, "name": "mine", "checkpoint_freq": 2, "verbose": 0}
    started = []

    class Starts(tune.Callback):
        def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            started.append(trial.iteration)

    tune.run(Counter, raise_on_failed_trial=False, **settings)
    (trial,) = tune.run(Counter, resume="LOCAL+RESTART_ERRORED", callbacks=[Starts()], **settings).trials
    assert started == [0] and iterations(trial) == [1, 2, 3, 4, 5]


def test_auto_begins_or_goes_on(tmp_path: Path) -> None:
    settings = {"name": "mine", "resume": "AUTO", "verbose": 0, "stop": {"training_iteration": 2}}
    first = tune.run(Counter, **settings)
    second = tune.run(Counter, **settings)
    assert second.trials[0].trial_id == first.trials[0].trial_id


def test_what_cannot_be_resumed(tmp_path: Path) -> None:
    def train(config: dict[str, Any]) -> None:
        tune.report(score=1)

    def resume(what: Any = Counter, **settings: Any) -> None:
        tune.run(what, resume=True, verbose=0, stop={"training_iteration": 1}, **settings)

    with pytest.raises(ValueError, match="say which experiment, by its name; there are none in"):
        resume()
    config = {"x": tune.uniform(0, 1)}
    tune.run(Counter, name="mine", verbose=0, config=config, stop={"training_iteration": 1})
    with pytest.raises(ValueError, match=r"by its name; the newest in .* is name='mine'"):
        resume()
    with pytest.raises(tune.TuneError, match=r"there is no experiment in .*other.*; in .* there are mine"):
        resume(name="other")
    with pytest.raises(tune.TuneError, match="is an experiment of Counter, not of train"):
        resume(train, name="mine")
    with pytest.raises(tune.TuneError, match=r"the search has changed: .* chose x, this config chooses y"):
        resume(name="mine", config={"y": tune.uniform(0, 1)})
