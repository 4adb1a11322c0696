"""The rules of each scheduler by themselves, with results made by hand: rungs, halving, medians, quantiles, draws."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from athlete import tune
from athlete.tune.schedulers import (
    CONTINUE,
    PAUSE,
    PB2,
    STOP,
    ASHAScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)


def trial(number: int, gain: float = 0.0) -> tune.Trial:
    return tune.Trial(str(number), number, f"trial_{number}", {"gain": gain}, Path())


def tell(scheduler: TrialScheduler, number: int, time: float, score: float) -> str:
    return scheduler.on_trial_result(trial(number), {"training_iteration": time, "score": score})


SCORE: dict[str, Any] = {"time_attr": "training_iteration", "metric": "score", "mode": "max"}


# ASHA


def test_rungs_are_at_powers_of_the_reduction_factor_times_the_grace_period() -> None:
    asha = ASHAScheduler(**SCORE, max_t=18, grace_period=2, reduction_factor=3, stop_last_trials=False)
    asha.on_trial_add(trial(0))
    assert [tell(asha, 0, time, float(time)) for time in (1, 2, 5, 6, 17, 18, 19)] == [CONTINUE] * 7
    assert asha.save()["rungs"] == [[{"0": 2.0}, {"0": 6.0}, {"0": 18.0}]]


def test_brackets_with_more_rungs_are_likelier_by_a_factor_of_e() -> None:
    asha = ASHAScheduler(**SCORE, max_t=9, reduction_factor=3, brackets=2)
    for number in range(400):
        asha.on_trial_add(trial(number))
    assert sum(asha.save()["bracket"].values()) / 400 == pytest.approx(1 / (1 + 2.718), abs=0.06)


# HyperBand


def hyperband(trials: int, **settings: Any) -> HyperBandScheduler:
    scheduler = HyperBandScheduler(**SCORE, **{"max_t": 9, "reduction_factor": 3, **settings})
    for number in range(trials):
        scheduler.on_trial_add(trial(number))
    return scheduler


def test_of_four_trials_a_third_is_one_and_the_next_milestone_is_three_times_as_far() -> None:
    scheduler = hyperband(4)
    assert [tell(scheduler, number, 1, float(number)) for number in range(4)] == [PAUSE] * 4
    assert [release.trial_id for release in scheduler.release() if not release.stops] == ["3"]
    assert [tell(scheduler, 3, time, 0.0) for time in (2, 3)] == [CONTINUE, PAUSE]


def test_a_trial_that_comes_after_the_halving_begins_a_bracket_of_its_own() -> None:
    scheduler = hyperband(2)
    for number in range(2):
        tell(scheduler, number, 1, 0.0)
    scheduler.release()
    scheduler.on_trial_add(trial(2))
    assert [live for _, _, live, _ in scheduler.save()["brackets"]] == [("0",), ("2",)]


def test_a_trial_is_ranked_by_its_newest_evaluation() -> None:
    scheduler = HyperBandScheduler("training_iteration", "evaluation/score", "max", max_t=9)
    for number, score in enumerate((5.0, 1.0)):
        scheduler.on_trial_add(trial(number))
        evaluated = {"training_iteration": 0.5, "evaluation": {"score": score}}
        assert scheduler.on_trial_result(trial(number), evaluated) == CONTINUE
        assert scheduler.on_trial_result(trial(number), {"training_iteration": 1 + number}) == PAUSE
        assert scheduler.on_trial_result(trial(number), {"training_iteration": 1 + number}) == PAUSE
    assert {release.trial_id: release.stops for release in scheduler.release()} == {"0": False, "1": True}


@pytest.mark.parametrize(("stops", "decision"), [(True, STOP), (False, CONTINUE)])
def test_the_last_trials_stop_at_max_t_or_go_on(stops: bool, decision: str) -> None:
    assert tell(hyperband(1, stop_last_trials=stops), 0, 9, 1.0) == decision
    asha = ASHAScheduler(**SCORE, max_t=9, stop_last_trials=stops)
    asha.on_trial_add(trial(0))
    assert tell(asha, 0, 9, 1.0) == decision


# The median


def median_rule(*others: list[float], samples: int = 1) -> MedianStoppingRule:
    """A rule that has seen other trials' scores at times 1, 2, ..."""
    rule = MedianStoppingRule(**SCORE, grace_period=0, min_samples_required=samples)
    for number, scores in enumerate(others):
        rule._seen[str(number)] = [(float(at), score) for at, score in enumerate(scores, 1)]
    return rule


def test_others_count_with_their_mean_up_to_the_same_time() -> None:
    assert tell(median_rule([4.0, 4.0, 100.0]), 9, 2, 5.0) == CONTINUE
    assert tell(median_rule([4.0, 8.0, 0.0]), 9, 2, 5.9) == STOP  # the mean of 4 and 8 is 6


def test_it_is_their_median_and_equal_is_not_below() -> None:
    assert tell(median_rule([0.0], [4.0], [100.0]), 9, 1, 4.0) == CONTINUE
    assert tell(median_rule([0.0], [4.0], [100.0]), 9, 1, 3.9) == STOP


def test_a_trial_counts_with_its_best() -> None:
    rule = median_rule([5.0, 5.0])
    assert [tell(rule, 9, 1, 6.0), tell(rule, 9, 2, 1.0)] == [CONTINUE, CONTINUE]


def test_who_has_not_come_as_far_and_too_few_others_do_not_count() -> None:
    assert tell(median_rule([5.0]), 9, 2, 1.0) == CONTINUE
    assert tell(median_rule([5.0], [5.0], samples=3), 9, 1, 1.0) == CONTINUE
    assert tell(median_rule([5.0], [5.0], samples=2), 9, 1, 1.0) == STOP


