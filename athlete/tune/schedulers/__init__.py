"""Which trials go on, which stop and which copy another: `tune.run(scheduler=ASHAScheduler(...))`, Ray Tune's names.

A scheduler sees every result in the process that called `tune.run`. It answers with CONTINUE, STOP or PAUSE; a paused
trial waits, in memory where that is possible, until `release` says how it goes on. What a scheduler knows is in
`experiment_state.json`, so that a resume goes on with the same rungs, brackets and populations.
"""

from typing import Any

from athlete.record.names import nearest
from athlete.tune.schedulers.bandits import PB2
from athlete.tune.schedulers.early_stopping import (
    ASHAScheduler,
    AsyncHyperBandScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
)
from athlete.tune.schedulers.population import PopulationBasedTraining
from athlete.tune.schedulers.scheduler import CONTINUE, PAUSE, STOP, FIFOScheduler, Release, TrialScheduler

__all__ = [
    "CONTINUE",
    "PAUSE",
    "PB2",
    "STOP",
    "ASHAScheduler",
    "AsyncHyperBandScheduler",
    "FIFOScheduler",
    "HyperBandScheduler",
    "MedianStoppingRule",
    "PopulationBasedTraining",
    "Release",
    "TrialScheduler",
    "create_scheduler",
    "find_scheduler",
]

SCHEDULERS: dict[str, type[TrialScheduler]] = {
    "fifo": FIFOScheduler,
    "asha": AsyncHyperBandScheduler,
    "async_hyperband": AsyncHyperBandScheduler,
    "asynchyperband": AsyncHyperBandScheduler,
    "hyperband": HyperBandScheduler,
    "median_stopping_rule": MedianStoppingRule,
    "medianstopping": MedianStoppingRule,
    "pbt": PopulationBasedTraining,
    "pb2": PB2,
}


def create_scheduler(scheduler: str, **settings: Any) -> TrialScheduler:
    """A scheduler by its name: `create_scheduler("asha", max_t=50)`. Raises ValueError for an unknown name."""
    kind = SCHEDULERS.get(scheduler.lower().removesuffix("scheduler"))
    if kind is None:
        close = nearest(scheduler.lower(), SCHEDULERS, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(SCHEDULERS)}"
        raise ValueError(f"there is no scheduler {scheduler!r}: {hint}")
    return kind(**settings)


def find_scheduler(scheduler: Any) -> TrialScheduler:
    """What `tune.run(scheduler=...)` means: None, a name, or an object. Raises TypeError for anything else."""
    if scheduler is None:
        return FIFOScheduler()
    if isinstance(scheduler, str):
        return create_scheduler(scheduler)
    if not isinstance(scheduler, TrialScheduler):
        raise TypeError(
            f"tune.run(scheduler={scheduler!r}): give a name such as 'asha', or an object of athlete.tune.schedulers"
        )
    return scheduler
