"""Hyperparameters that change in the course of a training."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax.numpy as jnp

from athlete.core import Array, hyper


@hyper
class Schedule:
    """Piecewise linear in the progress of the training, constant before the first point and after the last.

    `at` are increasing points of progress in [0, 1], `values` the values there. Both are traced: a sweep over
    them shares one program.
    """

    at: tuple[float, ...]
    values: tuple[float, ...]

    def __call__(self, progress: Array) -> Array:
        """The value at `progress`, a scalar. A sum of ramps: no search, so it compiles to one fusion."""
        value = jnp.asarray(self.values[0], jnp.float32)
        for i in range(len(self.at) - 1):
            span = self.at[i + 1] - self.at[i]
            ramp = jnp.clip((progress - self.at[i]) / span, 0.0, 1.0)
            value = value + (self.values[i + 1] - self.values[i]) * ramp
        return value


def value_at(number: float | Schedule, progress: Array) -> Array:
    """What `float | Schedule` is worth at `progress`."""
    return number(progress) if isinstance(number, Schedule) else jnp.asarray(number, jnp.float32)


def from_timesteps(points: Sequence[Sequence[float]], horizon: float) -> Schedule:
    """RLlib's `[[timestep, value], ...]` as a schedule of progress, where progress 1 is `horizon` timesteps.

    Raises ValueError where the timesteps do not increase.
    """
    times = [float(time) for time, _ in points]
    if any(later <= earlier for earlier, later in itertools.pairwise(times)):
        raise ValueError(f"a schedule's timesteps must increase, got {times}")
    return Schedule(tuple(time / horizon for time in times), tuple(float(value) for _, value in points))
