"""What may be set stands beside the field, and is checked at the call."""

from __future__ import annotations

import math
import typing
from typing import Annotated

import jax
import pytest

from athlete.algorithms import ALGORITHMS, get_config_class
from athlete.core import hyper
from athlete.core.ranges import Fraction, Limit, NonNegativeFloat, PositiveInt, Range
from athlete.ops.schedule import Schedule
from athlete.settings.table import check_field


@hyper
class Learner:
    rate: NonNegativeFloat | Schedule = 0.1
    gamma: Fraction = 0.9
    clip: Limit | None = None
    n_step: PositiveInt = 1
    odd: Annotated[float, Range(-1.0, 0.5)] = 0.0


HINTS = typing.get_type_hints(Learner, include_extras=True)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("rate", 0.0, None),
        ("rate", [[0, 1.0], [10, 0.0]], None),
        ("rate", -1e-9, "a number of at least 0 or a schedule [[timestep, value], ...] with increasing timesteps"),
        ("rate", [[0, 1.0], [10, -1.0]], "values of at least 0"),
        ("rate", math.inf, "a number of at least 0 or a schedule [[timestep, value], ...] with increasing timesteps"),
        ("gamma", 1.0, None),
        ("gamma", 1.01, "a number between 0 and 1"),
        ("gamma", None, "a value, not None"),
        ("clip", None, None),
        ("clip", math.inf, None),
        ("clip", -math.inf, "a number of at least 0"),
        ("n_step", 1, None),
        ("n_step", 0, "a whole number of at least 1"),
        ("n_step", 1.0, "a whole number of at least 1"),
        ("n_step", True, "a whole number of at least 1"),
        ("odd", -1.0, None),
        ("odd", 0.6, "a number between -1 and 0.5"),
    ],
)
def test_values_are_held_to_the_range_of_their_field(name, value, expected):
    assert check_field(HINTS[name], value) == expected


def test_a_range_changes_nothing_of_what_is_traced():
    assert jax.tree.leaves(Learner()) == [0.1, 0.9, 0.0]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_number_of_an_algorithm_has_a_range_that_its_default_is_in(name):
    """A new hyperparameter cannot be forgotten: floats and integers say what they may be, or that all is well."""
    config = get_config_class(name)()
    hints = config._agent_hints()
    free = {"entropy_coeff", "offset", "target_entropy", "target_return", "v_min", "v_max"}  # of either sign
    for field in config.hyperparameters():
        assert check_field(hints[field], config[field]) is None, field
        numeric = any(kind in str(hints[field]) for kind in ("float", "int"))
        assert not numeric or "Range(" in str(hints[field]) or field in free, f"{field}: {hints[field]}"
