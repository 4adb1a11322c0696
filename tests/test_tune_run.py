"""`tune.run`: what runs, when it stops, what lies on disk afterwards, and what is said when something is wrong."""

from __future__ import annotations

import functools
import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tune_fakes import Counter, saved_iterations

from athlete import tune
from athlete.record.results import read_params, read_results
from athlete.tune.trial import folder_name, last_line, legal

run = functools.partial(tune.run, verbose=0)


@pytest.fixture(autouse=True)
def results_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHLETE_RESULTS_DIR", str(tmp_path))


def iterations(trial: tune.Trial) -> list[int]:
    return [row["training_iteration"] for row in read_results(trial.folder)]


def test_importing_tune_imports_nothing_heavy() -> None:
    code = (
        "import sys, athlete.tune; print([m for m in ('jax','pandas','rich','numpy','gymnasium') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


# What a run leaves


def test_a_trial_stops_at_its_threshold_and_is_recorded() -> None:
    analysis = run(Counter, config={"gain": 2.0, "env": "Fake-v0"}, stop={"episode_reward_mean": 10})
    (trial,) = analysis.trials
    assert trial.status == "TERMINATED" and trial.last_result["episode_reward_mean"] == 10.0
    assert iterations(trial) == [1, 2, 3, 4, 5]
    rows = read_results(trial.folder)
    assert [row["done"] for row in rows] == [False] * 4 + [True]
    assert {"time_this_iter_s", "time_total_s", "timestamp", "date", "trial_id", "hostname"} <= rows[0].keys()
    assert read_params(trial.folder) == {"gain": 2.0, "env": "Fake-v0"}
    named = {path.name.split(".")[0] for path in trial.folder.iterdir()}
    assert named == {"about", "params", "result", "progress", "events"}


def test_folders_are_named_after_algorithm_environment_choice_and_date(tmp_path: Path) -> None:
    analysis = run(Counter, config={"env": "Fake-v0", "gain": tune.grid_search([1.5])}, stop={"training_iteration": 1})
    folder = analysis.trials[0].folder
    assert folder.parent.parent == tmp_path
    assert folder.parent.name.startswith("Counter_20")
    assert re.fullmatch(r"Counter_Fake-v0_[0-9a-f]{5}_00000_0_gain=1\.5_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", folder.name)


def test_names_are_legal_everywhere_and_bounded() -> None:
    assert legal('ALE/Pong-v5: "x" <y>|?*', 100) == "ALE_Pong-v5_x_y_"
    assert legal("name...", 100) == "name"
    for head in ("PPO_abcde_00000", "PPO_" + "e" * 200):
        name = folder_name(head, 0, "lr=1," * 100, "2026-01-31_12-00-00")
        assert len(name) <= 120 and name.startswith(head[:50]) and name.endswith("_2026-01-31_12-00-00")
    assert "lr=1,lr=1" in folder_name("PPO_abcde_00000", 0, "lr=1," * 100, "2026-01-31_12-00-00")


def test_names_of_your_own(tmp_path: Path) -> None:
    creators = {"trial_name_creator": lambda trial: f"my {trial.index}", "trial_dirname_creator": lambda trial: "same"}
    trials = run(Counter, num_samples=2, stop={"training_iteration": 1}, **creators).trials
    assert [trial.name for trial in trials] == ["my_0", "my_1"]
    assert [trial.folder.name for trial in trials] == ["same", "same_1"], "trials never share a folder"


def test_local_dir_and_name_choose_the_folder(tmp_path: Path) -> None:
    analysis = run(Counter, stop={"training_iteration": 1}, local_dir=tmp_path / "here", name="mine")
    assert analysis.experiment_path == str(tmp_path / "here" / "mine")
    again = run(Counter, stop={"training_iteration": 1}, storage_path=tmp_path / "here", name="mine")
    assert len(list((tmp_path / "here" / "mine").glob("Counter_*"))) == 2, "the first experiment's trial stays"
    assert len(list((tmp_path / "here" / "mine").glob("experiment_state_*.json"))) == 1
    assert len(again.trials) == 1


def test_the_state_file_is_plain_json(tmp_path: Path) -> None:
    run(
        Counter,
        config={"env": Counter, "x": float("inf")},
        stop={"training_iteration": 2},
        name="mine",
        metric="a",
        mode="min",
    )
    state = json.loads((tmp_path / "mine" / "experiment_state.json").read_text(), parse_constant=pytest.fail)
    assert (state["run"], state["status"], state["metric"], state["mode"]) == ("Counter", "TERMINATED", "a", "min")
    assert state["trials"][0]["last_result"]["training_iteration"] == 2


# Stops


def test_any_kind_of_stop() -> None:
    def ends(stop: Any) -> int:
        return run(Counter, stop=stop).trials[0].iteration

    assert ends({"training_iteration": 4, "episode_reward_mean": 3}) == 3
    assert ends({"info/learner/default_policy/learner_stats/entropy": 1.0}) == 1
    assert ends(lambda trial_id, result: result["episode_reward_mean"] > 1) == 2
    assert ends([tune.MaximumIterationStopper(2), {"episode_reward_mean": 9}]) == 2


def test_a_result_that_says_done_ends_the_trial() -> None:
    class Done(Counter):
        def train(self) -> dict[str, Any]:
            return {**super().train(), "done": self.iteration == 3}

    assert run(Done).trials[0].iteration == 3


def test_a_stop_key_that_never_comes_is_an_error_after_the_first_result(tmp_path: Path) -> None:
    with pytest.raises(tune.TuneError, match="no 'episode_reward'; did you mean 'episode_reward_mean'"):
        run(Counter, stop={"episode_reward": 5}, name="mine")
    (trial,) = tune.ExperimentAnalysis(tmp_path / "mine").trials
    assert iterations(trial) == [1], "what there was is on record"


def test_an_evaluation_stop_waits_for_evaluation_or_says_that_it_is_off() -> None:
    stop = {"evaluation/episode_reward_mean": 8}
    assert run(Counter, config={"evaluation_interval": 2}, stop=stop).trials[0].iteration == 4
    with pytest.raises(tune.TuneError, match="evaluation is off: set evaluation_interval"):
        run(Counter, stop=stop)


def test_a_time_budget_ends_all_trials() -> None:
    analysis = run(Counter, config={"sleep": 0.02}, num_samples=50, time_budget_s=0.2)
    assert analysis.trials[0].status == "TERMINATED"
    assert analysis.trials[-1].status == "PENDING"


# Many trials


def test_a_grid_times_samples() -> None:
    analysis = run(
        Counter,
        config={"gain": tune.grid_search([1.0, 2.0]), "nested": {"x": tune.uniform(0, 1)}},
        num_samples=2,
        seed=5,
        stop={"training_iteration": 2},
    )
    assert [trial.last_result["episode_reward_mean"] for trial in analysis.trials] == [2.0, 4.0, 2.0, 4.0]
    assert all(trial.evaluated_params["nested/x"] == trial.config["nested"]["x"] for trial in analysis.trials)
    again = run(Counter, config={"x": tune.uniform(0, 1)}, seed=5, stop={"training_iteration": 1})
    once_more = run(Counter, config={"x": tune.uniform(0, 1), "seed": 5}, stop={"training_iteration": 1})
    assert again.trials[0].config["x"] == once_more.trials[0].config["x"], "the config's seed is the search's too"


def test_experiments_in_the_form_of_rllibs_files() -> None:
    tune.register_trainable("counter", Counter)
    spec = {
        "run": "counter",
        "env": "Fake-v0",
        "stop": {"training_iteration": 2},
        "config": {"gain": {"grid_search": [1, 2]}},
    }
    trials = tune.run_experiments({"first": spec, "second": {**spec, "num_samples": 2}}, verbose=0)
    assert [trial.folder.parent.name for trial in trials] == ["first"] * 2 + ["second"] * 4
    assert trials[0].config == {"gain": 1, "env": "Fake-v0"}
    with pytest.raises(ValueError, match=r"experiment 'x' has no 'run'.*it has env"):
        tune.run_experiments({"x": {"env": "Fake-v0"}})


# Functions


def test_a_function_reports_its_results() -> None:
    def train(config: dict[str, Any]) -> None:
        for i in range(3):
            tune.report(score=config["base"] + i)
        tune.report({"score": 100})

    (trial,) = run(train, config={"base": 10}).trials
    assert [row["score"] for row in read_results(trial.folder)] == [10, 11, 12, 100]
    assert trial.status == "TERMINATED" and trial.name.startswith("train_")


def test_a_function_stops_inside_its_report() -> None:
    ended = []

    def train(config: dict[str, Any]) -> None:
        try:
            while True:
                tune.report(score=1)
        finally:
            ended.append("unwound")

    assert run(train, stop={"training_iteration": 3}).trials[0].iteration == 3
    assert ended == ["unwound"]


def test_a_function_may_return_its_last_result_and_take_more_arguments() -> None:
    def train(config: dict[str, Any], data: list[int]) -> dict[str, Any]:
        return {"score": sum(data)}

    (trial,) = run(tune.with_parameters(train, data=[1, 2])).trials
    assert trial.last_result["score"] == 3 and trial.last_result["done"] and trial.name.startswith("train_")


def test_a_functions_checkpoints_are_kept_and_given_back(tmp_path: Path) -> None:
    def train(config: dict[str, Any]) -> None:
        folder = tune.get_checkpoint()
        count = int((Path(folder) / "count").read_text()) if folder else 0
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        while True:
            count += 1
            (scratch / "count").write_text(str(count))
            tune.report(score=count, checkpoint=scratch if count % 2 == 0 else None)

    analysis = run(train, stop={"score": 5})
    assert saved_iterations(analysis.trials[0].folder) == [2, 4]
    (restored,) = run(train, stop={"training_iteration": 1}, restore=analysis.get_last_checkpoint()).trials
    assert restored.last_result["score"] == 5


def test_report_outside_of_a_trial() -> None:
    with pytest.raises(RuntimeError, match=r"tune.report\(\) works inside a function that tune.run runs"):
        tune.report(score=1)


def test_a_class_in_tunes_style(tmp_path: Path) -> None:
    class Sum(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.total = 0

        def step(self) -> dict[str, Any]:
            self.total += self.config["by"]
            return {"total": self.total}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            (Path(checkpoint_dir) / "total").write_text(str(self.total))

        def load_checkpoint(self, checkpoint_dir: str) -> None:
            self.total = int((Path(checkpoint_dir) / "total").read_text())

    first = run(Sum, config={"by": 2}, stop={"total": 6}, checkpoint_at_end=True)
    assert saved_iterations(first.trials[0].folder) == [3]
    (second,) = run(Sum, config={"by": 2}, stop={"total": 10}, restore=first.best_checkpoint).trials
    assert iterations(second) == [4, 5]


# Checkpoints


def test_checkpoints_come_every_few_iterations_and_at_the_end() -> None:
    def saved(**settings: Any) -> list[int]:
        return saved_iterations(run(Counter, stop={"training_iteration": 5}, **settings).trials[0].folder)

    assert saved() == []
    assert saved(checkpoint_freq=2) == [2, 4]
    assert saved(checkpoint_freq=2, checkpoint_at_end=True) == [2, 4, 5]
    assert saved(checkpoint_freq=5, checkpoint_at_end=True) == [5]


def test_the_newest_checkpoints_are_kept_without_a_score() -> None:
    trial = run(Counter, stop={"training_iteration": 6}, checkpoint_freq=1, keep_checkpoints_num=2).trials[0]
    assert saved_iterations(trial.folder) == [5, 6]


def test_the_best_checkpoints_are_kept_by_score_and_the_newest_always() -> None:
    settings = {"stop": {"training_iteration": 6}, "checkpoint_freq": 1, "keep_checkpoints_num": 2}
    falling = run(Counter, config={"gain": -1.0}, checkpoint_score_attr="episode_reward_mean", **settings)
    assert saved_iterations(falling.trials[0].folder) == [1, 2, 6]
    entropy = "min-info/learner/default_policy/learner_stats/entropy"
    assert saved_iterations(run(Counter, checkpoint_score_attr=entropy, **settings).trials[0].folder) == [5, 6]


def test_a_score_of_evaluation_counts_where_it_was_measured() -> None:
    config = {"evaluation_interval": 3, "gain": -1.0}
    score = "evaluation/episode_reward_mean"
    settings = {"checkpoint_freq": 1, "keep_checkpoints_num": 1, "checkpoint_score_attr": score}
    trial = run(Counter, config=config, stop={"training_iteration": 8}, **settings).trials[0]
    assert saved_iterations(trial.folder) == [3, 8]


def test_an_unknown_score_is_an_error() -> None:
    with pytest.raises(tune.TuneError, match="checkpoint_score_attr='min-reward': the results have no number 'reward'"):
        run(Counter, checkpoint_freq=100, checkpoint_score_attr="min-reward", stop={"training_iteration": 200})


# Failures


def test_a_failed_trial_leaves_its_traceback_and_the_others_go_on(tmp_path: Path) -> None:
    config = {"fail_at": tune.grid_search([2, None])}
    with pytest.raises(tune.TuneError, match=r"1 of 2 trials failed:\n.*the environment broke\n.*error.txt") as raised:
        run(Counter, config=config, stop={"training_iteration": 3}, name="mine")
    assert isinstance(raised.value.__cause__, RuntimeError)
    failed, good = tune.ExperimentAnalysis(tmp_path / "mine").trials
    assert (failed.status, good.status) == ("ERROR", "TERMINATED")
    assert 'raise RuntimeError("the environment broke")' in Path(failed.error_file or "").read_text()
    assert iterations(failed) == [1] and iterations(good) == [1, 2, 3]


def test_a_trainable_that_cannot_be_built_is_a_failed_trial() -> None:
    with pytest.raises(tune.TuneError, match=r"The trial failed:\n.*the config is bad"):
        run(Counter, config={"bad": True})
    assert run(Counter, config={"bad": True}, raise_on_failed_trial=False).trials[0].status == "ERROR"


def test_a_failed_trial_is_tried_again_from_its_checkpoint(tmp_path: Path) -> None:
    config = {"fail_at": 4, "fail_once": str(tmp_path / "marker")}
    (trial,) = run(Counter, config=config, stop={"training_iteration": 6}, checkpoint_freq=2, max_failures=1).trials
    assert (trial.status, trial.failures) == ("TERMINATED", 1)
    assert iterations(trial) == [1, 2, 3, 4, 5, 6]


def test_failing_too_often_is_an_error() -> None:
    analysis = run(Counter, config={"fail_at": 2}, max_failures=2, raise_on_failed_trial=False)
    assert (analysis.trials[0].status, analysis.trials[0].failures) == ("ERROR", 3)
    assert Path(analysis.trials[0].error_file or "").read_text().count("the environment broke") == 3 * 2


def test_fail_fast_leaves_the_rest_and_raise_raises_the_error_itself() -> None:
    config = {"fail_at": tune.grid_search([1, None])}
    analysis = run(Counter, config=config, fail_fast=True, raise_on_failed_trial=False)
    assert [trial.status for trial in analysis.trials] == ["ERROR", "PENDING"]
    with pytest.raises(RuntimeError, match="the environment broke"):
        run(Counter, config=config, fail_fast="raise")


# What is asked for wrongly


def test_unknown_settings_suggest_the_nearest() -> None:
    with pytest.raises(
        TypeError, match=r"tune.run\(\) has no setting 'checkpoint_frequency'; did you mean 'checkpoint_freq'"
    ):
        run(Counter, checkpoint_frequency=3)
    with pytest.raises(TypeError, match=r"has no setting 'local_dirr'; did you mean 'local_dir'"):
        run(Counter, local_dirr="x")


def test_settings_without_a_meaning_are_accepted_with_a_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="athlete"):
        run(Counter, stop={"training_iteration": 1}, resources_per_trial={"cpu": 1}, sync_config=None, scheduler=None)
    assert [record.message for record in caplog.records] == [
        "tune.run(resources_per_trial=...) does nothing here: "
        "trials share this machine; max_concurrent_trials says how many run at once, and ray=True runs them in Ray"
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "maximum"}, r"tune.run\(mode='maximum'\): 'min' or 'max'"),
        ({"num_samples": 0}, r"tune.run\(num_samples=0\)"),
        ({"max_concurrent_trials": -1}, r"tune.run\(max_concurrent_trials=-1\)"),
        ({"resume": "SOMETIMES"}, r"tune.run\(resume='SOMETIMES'\): True, False, 'LOCAL' or 'AUTO'"),
        ({"scheduler": "asha2"}, "there is no scheduler 'asha2': did you mean 'asha'"),
        ({"config": {"a": {"grid_search": 1}}}, "config a: grid_search takes a list"),
    ],
)
def test_impossible_settings(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        run(Counter, **settings)
    assert list(tmp_path.iterdir()) == [], "nothing has begun"


@pytest.mark.parametrize(("what", "config"), [(5, None), ([Counter], None), (Counter, [1])])
def test_what_cannot_run(what: Any, config: Any) -> None:
    with pytest.raises(TypeError, match=r"tune\.run"):
        run(what, config=config)


# Callbacks and what is printed


class Diary(tune.Callback):
    def __init__(self) -> None:
        self.entries: list[str] = []

    def setup(self, stop: Any = None, num_samples: Any = None, total_num_samples: Any = None, **info: Any) -> None:
        self.entries.append(f"setup {total_num_samples}")

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.entries.append(f"start {trial.index}")

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        self.entries.append(f"result {result['training_iteration']}")

    def on_checkpoint(self, iteration: int, trials: list, trial: Any, checkpoint: Any, **info: Any) -> None:
        self.entries.append(f"checkpoint {checkpoint.iteration}")

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.entries.append("complete")

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.entries.append("error")

    def on_experiment_end(self, trials: list, **info: Any) -> None:
        self.entries.append("end")


def test_callbacks_hear_of_everything_in_order() -> None:
    diary = Diary()
    config = {"fail_at": tune.grid_search([None, 2])}
    settings = {"checkpoint_at_end": True, "raise_on_failed_trial": False, "callbacks": [diary]}
    run(Counter, config=config, stop={"training_iteration": 2}, **settings)
    good = ["start 0", "result 1", "result 2", "checkpoint 2", "complete"]
    assert diary.entries == ["setup 2", *good, "start 1", "result 1", "error", "end"]


def test_a_callback_that_raises_ends_the_experiment_in_good_order(tmp_path: Path) -> None:
    class Loud(tune.Callback):
        def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
            if result["training_iteration"] == 2:
                raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(Counter, callbacks=[Loud()], name="mine")
    (trial,) = tune.ExperimentAnalysis(tmp_path / "mine").trials
    assert trial.status == "PAUSED" and iterations(trial) == [1, 2]


def test_verbosity(capsys: pytest.CaptureFixture) -> None:
    def printed(verbose: int) -> str:
        tune.run(Counter, stop={"training_iteration": 2}, verbose=verbose)
        return capsys.readouterr().out

    assert printed(0) == ""
    assert "TERMINATED" in printed(1) and "Result for" not in printed(1)
    assert "Result for Counter" in printed(2) and "entropy" not in printed(2)
    assert "info/learner/default_policy/learner_stats/entropy: 0.5" in printed(3)


def test_the_line_that_says_what_went_wrong_is_not_jaxs_note_under_it():
    trace = "Traceback (most recent call last):\n  ...\nOverflowError: too large\n" + "-" * 20
    assert last_line(f"{trace}\nFor simplicity, JAX has removed its internal frames.\n") == "OverflowError: too large"
    assert last_line("ValueError: wrong\n") == "ValueError: wrong" and last_line("") == "unknown"
