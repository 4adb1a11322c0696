"""Trials in processes of their own: the same results, and a process that dies takes nothing with it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from test_fault_tolerance import is_alive, wait_for
from tune_fakes import Counter

from athlete import tune
from athlete.record.results import read_results


@pytest.fixture(autouse=True)
def results_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHLETE_RESULTS_DIR", str(tmp_path))


def run(what: Any, **settings: Any) -> tune.ExperimentAnalysis:
    return tune.run(what, max_concurrent_trials=2, verbose=0, **settings)


def test_parallel_trials_give_the_results_of_serial_ones() -> None:
    config = {"gain": tune.grid_search([1.0, 2.0, 3.0]), "evaluation_interval": 2}
    settings = {"config": config, "stop": {"episode_reward_mean": 6}, "checkpoint_freq": 2}
    parallel, serial = run(Counter, **settings), tune.run(Counter, verbose=0, **settings)
    timing = {"time_this_iter_s", "time_total_s", "timestamp", "date", "trial_id", "experiment_tag"}
    for one, other in zip(parallel.trials, serial.trials, strict=True):
        rows = [
            [{k: v for k, v in row.items() if k not in timing} for row in read_results(t.folder)] for t in (one, other)
        ]
        assert rows[0] == rows[1]
        assert [Path(c.path).name for c in one.checkpoints] == [Path(c.path).name for c in other.checkpoints]


def test_trials_run_in_other_processes_which_serve_several() -> None:
    def train(config: dict[str, Any]) -> None:
        tune.report(process=os.getpid())

    analysis = run(train, config={"x": tune.grid_search([1, 2, 3, 4])})
    processes = {trial.last_result["process"] for trial in analysis.trials}
    assert os.getpid() not in processes and len(processes) <= 2


def test_an_error_in_a_process_comes_with_its_traceback(tmp_path: Path) -> None:
    config = {"fail_at": tune.grid_search([2, None, 3]), "sleep": 0.05}
    with pytest.raises(tune.TuneError, match=r"2 of 3 trials failed:\n.*the environment broke"):
        run(Counter, config=config, stop={"training_iteration": 10}, name="mine")
    failed, good, _ = tune.ExperimentAnalysis(tmp_path / "mine").trials
    assert (failed.status, good.status) == ("ERROR", "TERMINATED")
    assert "tune_fakes.py" in Path(failed.error_file or "").read_text()


def test_a_process_that_dies_is_a_failed_trial(tmp_path: Path) -> None:
    config = {"die_at": tune.grid_search([2, None]), "gain": 1.0}
    analysis = run(Counter, config=config, stop={"training_iteration": 3}, raise_on_failed_trial=False)
    died, good = analysis.trials
    assert (died.status, good.status) == ("ERROR", "TERMINATED")
    assert "the trial's process ended with exit code 7; its last words in" in Path(died.error_file or "").read_text()
    assert len(read_results(died.folder)) == 1


def test_a_process_that_died_is_replaced_when_the_trial_is_tried_again(tmp_path: Path) -> None:
    class Fragile(Counter):
        def train(self) -> dict[str, Any]:
            if self.iteration == 3 and self._fails():
                os._exit(1)
            return super().train()

    config = {"fail_once": str(tmp_path / "marker")}
    (trial,) = run(Fragile, config=config, stop={"training_iteration": 5}, checkpoint_freq=2, max_failures=1).trials
    assert trial.status == "TERMINATED"
    assert [row["training_iteration"] for row in read_results(trial.folder)] == [1, 2, 3, 4, 5]


def test_what_a_trial_prints_is_in_the_log() -> None:
    def train(config: dict[str, Any]) -> None:
        print("hello from the trial")
        tune.report(score=1)

    analysis = run(train)
    assert "hello from the trial" in (Path(analysis.experiment_path) / "worker_00.log").read_text()


def test_registered_environments_travel_along() -> None:
    from athlete.env.registry import register_env, registered_names

    register_env("only-in-the-parent", lambda env_config: None)

    def train(config: dict[str, Any]) -> None:
        tune.report(known="only-in-the-parent" in registered_names())

    assert run(train).trials[0].last_result["known"] is True


def test_a_script_needs_no_main_guard_and_its_classes_travel(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            from athlete import tune
            print("the script runs")
            factor = 3
            class Local:
                def __init__(self, config): self.config, self.n = config, 0
                def train(self):
                    self.n += 1
                    return {"score": factor * self.config["x"]}
                def save(self, folder): return None
                def stop(self): pass
            analysis = tune.run(Local, config={"x": tune.grid_search([1, 2])}, stop={"training_iteration": 2},
                                max_concurrent_trials=2, verbose=0)
            print([trial.last_result["score"] for trial in analysis.trials])
        """)
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["the script runs", "[3, 6]"], done.stderr


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[1])
from athlete import tune
import time
def train(config):
    open(config["folder"] + "/" + str(os.getpid()), "w").close()
    time.sleep(1000)
tune.run(train, config={"folder": sys.argv[2], "x": tune.grid_search([1, 2])}, max_concurrent_trials=2, verbose=0)
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_a_program_that_is_killed_leaves_no_trial_behind(tmp_path: Path) -> None:
    folder = tmp_path / "processes"
    folder.mkdir()
    with subprocess.Popen([sys.executable, "-c", KILLED, str(Path(__file__).parent), str(folder)]) as parent:
        wait_for(lambda: len(list(folder.iterdir())) == 2)
        parent.kill()
        parent.wait()
        trials = [int(path.name) for path in folder.iterdir()]
        wait_for(lambda: not any(is_alive(trial) for trial in trials))


def test_an_interrupt_is_answered_in_silence_too(capfd: pytest.CaptureFixture[str]) -> None:
    from athlete.record.progress import reporter

    reporter(0).print_always("Once more ends at once")
    assert capfd.readouterr() == ("", "Once more ends at once\n")
