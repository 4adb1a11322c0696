"""When trials stop: dictionaries of thresholds, functions, stoppers."""

from __future__ import annotations

import datetime
import math
from typing import Any

import pytest

from athlete import tune
from athlete.record.stopper import make_stopper


def results(*rewards: float) -> list[dict[str, Any]]:
    return [{"training_iteration": i, "reward": reward} for i, reward in enumerate(rewards, start=1)]


def stops(stop: Any, rows: list[dict[str, Any]]) -> list[bool]:
    stopper = make_stopper(stop, lambda trial_id: True)
    return [stopper("t", row) for row in rows]


def test_a_dictionary_stops_at_whichever_threshold_is_reached_first() -> None:
    assert stops({"reward": 5, "training_iteration": 3}, results(1, 2, 3, 4)) == [False, False, True, True]
    assert stops({"reward": 2, "training_iteration": 9}, results(1, 2, 3)) == [False, True, True]


def test_nested_keys_are_written_with_slashes_and_nan_reaches_nothing() -> None:
    rows = [{"info": {"loss": math.nan}}, {"info": {"loss": -1.0}}, {"info": {"loss": 0.5}}]
    assert stops({"info/loss": 0.5}, rows) == [False, False, True]


def test_a_key_that_is_not_there_is_an_error_with_the_nearest() -> None:
    row = {"episode_reward_mean": 1.0, "info": {"learner": {"default_policy": {"kl": 0.1}}}}
    with pytest.raises(tune.TuneError, match=r"no 'episode_reward_means'; did you mean 'episode_reward_mean'"):
        stops({"episode_reward_means": 5}, [row])
    with pytest.raises(tune.TuneError, match=r"did you mean 'info/learner/default_policy/kl'"):
        stops({"kl": 5}, [row])
    with pytest.raises(
        tune.TuneError, match=r"no 'zzz'; they have episode_reward_mean, info/learner/default_policy/kl"
    ):
        stops({"zzz": 5}, [row])
    with pytest.raises(tune.TuneError, match=r"result\['info'\] is dict, not a number; did you mean 'info/learner"):
        stops({"info": 5}, [row])


def test_evaluation_keys_may_wait_for_the_first_evaluation() -> None:
    before, after = {"reward": 1.0}, {"reward": 1.0, "evaluation": {"episode_reward_mean": 5.0}}
    assert stops({"evaluation/episode_reward_mean": 5}, [before, after, before]) == [False, True, False]
    with pytest.raises(tune.TuneError, match="did you mean 'evaluation/episode_reward_mean'"):
        stops({"evaluation/reward_mean": 5}, [before, after])


def test_evaluation_keys_without_evaluation_are_an_error_at_once() -> None:
    with pytest.raises(tune.TuneError, match="evaluation is off: set evaluation_interval"):
        make_stopper({"evaluation/episode_reward_mean": 5}, lambda trial_id: False)("t", {"reward": 1.0})


def test_functions_and_lists() -> None:
    assert stops(lambda trial_id, row: trial_id == "t" and row["reward"] > 2, results(1, 3)) == [False, True]
    assert stops([{"reward": 9}, tune.MaximumIterationStopper(2)], results(1, 1)) == [False, True]
    assert stops(tune.CombinedStopper(tune.NoopStopper(), tune.FunctionStopper(lambda *_: True)), results(1)) == [True]
    assert stops(None, results(1)) == [False]


@pytest.mark.parametrize("stop", [{"reward": "5"}, {"reward": True}, {"reward": None}, 5, "reward"])
def test_what_cannot_be_a_stop(stop: Any) -> None:
    with pytest.raises(TypeError, match="stop="):
        make_stopper(stop)


def test_plateau_of_a_trial() -> None:
    stopper = tune.TrialPlateauStopper("reward", std=0.1, num_results=3, grace_period=4)
    assert stops(stopper, results(1, 1, 1, 1, 9)) == [False, False, False, True, False]
    above = tune.TrialPlateauStopper("reward", std=0.1, num_results=2, grace_period=2, metric_threshold=5, mode="max")
    assert stops(above, results(1, 1, 6, 6)) == [False, False, False, True]
    assert stops(tune.TrialPlateauStopper("reward", num_results=2, grace_period=0), results(math.nan, math.nan)) == [
        False,
        False,
    ]
    with pytest.raises(ValueError, match="mode must be"):
        tune.TrialPlateauStopper("reward", metric_threshold=5)
    with pytest.raises(tune.TuneError, match="no number 'rewards'; did you mean 'reward'"):
        stops(tune.TrialPlateauStopper("rewards"), results(1))


def test_plateau_of_an_experiment_ends_all() -> None:
    stopper = tune.ExperimentPlateauStopper("reward", std=0.1, top=2, mode="max", patience=1)
    assert stops(stopper, results(1, 5, 5, 3)) == [False, False, False, True]
    assert stopper.stop_all()


def test_a_timeout_counts_from_its_first_use() -> None:
    assert not tune.TimeoutStopper(1000).stop_all()
    stopper = tune.TimeoutStopper(datetime.timedelta(microseconds=1))
    stopper.stop_all()
    assert stops(stopper, results(1, 1))[-1] and stopper.stop_all()
    with pytest.raises(ValueError, match="above 0"):
        tune.TimeoutStopper(0)


def progress(stop: Any, rows: list[dict[str, Any]]) -> list[float | None]:
    stopper = make_stopper(stop)
    return [stopper.progress("t", row) for row in rows]


def test_progress_is_the_nearest_threshold() -> None:
    assert progress({"reward": 10, "training_iteration": 4}, results(1, 9, 20)) == [0.25, 0.9, 1.0]
    assert progress(tune.MaximumIterationStopper(4), results(1, 9, 20)) == [0.25, 0.5, 0.75]
    assert progress({"reward": 10}, [{"reward": math.nan}, {"reward": -5.0}]) == [None, 0.0]
    assert progress(lambda *_: False, results(1)) == [None]


def test_progress_towards_a_negative_threshold_counts_from_the_first_value() -> None:
    assert progress({"reward": -200}, results(-1200, -700, -1500, -200)) == [0.0, 0.5, 0.0, 1.0]
