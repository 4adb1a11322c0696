"""Search spaces: which trials a config with grids and distributions stands for."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from athlete import tune
from athlete.tune.space import replace, variants


def configs(config: dict[str, Any], num_samples: int = 1, seed: int = 0) -> list[dict[str, Any]]:
    return [replace(config, picks) for picks in variants(config, num_samples, seed)]


def test_a_config_without_a_search_is_one_trial_a_sample() -> None:
    assert configs({"lr": 1.0}, num_samples=2) == [{"lr": 1.0}, {"lr": 1.0}]


def test_grids_multiply() -> None:
    found = configs({"a": tune.grid_search([1, 2]), "model": {"b": {"grid_search": ["x", "y", "z"]}}, "c": 0})
    assert found == [{"a": a, "model": {"b": b}, "c": 0} for a in (1, 2) for b in "xyz"]


def test_samples_multiply_grids_and_draw_anew_for_each() -> None:
    found = configs({"a": tune.grid_search([1, 2]), "lr": tune.uniform(0, 1)}, num_samples=3)
    assert [config["a"] for config in found] == [1, 2] * 3
    assert len({config["lr"] for config in found}) == 6


def test_the_same_seed_gives_the_same_trials_and_more_samples_begin_alike() -> None:
    config = {"lr": tune.loguniform(1e-5, 1e-2), "layers": [tune.choice([32, 64]), tune.randint(1, 9)]}
    assert configs(config, 4, seed=3) == configs(config, 4, seed=3)
    assert configs(config, 6, seed=3)[:4] == configs(config, 4, seed=3)
    assert configs(config, 4, seed=3) != configs(config, 4, seed=4)


def test_searches_inside_lists_tuples_and_grid_values() -> None:
    nested = {
        "a": tune.grid_search([{"kind": "x"}, {"kind": "y", "b": tune.grid_search([1, 2])}]),
        "c": (tune.choice([5]),),
    }
    assert configs(nested) == [
        {"a": {"kind": "x"}, "c": (5,)},
        {"a": {"kind": "y", "b": 1}, "c": (5,)},
        {"a": {"kind": "y", "b": 2}, "c": (5,)},
    ]


def test_functions_see_the_other_draws_whatever_the_order() -> None:
    config = {
        "double": tune.sample_from(lambda spec: 2 * spec.config.model.width),
        "again": tune.sample_from(lambda spec: spec.config["double"] + 1),
        "model": {"width": tune.choice([8])},
    }
    assert configs(config) == [{"double": 16, "again": 17, "model": {"width": 8}}]


def test_functions_that_wait_for_each_other_are_an_error() -> None:
    with pytest.raises(ValueError, match="config a, b: these sample_from functions need each other"):
        configs({"a": tune.sample_from(lambda spec: spec.config.b), "b": tune.sample_from(lambda spec: spec.config.a)})


def test_a_function_that_asks_for_what_is_not_there() -> None:
    with pytest.raises(AttributeError, match=r"the config has no 'lrr'; it has \['a', 'lr'\]"):
        configs({"lr": 1.0, "a": tune.sample_from(lambda spec: spec.config.lrr)})


def test_the_config_given_is_not_changed() -> None:
    layers = [tune.choice([1])]
    config = {"model": {"layers": layers}}
    configs(config)
    assert config == {"model": {"layers": layers}}


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.floats(0.01, 5), st.floats(5.5, 100))
def test_draws_stay_within_their_bounds(seed: int, lower: float, upper: float) -> None:
    def draws(domain: Any) -> list[Any]:
        generator = random.Random(seed)
        return [domain.draw(generator) for _ in range(20)]

    for domain in (tune.uniform(lower, upper), tune.loguniform(lower, upper)):
        assert all(lower <= value <= upper for value in draws(domain))
    assert all(value % 5 == 0 and 5 <= value <= 50 for value in draws(tune.qrandint(5, 50, 5)))
    assert all(value % 5 == 0 and 5 <= value <= 50 for value in draws(tune.qlograndint(5, 50, 5)))
    assert all(isinstance(value, int) and 1 <= value < 4 for value in draws(tune.lograndint(1, 4)))
    assert all(1 <= value < 3 for value in draws(tune.randint(1, 3)))
    assert all(abs(value / 0.25 - round(value / 0.25)) < 1e-9 for value in draws(tune.quniform(0, 1, 0.25)))
    assert all(value == round(value, 1) for value in draws(tune.qloguniform(0.1, 10, 0.1)))
    assert all(value == round(value, 1) for value in draws(tune.qrandn(0, 1, 0.1)))


def test_distributions_have_the_shape_they_promise() -> None:
    def mean(domain: Any) -> float:
        return sum(domain.sample(4000, seed=0)) / 4000

    assert mean(tune.uniform(0, 10)) == pytest.approx(5, abs=0.2)
    assert mean(tune.randn(3, 2)) == pytest.approx(3, abs=0.2)
    assert mean(tune.randint(0, 10)) == pytest.approx(4.5, abs=0.2)
    assert mean(tune.choice([0, 1])) == pytest.approx(0.5, abs=0.05)
    decades = [math.log10(value) for value in tune.loguniform(1e-4, 1).sample(4000, seed=0)]
    assert sum(decades) / 4000 == pytest.approx(-2, abs=0.1)
    assert set(tune.qrandint(0, 10, 5).sample(100, seed=0)) == {0, 5, 10}
    assert set(tune.lograndint(1, 4).sample(100, seed=0)) == {1, 2, 3}


def test_a_single_sample_is_not_a_list() -> None:
    assert 0 <= tune.uniform(0, 1).sample() <= 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tune.uniform(1, 1), r"tune.uniform\(1, 1\): the first number must be below the second"),
        (lambda: tune.loguniform(0, 1), r"tune.loguniform\(0, 1\): a logarithmic range must begin above 0"),
        (lambda: tune.quniform(0, 1, 0), r"tune.quniform\(q=0\): the step q must be above 0"),
        (lambda: tune.choice([]), r"tune.choice\(\[\]\): give at least one value"),
        (
            lambda: configs({"lr": {"grid_search": 3}}),
            r"config lr: grid_search takes a list of at least one value, not 3",
        ),
        (lambda: configs({"m": {"lr": {"grid_search": []}}}), r"config m/lr: grid_search takes a list"),
        (lambda: configs({"lr": {"grid_search": [1], "min": 2}}), r"config lr: 'grid_search' stands alone .* 'min'"),
        (lambda: configs({}, num_samples=0), "num_samples=0: at least one"),
    ],
)
def test_impossible_searches_are_errors(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_sample_from_needs_a_function() -> None:
    with pytest.raises(TypeError, match=r"tune.sample_from\(3\): give a function of `spec`"):
        tune.sample_from(3)  # type: ignore[arg-type]
