"""Tuned examples: an experiment file for each algorithm and environment, with what it must reach.

from athlete import tuned_examples
tuned_examples.names()                                  # ["acrobot-ppo", "cartpole-ppo", ...]
tuned_examples.load("cartpole-ppo").config
tuned_examples.run_example("cartpole-ppo", seeds=[0])   # [500.0]
"""

from athlete.tuned_examples.experiment_file import Experiment, read_experiments
from athlete.tuned_examples.running import (
    FINAL_EVALUATION,
    Outcome,
    Verdict,
    judge,
    load,
    names,
    path_of,
    run_example,
    train,
)

__all__ = [
    "FINAL_EVALUATION",
    "Experiment",
    "Outcome",
    "Verdict",
    "judge",
    "load",
    "names",
    "path_of",
    "read_experiments",
    "run_example",
    "train",
]
