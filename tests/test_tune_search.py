"""Searchers: where values come from, points that come first, how many at once, seeds, and what a resume remembers."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tune_fakes import Counter, Halves

from athlete import tune
from athlete.tune.schedulers import ASHAScheduler, PopulationBasedTraining
from athlete.tune.search import BasicVariantGenerator, ConcurrencyLimiter, OptunaSearch, create_searcher
from athlete.tune.space import Path as ConfigPath

run = functools.partial(tune.run, verbose=0, stop={"training_iteration": 2})


@pytest.fixture(autouse=True)
def results_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHLETE_RESULTS_DIR", str(tmp_path))


SPACE = {"gain": tune.uniform(0.0, 10.0)}


def gains(analysis: tune.ExperimentAnalysis) -> list[float]:
    return [trial.config["gain"] for trial in analysis.trials]


def test_importing_tune_imports_neither_optuna_nor_ray_nor_jax() -> None:
    code = "import sys, athlete.tune, athlete.tune.search, athlete.tune.schedulers, athlete.tune.tuner"
    code += "; print([name for name in ('ray', 'optuna', 'jax') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_searcher_suggests_a_trial_at_a_time_and_hears_what_came_of_it() -> None:
    searcher = Halves()
    analysis = run(Counter, config=SPACE, search_alg=searcher, num_samples=3)
    assert gains(analysis) == [4.0, 2.0, 1.0]
    assert searcher.told == [("0", 8.0), ("1", 4.0), ("2", 2.0)]  # gain times two iterations
    assert analysis.trials[1].picks == {("gain",): 2.0} and "gain=2" in analysis.trials[1].logdir


def test_functions_see_what_was_suggested() -> None:
    config = SPACE | {"twice": tune.sample_from(lambda spec: 2 * spec.config.gain)}
    assert [trial.config["twice"] for trial in run(Counter, config=config, search_alg=Halves()).trials] == [8.0]


def test_a_searchers_own_space_leaves_what_stands_beside_it() -> None:
    searcher = Halves()
    searcher.space = {"gain": tune.uniform(0.0, 10.0), "model": {"width": tune.randint(5, 6)}}
    (trial,) = run(Counter, config={"model": {"depth": 2}}, search_alg=searcher).trials
    assert trial.config == {"gain": 4.0, "model": {"depth": 2, "width": 5}}


def test_a_failed_trial_has_no_score() -> None:
    searcher = Halves()
    run(Counter, config=SPACE | {"fail_at": 1}, search_alg=searcher, raise_on_failed_trial=False)
    assert searcher.told == [("0", None)]


def test_a_scheduler_compares_eight_suggestions_at_a_time_or_what_the_limiter_says() -> None:
    searcher = Halves()
    limited = ConcurrencyLimiter(searcher, max_concurrent=2)
    analysis = run(Counter, config=SPACE, search_alg=limited, num_samples=6, scheduler=ASHAScheduler(max_t=2))
    assert gains(analysis) == [4.0, 2.0, 1.0, 0.5, 0.25, 0.125] and len(searcher.told) == 6


def test_as_many_trials_train_at_the_same_time_as_the_generator_says() -> None:
    class Watches(tune.Callback):
        most = 0

        def on_step_begin(self, iteration: int, trials: list[tune.Trial], **info: Any) -> None:
            self.most = max(self.most, sum(trial.status == "RUNNING" for trial in trials))

    for limit, most in ((0, 5), (2, 2)):
        watch, searcher = Watches(), BasicVariantGenerator(max_concurrent=limit)
        settings = {"scheduler": ASHAScheduler(max_t=3), "callbacks": [watch], "num_samples": 5}
        analysis = run(Counter, config={"gain": tune.uniform(0.0, 1.0)}, search_alg=searcher, **settings)
        assert watch.most == most and len(analysis.trials) == 5
    with pytest.raises(ValueError, match="max_concurrent=-1"):
        BasicVariantGenerator(max_concurrent=-1)


def test_the_limiter_holds_back_and_waits_for_batches() -> None:
    for batch, expected in ((False, [("0", 8.0)]), (True, [("0", 8.0), ("1", 4.0)])):
        limited = ConcurrencyLimiter(searcher := Halves(), 2, batch=batch)
        limited.set_search_properties(None, None, SPACE)
        assert [limited.suggest(name) is None for name in "012"] == [False, False, True]
        limited.on_trial_complete("0", 8.0)
        assert (limited.suggest("2") is None) == batch
        if batch:
            limited.on_trial_complete("1", 4.0)
            assert limited.suggest("2") is not None
        assert searcher.told == expected


def test_a_resumed_search_knows_what_it_suggested() -> None:
    class Stops(tune.Callback):
        def on_trial_result(self, iteration: int, trial: tune.Trial, **info: Any) -> None:
            if trial.index == 2:
                raise KeyboardInterrupt

    arguments: dict[str, Any] = {"config": SPACE, "name": "mine", "num_samples": 4}
    with pytest.raises(KeyboardInterrupt):
        run(Counter, search_alg=Halves(), callbacks=[Stops()], **arguments)
    searcher = Halves()
    analysis = run(Counter, search_alg=searcher, resume=True, **arguments)
    ended = [(name, score, has_ended) for name, _, score, has_ended in searcher.resumed]
    assert ended == [("0", 8.0, True), ("1", 4.0, True), ("2", None, False)]
    assert gains(analysis) == [4.0, 2.0, 1.0, 0.5] and [name for name, _ in searcher.told] == ["2", "3"]
    assert len({trial.logdir for trial in analysis.trials}) == 4


# Points


def test_points_come_first_and_what_they_leave_out_is_drawn() -> None:
    points = [{"gain": 3.0}, {"gain": 4.0, "model": {"width": 7}}]
    config = SPACE | {"model": {"width": tune.randint(0, 5)}}
    analysis = run(Counter, config=config, search_alg=BasicVariantGenerator(points), num_samples=3, seed=1)
    assert gains(analysis)[:2] == [3.0, 4.0] and analysis.trials[1].config["model"] == {"width": 7}
    assert analysis.trials[0].config["model"]["width"] in range(5) and 0 <= gains(analysis)[2] <= 10
    again = run(Counter, config=config, search_alg=BasicVariantGenerator(points, random_state=1), num_samples=3)
    assert gains(again) == gains(analysis)


# Seeds


def test_every_config_is_trained_with_every_seed() -> None:
    config = SPACE | {"seed": 3}
    analysis = run(Counter, config=config, num_samples=2, num_seeds=3, seed=0)
    assert [trial.config["seed"] for trial in analysis.trials] == [3, 4, 5, 3, 4, 5]
    assert [len(set(gains(analysis)[at : at + 3])) for at in (0, 3)] == [1, 1] and len(set(gains(analysis))) == 2
    assert [len(group) for group in analysis.trials_by_config()] == [3, 3]


class Seeded(Counter):
    """Its reward has its seed in it."""

    def train(self) -> dict[str, Any]:
        return {**super().train(), "episode_reward_mean": self.config["gain"] + self.config["seed"]}


def test_the_analysis_tells_mean_interquartile_mean_and_interval(tmp_path: Path) -> None:
    config = {"gain": tune.grid_search([1.0, 5.0])}
    run(Seeded, config=config, num_seeds=5, name="mine")
    frame = tune.ExperimentAnalysis(tmp_path / "mine").results_by_config()
    assert frame["config/gain"].tolist() == [5.0, 1.0]  # the best first
    assert frame["mean"].tolist() == [7.0, 3.0] and frame["iqm"].tolist() == [7.0, 3.0]  # seeds 0 to 4
    best = frame.iloc[0]
    assert 5.0 <= best["low"] < 7.0 < best["high"] <= 9.0 and best["num_seeds"] == 5 and len(best["trial_ids"]) == 5
    assert tune.ExperimentAnalysis(tmp_path / "mine").results_by_config(mode="min")["mean"].tolist() == [3.0, 7.0]


def test_a_single_seed_has_no_interval() -> None:
    frame = run(Counter, config={"gain": tune.grid_search([1.0, 2.0])}).results_by_config()
    assert frame["low"].isna().all() and frame["iqm"].tolist() == [4.0, 2.0]


def test_a_searcher_is_told_the_mean_over_the_seeds() -> None:
    searcher = Halves()
    analysis = run(Seeded, config=SPACE, search_alg=searcher, num_samples=2, num_seeds=3)
    assert gains(analysis) == [4.0] * 3 + [2.0] * 3
    assert searcher.told == [("0", 5.0), ("1", 3.0)]


def test_resuming_needs_as_many_seeds(tmp_path: Path) -> None:
    run(Seeded, config={"gain": 1.0}, num_seeds=2, name="mine")
    with pytest.raises(tune.TuneError, match="began with num_seeds=2"):
        run(Seeded, config={"gain": 1.0}, resume=True, name="mine")
    assert len(run(Seeded, config={"gain": 1.0}, num_seeds=2, resume=True, name="mine").trials) == 2


# Errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"search_alg": "optuma"}, "no searcher 'optuma': did you mean 'optuna'"),
        ({"search_alg": 3}, "give a name such as 'optuna'"),
        ({"num_seeds": 0}, r"num_seeds=0\)"),
        ({"num_seeds": 2, "config": {"seed": tune.grid_search([0, 1])}}, "searches its seed already"),
        ({"search_alg": Halves(metric="loss"), "metric": "reward"}, "give it once"),
        ({"search_alg": BasicVariantGenerator([{"gian": 1.0}])}, "'gian' is not searched; did you mean 'gain'"),
        (
            {
                "search_alg": Halves(),
                "scheduler": PopulationBasedTraining(hyperparam_mutations={"gain": tune.uniform(0, 1)}),
            },
            "Halves and a population both choose settings",
        ),
    ],
)
def test_impossible_searches(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        run(Counter, **{"config": SPACE, **settings})
    assert not list(tmp_path.glob("*/*/result.json"))


def test_an_end_of_a_range_that_the_algorithm_refuses_is_an_error_before_anything_starts(tmp_path: Path) -> None:
    class Low(Halves):
        def suggest(self, trial_id: str) -> dict[ConfigPath, Any] | None:
            return {("gamma",): 0.9}

    with pytest.raises(ValueError, match="gamma"):
        run("PPO", config={"env": "CartPole-v1", "gamma": tune.uniform(0.9, 1.5)}, search_alg=Low())
    assert not list(tmp_path.glob("*/*/result.json"))


def test_a_limiter_needs_a_searcher_and_a_number() -> None:
    with pytest.raises(TypeError, match="give it a searcher"):
        ConcurrencyLimiter(3, 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_concurrent=0"):
        ConcurrencyLimiter(Halves(), 0)


# Optuna


def test_without_optuna_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install optuna"):
        run(Counter, config=SPACE, search_alg="optuna")


def test_optuna_goes_through_no_grid() -> None:
    pytest.importorskip("optuna")
    with pytest.raises(ValueError, match=r"config gain: OptunaSearch .* goes through no grid; make it tune\.choice"):
        run(Counter, config={"gain": tune.grid_search([1.0])}, search_alg="optuna")
    with pytest.raises(ValueError, match="knows no Normal"):
        run(Counter, config={"gain": tune.randn()}, search_alg="optuna")
    with pytest.raises(ValueError, match="nothing to search"):
        run(Counter, config={"gain": 1.0}, search_alg="optuna")


def test_optuna_finds_what_pays() -> None:
    pytest.importorskip("optuna")
    space = {"gain": tune.uniform(0.0, 10.0), "kind": tune.choice([["a"], ["b"]]), "size": tune.qrandint(0, 100, 10)}
    searcher = OptunaSearch(points_to_evaluate=[{"gain": 5.0, "kind": ["b"], "size": 20}])
    analysis = run(Counter, config=space, search_alg=searcher, num_samples=30, seed=0)
    first, *others = analysis.trials
    assert (first.config["gain"], first.config["kind"], first.config["size"]) == (5.0, ["b"], 20)
    assert all(trial.config["size"] % 10 == 0 for trial in others)
    late = [trial.config["gain"] for trial in others[-8:]]
    assert sum(late) / 8 > 6.5  # at random: 5
    assert searcher.study.best_value == analysis.best_result["episode_reward_mean"]
    again = run(
        Counter, config=space, search_alg=OptunaSearch(seed=0, points_to_evaluate=[{"gain": 5.0}]), num_samples=5
    )
    assert gains(again)[0] == 5.0 and isinstance(create_searcher("optuna", mode="min"), OptunaSearch)


def test_a_resumed_study_has_its_trials(tmp_path: Path) -> None:
    pytest.importorskip("optuna")

    class Stops(tune.Callback):
        def on_trial_result(self, iteration: int, trial: tune.Trial, **info: Any) -> None:
            if trial.index == 5:
                raise KeyboardInterrupt

    arguments: dict[str, Any] = {"config": SPACE, "name": "mine", "num_samples": 9, "seed": 0}
    with pytest.raises(KeyboardInterrupt):
        run(Counter, search_alg=OptunaSearch(), callbacks=[Stops()], **arguments)
    searcher = OptunaSearch()
    analysis = run(Counter, search_alg=searcher, resume=True, **arguments)
    assert [trial.params["gain"] for trial in searcher.study.trials] == pytest.approx(gains(analysis))
    assert [trial.value for trial in searcher.study.trials] == pytest.approx([2 * gain for gain in gains(analysis)])
    assert len(set(gains(analysis))) == 9
