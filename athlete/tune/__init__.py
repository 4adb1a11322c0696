"""Experiments: `from athlete import tune`, then `tune.run("PPO", config=..., stop=...)`.

Nothing heavy is imported here: neither JAX nor pandas, rich or a TensorBoard writer.
"""

from typing import TYPE_CHECKING, Any

from athlete.env.registry import register_env
from athlete.record.names import TuneError
from athlete.record.progress import CLIReporter, JupyterNotebookReporter, ProgressReporter
from athlete.record.stopper import (
    CombinedStopper,
    ExperimentPlateauStopper,
    FunctionStopper,
    MaximumIterationStopper,
    NoopStopper,
    Stopper,
    TimeoutStopper,
    TrialPlateauStopper,
)
from athlete.tune.analysis import ExperimentAnalysis
from athlete.tune.callbacks import Callback, LoggerCallback
from athlete.tune.run import run, run_experiments
from athlete.tune.space import (
    choice,
    grid_search,
    lograndint,
    loguniform,
    qlograndint,
    qloguniform,
    qrandint,
    qrandn,
    quniform,
    randint,
    randn,
    sample_from,
    uniform,
)
from athlete.tune.trainable import ClassTrainable as Trainable
from athlete.tune.trainable import get_checkpoint, register_trainable, report, with_parameters
from athlete.tune.trial import Trial

if TYPE_CHECKING:
    from athlete.tune.tuner import CheckpointConfig, FailureConfig, Result, ResultGrid, RunConfig, TuneConfig, Tuner

__all__ = [
    "CLIReporter",
    "Callback",
    "CheckpointConfig",
    "CombinedStopper",
    "ExperimentAnalysis",
    "ExperimentPlateauStopper",
    "FailureConfig",
    "FunctionStopper",
    "JupyterNotebookReporter",
    "LoggerCallback",
    "MaximumIterationStopper",
    "NoopStopper",
    "ProgressReporter",
    "Result",
    "ResultGrid",
    "RunConfig",
    "Stopper",
    "TimeoutStopper",
    "Trainable",
    "Trial",
    "TrialPlateauStopper",
    "TuneConfig",
    "TuneError",
    "Tuner",
    "choice",
    "get_checkpoint",
    "grid_search",
    "lograndint",
    "loguniform",
    "qlograndint",
    "qloguniform",
    "qrandint",
    "qrandn",
    "quniform",
    "randint",
    "randn",
    "register_env",
    "register_trainable",
    "report",
    "run",
    "run_experiments",
    "sample_from",
    "uniform",
    "with_parameters",
]

_OF_TUNER = {"CheckpointConfig", "FailureConfig", "Result", "ResultGrid", "RunConfig", "TuneConfig", "Tuner"}


def __getattr__(name: str) -> Any:
    if name not in _OF_TUNER:
        raise AttributeError(f"module 'athlete.tune' has no {name!r}")
    from athlete.tune import tuner

    return getattr(tuner, name)