def test_a_result_that_is_shown_again_after_a_resume_counts_once() -> None:
    rule = median_rule()
    tell(rule, 0, 1, 6.0)
    tell(rule, 0, 1, 6.0)
    assert rule.save() == {"seen": {"0": [[1.0, 6.0]]}}


# Populations


def population(*gains: float, **settings: Any) -> PopulationBasedTraining:
    mutations = {"gain": tune.uniform(0.0, 100.0)}
    scheduler = PopulationBasedTraining(
        **{**SCORE, "perturbation_interval": 2, "hyperparam_mutations": mutations, **settings}
    )
    for number, gain in enumerate(gains):
        scheduler.on_trial_add(trial(number, gain))
    return scheduler


@pytest.mark.parametrize(("quantile", "copies"), [(0.0, []), (0.25, ["0", "1"]), (0.5, ["0", "1"])])
def test_a_quantile_of_five_is_rounded_up_and_at_most_half(quantile: float, copies: list[str]) -> None:
    scheduler = population(*range(5), quantile_fraction=quantile)
    assert [tell(scheduler, number, 2, float(number)) for number in range(5)] == [PAUSE] * 5
    released = scheduler.release()
    assert [release.trial_id for release in released if release.donor is not None] == copies
    assert {release.donor for release in released} <= {"3", "4", None} and len(released) == 5


def test_the_mode_says_who_copies_whom() -> None:
    scheduler = population(1.0, 2.0, mode="min", quantile_fraction=0.5)
    for number in range(2):
        tell(scheduler, number, 2, float(number))
    (copied,) = [release for release in scheduler.release() if release.donor is not None]
    assert (copied.trial_id, copied.donor) == ("1", "0")


def test_the_burn_in_comes_before_the_first_interval_and_late_trials_skip_intervals() -> None:
    scheduler = population(1.0, burn_in_period=10)
    assert [tell(scheduler, 0, time, 1.0) for time in (2, 11, 12)] == [CONTINUE, CONTINUE, PAUSE]
    assert tell(scheduler, 0, 17, 1.0) == PAUSE
    scheduler.release()
    assert (scheduler.save()["next_time"], scheduler.save()["generation"]) == (18, 1)


def test_a_new_draw_is_as_likely_as_resample_probability_says() -> None:
    scheduler = population(hyperparam_mutations={"gain": lambda: -1.0}, resample_probability=0.25)
    scheduler.random = random.Random(0)
    values = [scheduler._explored({"gain": 10.0})["gain",] for _ in range(1_000)]
    assert values.count(-1.0) / 1_000 == pytest.approx(0.25, abs=0.04)
    assert set(values) == {-1.0, 8.0, 12.0}
    assert type(scheduler._mutated(lambda: 1, 9)) is int


def test_a_function_that_leaves_a_setting_out_is_told_so() -> None:
    with pytest.raises(tune.TuneError, match="custom_explore_fn left out a setting"):
        population(custom_explore_fn=lambda config: {})._explored({"gain": 1.0})
    with pytest.raises(tune.TuneError, match="returned None: it returns the config"):
        population(custom_explore_fn=lambda config: None)._explored({"gain": 1.0})  # type: ignore[arg-type, return-value]


# Bandits


def bandits(rows: list[list[float]]) -> PB2:
    """Bandits that have seen `[time, score before, gain in [0, 1], increase]`."""
    scheduler = PB2(**SCORE, perturbation_interval=1, hyperparam_bounds={"gain": [50.0, 100.0]})
    scheduler.restore({**scheduler.save(), "rows": rows})
    scheduler.random = random.Random(0)
    return scheduler


def test_bandits_try_what_is_uncertain_and_what_another_copy_does_not() -> None:
    known = bandits([[0.0, 0.0, 0.7, increase] for increase in (1.0, -1.0) * 4])
    first, second = (known._explored({})["gain",] for _ in range(2))
    assert 50.0 <= first < 65.0 and abs(second - first) > 5.0


def test_bandits_expect_most_of_what_has_paid_from_the_score_that_a_copy_goes_on_from() -> None:
    low = [[0.0, 0.0, 0.1, 1.0], [0.0, 0.0, 0.9, 0.0]]  # of the low score small gains have paid
    high = [[0.0, 9.0, 0.1, 0.0], [0.0, 9.0, 0.9, 1.0]]
    assert bandits(20 * (low + high))._explored({})["gain",] > 80.0


def test_bandits_forget() -> None:
    early = [[0.0, 0.0, 0.1, 1.0], [0.0, 0.0, 0.9, 0.0]]
    late = [[60.0, 0.0, 0.1, 0.0], [60.0, 0.0, 0.9, 0.8]]
    assert bandits(20 * (early + late))._explored({})["gain",] > 80.0


def test_bandits_measure_a_copys_increase_from_its_donors_score() -> None:
    scheduler = bandits([])
    for number, gain in enumerate((60.0, 100.0)):
        scheduler.on_trial_add(trial(number, gain))
    for time in (1, 2):
        for number in range(2):
            tell(scheduler, number, time, 10.0 * number + time)
        scheduler.release()
    first, second = scheduler.save()["rows"]
    assert first == [2.0, 11.0, 0.2, -9.0] and second == [2.0, 11.0, 1.0, 1.0]  # the first had copied the second
    assert scheduler.save()["before"] == {"0": 12.0, "1": 12.0}
