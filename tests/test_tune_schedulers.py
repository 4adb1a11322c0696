"""Schedulers: which trials go on, which copy another, and that a resume goes on with the same rungs and populations."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from tune_fakes import Counter

from athlete import tune
from athlete.algorithm import Algorithm
from athlete.record.results import read_results
from athlete.tune.experiment import read_state
from athlete.tune.schedulers import (
    CONTINUE,
    PAUSE,
    PB2,
    STOP,
    ASHAScheduler,
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
    create_scheduler,
)

run = functools.partial(tune.run, verbose=0)
NINE = {"gain": tune.grid_search([5.0, 9.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0])}


@pytest.fixture(autouse=True)
def results_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHLETE_RESULTS_DIR", str(tmp_path))


def trial(number: int) -> tune.Trial:
    return tune.Trial(str(number), number, f"trial_{number}", {}, Path())


def result(time: int, score: float) -> dict[str, Any]:
    return {"training_iteration": time, "score": score}


def lengths(analysis: tune.ExperimentAnalysis) -> dict[float, int]:
    """How many iterations each gain was given."""
    return {each.config["gain"]: each.iteration for each in analysis.trials}


# ASHA


def test_asha_stops_who_is_not_among_the_best_of_a_rung() -> None:
    asha = ASHAScheduler(metric="score", mode="max", max_t=9, reduction_factor=3)
    for number in range(6):
        asha.on_trial_add(trial(number))
    assert asha.on_trial_result(trial(0), result(1, 5.0)) == CONTINUE  # the first is the best so far
    assert asha.on_trial_result(trial(1), result(1, 4.0)) == STOP
    assert asha.on_trial_result(trial(2), result(1, 6.0)) == CONTINUE
    assert asha.on_trial_result(trial(2), result(2, 1.0)) == CONTINUE  # between rungs nobody is judged
    assert asha.on_trial_result(trial(3), result(1, float("nan"))) == STOP
    assert asha.on_trial_result(trial(4), result(1, 5.5)) == STOP  # a third of 5 is 1
    assert asha.on_trial_result(trial(5), result(1, 5.5)) == CONTINUE  # a third of 6 are 2
    assert asha.on_trial_result(trial(2), result(9, 6.0)) == STOP  # max_t


def test_the_mode_turns_the_order_round() -> None:
    asha = ASHAScheduler(metric="score", mode="min", max_t=9, reduction_factor=3)
    for number in range(2):
        asha.on_trial_add(trial(number))
    assert [asha.on_trial_result(trial(n), result(1, score)) for n, score in enumerate((4.0, 5.0))] == [CONTINUE, STOP]


def test_asha_spends_its_iterations_on_the_good_ones() -> None:
    analysis = run(Counter, config=NINE, scheduler=ASHAScheduler(max_t=9, reduction_factor=3))
    assert lengths(analysis)[9.0] == 9 and sum(lengths(analysis).values()) <= 40 < 81
    assert {each.status for each in analysis.trials} == {"TERMINATED"}
    assert all(read_results(each.folder)[-1]["done"] for each in analysis.trials)


def test_trials_of_brackets_meet_their_first_rung_later() -> None:
    asha = ASHAScheduler(metric="score", mode="max", max_t=9, reduction_factor=3, brackets=2)
    asha.restore({"rungs": [[{}, {}, {}], [{}, {}]], "bracket": {"0": 0, "1": 1, "2": 1}})
    assert asha.on_trial_result(trial(1), result(1, 5.0)) == CONTINUE
    assert asha.save()["rungs"] == [[{}, {}, {}], [{}, {}]]
    asha.on_trial_result(trial(1), result(3, 5.0))
    assert asha.save()["rungs"][1] == [{"1": 5.0}, {}]


# HyperBand


def test_hyperband_halves_its_brackets_together() -> None:
    analysis = run(Counter, config=NINE, scheduler=HyperBandScheduler(max_t=9, reduction_factor=3))
    # the largest bracket takes 9: they train 1, the best 3 train 3, the best of these 9
    assert lengths(analysis) == {9.0: 9, 8.0: 3, 7.0: 3} | dict.fromkeys((1.0, 2.0, 3.0, 4.0, 5.0, 6.0), 1)


def test_hyperband_of_fewer_processes_than_trials_is_the_same() -> None:
    analysis = run(
        Counter, config=NINE, scheduler=HyperBandScheduler(max_t=9, reduction_factor=3), max_concurrent_trials=2
    )
    assert lengths(analysis) == {9.0: 9, 8.0: 3, 7.0: 3} | dict.fromkeys((1.0, 2.0, 3.0, 4.0, 5.0, 6.0), 1)
    assert [row["training_iteration"] for row in read_results(analysis.best_trial.folder)] == list(range(1, 10))


def test_brackets_have_the_sizes_of_the_paper() -> None:
    hyperband = HyperBandScheduler(metric="score", mode="max", max_t=81, reduction_factor=3)
    for number in range(81 + 34 + 15 + 8 + 5 + 1):
        hyperband.on_trial_add(trial(number))
    brackets = hyperband.save()["brackets"]  # table 1: n and r of the brackets s = 4 ... 0, then the next band
    assert [(size, round(milestone)) for size, milestone, *_ in brackets[:5]] == [
        (81, 1),
        (34, 3),
        (15, 9),
        (8, 27),
        (5, 81),
    ]
    assert len(brackets) == 6 and len(brackets[5][2]) == 1


def test_a_failed_trial_is_not_waited_for() -> None:
    config = NINE | {"fail_at": tune.sample_from(lambda spec: 1 if spec.config.gain == 9.0 else None)}
    analysis = run(Counter, config=config, scheduler=HyperBandScheduler(max_t=9), raise_on_failed_trial=False)
    assert lengths(analysis)[8.0] == 9 and [each.status for each in analysis.trials].count("ERROR") == 1


def test_who_cannot_wait_as_a_checkpoint_is_told_so() -> None:
    def train(config: dict[str, Any]) -> None:
        for _ in range(9):
            tune.report(episode_reward_mean=config["gain"])

    assert lengths(run(train, config=NINE, scheduler="hyperband"))[9.0] == 9  # in memory
    with pytest.raises(tune.TuneError, match=r"to wait for other trials, and has no checkpoint .* save\(\)"):
        run(train, config=NINE, scheduler="hyperband", max_concurrent_trials=2)


# The median


def test_the_median_rule_compares_with_the_others_means() -> None:
    rule = MedianStoppingRule("training_iteration", "score", "max", grace_period=2, min_samples_required=2)
    for at in (1, 2):
        for number, score in enumerate((4.0, 6.0)):
            assert rule.on_trial_result(trial(number), result(at, score)) == CONTINUE
    assert rule.on_trial_result(trial(2), result(1, 1.0)) == CONTINUE  # within its grace
    assert rule.on_trial_result(trial(2), result(2, 4.9)) == STOP  # the median of 4 and 6 is 5
    assert rule.on_trial_result(trial(3), result(1, 1.0)) == CONTINUE
    assert rule.on_trial_result(trial(3), result(2, 5.1)) == CONTINUE


# Populations


def population(**settings: Any) -> PopulationBasedTraining:
    mutations = {"gain": tune.uniform(0.0, 100.0)}
    return PopulationBasedTraining(
        "training_iteration",
        **{"perturbation_interval": 2, "hyperparam_mutations": mutations, "resample_probability": 0.0, **settings},
    )


FOUR = {"gain": tune.grid_search([1.0, 2.0, 10.0, 3.0])}


def test_the_worst_quarter_copies_the_best_and_is_perturbed() -> None:
    scheduler = population()
    analysis = run(Counter, config=FOUR, scheduler=scheduler, stop={"training_iteration": 3})
    worst, *others = analysis.trials
    (copied,) = scheduler.history
    best = others[1]
    assert (copied["trial_id"], copied["donor"], copied["training_iteration"]) == (worst.trial_id, best.trial_id, 2)
    assert worst.config["gain"] in (8.0, 12.0) and worst.changes == {("gain",): worst.config["gain"]}
    assert [each.config["gain"] for each in others] == [2.0, 10.0, 3.0]
    assert [row["episode_reward_mean"] for row in read_results(worst.folder)] == [1.0, 2.0, 3 * worst.config["gain"]]


def test_processes_give_the_same_population() -> None:
    here = run(Counter, config=FOUR, scheduler=population(), stop={"training_iteration": 9}, seed=1)
    there = run(
        Counter, config=FOUR, scheduler=population(), stop={"training_iteration": 9}, seed=1, max_concurrent_trials=3
    )
    assert [each.config["gain"] for each in here.trials] == [each.config["gain"] for each in there.trials]
    assert [len(read_results(each.folder)) for each in there.trials] == [9] * 4


def test_mutations_draw_neighbours_ranges_and_what_the_config_lacks() -> None:
    scheduler = population(hyperparam_mutations={"a": [1, 2, 4], "b": tune.randint(1, 11), "c": lambda: 7.0})
    searched = scheduler.searched({"b": 10})
    assert searched["b"] == 10 and searched["a"] == tune.choice([1, 2, 4]) and {"a", "b", "c"} == searched.keys()
    for _ in range(20):
        explored = scheduler._explored({"a": 2, "b": 10, "c": 7.0})
        assert explored[("a",)] in (1, 4) and explored[("b",)] in (8, 10)
        assert explored[("c",)] in (7.0 * 1.2, 7.0 * 0.8)
    drawn = population(hyperparam_mutations={"a": [1, 2], "c": lambda: 7.0}, resample_probability=1.0)
    assert drawn._explored({"a": 9, "c": 1.0})[("c",)] == 7.0


def test_a_function_of_the_users_mends_what_was_explored() -> None:
    mended = population(custom_explore_fn=lambda config: {**config, "gain": 5.0})
    assert mended._explored({"gain": 1.0, "other": 0}) == {("gain",): 5.0}
    with pytest.raises(tune.TuneError, match="hyperparam_mutations does not have"):
        population(custom_explore_fn=lambda config: {**config, "other": 1})._explored({"gain": 1.0, "other": 0})


def test_who_saves_nothing_cannot_be_copied_from() -> None:
    def train(config: dict[str, Any]) -> None:
        for _ in range(9):
            tune.report(episode_reward_mean=config["gain"])

    with pytest.raises(tune.TuneError, match="which saves no checkpoint"):
        run(train, config=FOUR, scheduler=population())


# Bandits


def bandit(**settings: Any) -> PB2:
    return PB2("training_iteration", perturbation_interval=1, hyperparam_bounds={"gain": [0.0, 100.0]}, **settings)


def test_bandits_learn_which_settings_pay() -> None:
    config = {"gain": tune.uniform(0.0, 20.0)}
    scheduler = bandit(quantile_fraction=0.5)
    analysis = run(Counter, config=config, num_samples=6, scheduler=scheduler, stop={"training_iteration": 8}, seed=0)
    late = [copied["config"]["gain"] for copied in scheduler.history if copied["training_iteration"] >= 5]
    assert len(late) == 9 and sum(late) / 9 > 70.0  # drawn evenly: 50
    assert all(0.0 <= each.config["gain"] <= 100.0 for each in analysis.trials)


def test_what_bandits_have_seen_is_saved() -> None:
    one = bandit()
    run(Counter, config=FOUR, scheduler=one, stop={"training_iteration": 4})
    two = bandit()
    two.restore(one.save())
    assert two.save() == one.save() and len(one.save()["rows"]) == 8
    with pytest.raises(ValueError, match="has not 4 finite numbers"):
        two.restore({**one.save(), "rows": [[1.0]]})


SMALL = {
    "env": "CartPole-v1",
    "num_envs_per_worker": 2,
    "train_batch_size": 32,
    "minibatch_size": 16,
    "num_epochs": 1,
    "model": {"fcnet_hiddens": [8]},
    "seed": tune.grid_search([0, 1]),
}


def rewards(analysis: tune.ExperimentAnalysis) -> list[list[str]]:
    return [[str(row["episode_reward_mean"]) for row in read_results(each.folder)] for each in analysis.trials]


def test_a_copy_in_memory_equals_one_through_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"config": SMALL, "stop": {"training_iteration": 5}, "seed": 0}
    in_memory = run("PPO", scheduler=population_of_rates(), **settings)
    assert not list(Path(in_memory.experiment_path).glob("*/checkpoint_*"))
    assert sum(bool(each.changes) for each in in_memory.trials) >= 1
    monkeypatch.delattr(Algorithm, "take_over")
    through_files = run("PPO", scheduler=population_of_rates(), **settings)
    assert rewards(in_memory) == rewards(through_files)
    assert [each.config["lr"] for each in in_memory.trials] == [each.config["lr"] for each in through_files.trials]


def population_of_rates() -> PopulationBasedTraining:
    return PopulationBasedTraining(
        "training_iteration",
        perturbation_interval=2,
        quantile_fraction=0.5,
        hyperparam_mutations={"lr": tune.loguniform(1e-5, 1e-3)},
    )


def test_a_setting_that_shapes_the_arrays_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_envs_per_worker shapes the arrays"):
        run("PPO", config=SMALL, scheduler=population(hyperparam_mutations={"num_envs_per_worker": [2, 4]}))
    with pytest.raises(ValueError, match="lr"):
        run("PPO", config=SMALL, scheduler=population(hyperparam_mutations={"lr": [1e-3, -1.0]}))
    assert not list(tmp_path.glob("*/*/result.json"))


def test_one_that_only_shapes_the_program_is_said(caplog: pytest.LogCaptureFixture) -> None:
    scheduler = population(hyperparam_mutations={"num_epochs": [1, 2]})
    run("PPO", config=SMALL, scheduler=scheduler, stop={"training_iteration": 3})
    assert "num_epochs shapes the program: every new value of it compiles anew" in caplog.text


# Names, metrics, states


@pytest.mark.parametrize("name", ["asha", "ASHAScheduler", "async_hyperband", "hyperband", "median_stopping_rule"])
def test_schedulers_by_name(name: str) -> None:
    assert isinstance(create_scheduler(name, time_attr="training_iteration"), TrialScheduler)


def test_ashas_two_names_are_one_class() -> None:
    assert ASHAScheduler is AsyncHyperBandScheduler
    assert lengths(run(Counter, config=FOUR, scheduler="fifo", stop={"training_iteration": 2}))[1.0] == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: create_scheduler("ahsa"), "no scheduler 'ahsa': did you mean 'asha'"),
        (lambda: run(Counter, scheduler=3), "give a name such as 'asha'"),
        (lambda: ASHAScheduler(max_t=0), r"ASHA|AsyncHyperBandScheduler\(max_t=0\): at least 1"),
        (lambda: ASHAScheduler(reduction_factor=1), "reduction_factor=1.: above 1"),
        (lambda: ASHAScheduler(max_t=9, grace_period=10), "grace_period=10.: above 0, at most max_t=9"),
        (lambda: ASHAScheduler(max_t=9, brackets=9), "brackets=9.: 1 to 2"),
        (lambda: FIFOScheduler(mode="best"), "mode='best'.: 'min' or 'max'"),
        (lambda: population(hyperparam_mutations={}), "give it at least one"),
        (lambda: population(hyperparam_mutations={"lr": 3}), "'lr': 3.*give a list of values"),
        (lambda: PB2(hyperparam_bounds={"lr": [2, 1]}), r"'lr': \[2, 1\].*give \[low, high\]"),
        (lambda: population(quantile_fraction=0.9), "quantile_fraction=0.9.: from 0 to 0.5"),
        (lambda: run(Counter, mode="min", scheduler=ASHAScheduler(mode="max")), "give it once"),
    ],
)
def test_impossible_schedulers(make: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_a_metric_that_no_result_has_is_an_error_after_the_first_result() -> None:
    with pytest.raises(tune.TuneError, match="AsyncHyperBandScheduler: the results have no number 'episode_reward'"):
        run(Counter, config=NINE, scheduler="asha", metric="episode_reward", mode="max")


def test_evaluations_are_judged_when_there_is_one() -> None:
    config = NINE | {"evaluation_interval": 2}
    scheduler = ASHAScheduler(metric="evaluation/episode_reward_mean", mode="max", max_t=4, reduction_factor=2)
    analysis = run(Counter, config=config, scheduler=scheduler)
    assert max(lengths(analysis).values()) == 4 and sorted(set(lengths(analysis).values()))[0] >= 2


SCRIPT = """
from tune_fakes import Counter
from athlete import tune
from athlete.tune.schedulers import *
from athlete.tune import schedulers
analysis = tune.run(
    Counter, config={{"sleep": {sleep}, "gain": tune.grid_search([5., 9., 1., 8., 2., 7., 3., 6., 4.])}}, name="mine",
    scheduler={scheduler}, stop={{"training_iteration": 12}}, checkpoint_freq=1, resume={resume}, verbose=0, seed=3,
)
"""
KINDS = {
    "asha": "ASHAScheduler(max_t=9, reduction_factor=3)",
    "hyperband": "HyperBandScheduler(max_t=9)",
    "pbt": "PopulationBasedTraining('training_iteration', perturbation_interval=3,"
    " hyperparam_mutations={'gain': tune.uniform(0.0, 100.0)})",
}


def start(**settings: Any) -> subprocess.Popen[str]:
    code = textwrap.dedent(SCRIPT).format(**settings)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=env)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_experiment_ends_as_one_that_was_not(kind: str, tmp_path: Path) -> None:
    killed = start(scheduler=KINDS[kind], resume=False, sleep=0.02)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(list(tmp_path.glob("mine/*/checkpoint_000003"))) < 2:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert read_state(tmp_path / "mine")["scheduler"]["state"]
    again = start(scheduler=KINDS[kind], resume=True, sleep=0.0)
    assert again.wait(60) == 0, again.stderr.read() if again.stderr else ""
    resumed = tune.ExperimentAnalysis(tmp_path / "mine")
    (tmp_path / "mine").rename(tmp_path / "first")
    assert start(scheduler=KINDS[kind], resume=False, sleep=0.0).wait(60) == 0
    whole = tune.ExperimentAnalysis(tmp_path / "mine")
    assert [one.iteration for one in resumed.trials] == [one.iteration for one in whole.trials]
    assert [one.config["gain"] for one in resumed.trials] == [one.config["gain"] for one in whole.trials]


def test_a_resume_with_another_scheduler_or_a_damaged_state_is_refused(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"config": NINE, "name": "mine", "stop": {"training_iteration": 2}}
    run(Counter, scheduler="asha", **arguments)
    with pytest.raises(tune.TuneError, match="began with scheduler=AsyncHyperBandScheduler"):
        run(Counter, resume=True, **arguments)
    state = tmp_path / "mine" / "experiment_state.json"
    state.write_text(state.read_text().replace('"rungs"', '"rings"'))
    with pytest.raises(tune.TuneError, match="damaged: what AsyncHyperBandScheduler left is not whole"):
        run(Counter, resume=True, scheduler="asha", **arguments)


def test_no_file_changes_what_is_not_mutated(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"config": FOUR, "name": "mine", "stop": {"training_iteration": 3}}
    run(Counter, scheduler=population(), checkpoint_freq=1, **arguments)
    state = tmp_path / "mine" / "experiment_state.json"
    text = state.read_text()
    at = text.index('"changes"')
    state.write_text(text[:at] + text[at:].replace('"gain"', '"bad"', 1))
    with pytest.raises(tune.TuneError, match="has changed bad"):
        run(Counter, scheduler=population(), resume=True, **arguments)


def test_a_population_without_checkpoints_begins_again(tmp_path: Path) -> None:
    class Stops(tune.Callback):
        def on_trial_result(self, iteration: int, trial: tune.Trial, **info: Any) -> None:
            if trial.iteration == 4:
                raise KeyboardInterrupt

    arguments: dict[str, Any] = {"config": FOUR, "name": "mine", "stop": {"training_iteration": 5}, "seed": 2}
    with pytest.raises(KeyboardInterrupt):
        run(Counter, scheduler=population(), callbacks=[Stops()], **arguments)
    for checkpoint in tmp_path.glob("mine/*/checkpoint_*"):
        checkpoint.rename(checkpoint.with_name("gone_" + checkpoint.name))
    again = run(Counter, scheduler=population(), resume=True, **arguments)
    whole = run(Counter, scheduler=population(), **arguments | {"name": "whole"})
    assert [each.config["gain"] for each in again.trials] == [each.config["gain"] for each in whole.trials]


def test_a_paused_trial_is_not_told_twice() -> None:
    scheduler = HyperBandScheduler(metric="score", mode="max", max_t=9)
    for number in range(2):
        scheduler.on_trial_add(trial(number))
    assert scheduler.on_trial_result(trial(0), result(1, 1.0)) == PAUSE
    assert scheduler.release() == []
    assert scheduler.on_trial_result(trial(1), result(1, 2.0)) == PAUSE
    assert [(release.trial_id, release.stops) for release in scheduler.release()] == [("0", True), ("1", False)]
    assert scheduler.release() == []
