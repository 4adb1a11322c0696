"""Hooks into an experiment: subclass `Callback`, pass `tune.run(callbacks=[...])`.

They run in the process that called `tune.run`, between a trial's iterations: what they spend, training waits for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from athlete.tune.trial import Trial


class Callback:
    """Override what is needed. `iteration` counts the experiment's events, `trials` are all trials so far.

    Everything is passed by keyword; take `**info` to be safe against more in later versions.
    """

    def setup(
        self, stop: Any = None, num_samples: int | None = None, total_num_samples: int | None = None, **info: Any
    ):
        """Before the first trial."""

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Before each event (a trial built, a result come in) is waited for."""

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """After each event has been dealt with."""

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial is about to be built."""

    def on_trial_restore(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial has been built and goes on from a checkpoint."""

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """A result has come in and is recorded. What is written into `result` here is not."""

    def on_trial_save(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial has saved a checkpoint."""

    def on_checkpoint(self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: Any, **info: Any) -> None:
        """As `on_trial_save`, with the checkpoint: `path`, `iteration`, `score`."""

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial has reached its stop."""

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial has failed; its traceback is in `trial.error_file`."""

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """After the last trial, also when the experiment was interrupted."""


class LoggerCallback(Callback):
    """For callbacks that send results elsewhere: override the three methods, as with Ray's `LoggerCallback`.

    `log_trial_start` comes again where a trial goes on after a pause or a failure. When the experiment ends, also by
    Ctrl-C, every trial that has begun has had its `log_trial_end`.
    """

    def log_trial_start(self, trial: Trial) -> None:
        """A trial begins, or goes on."""

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """A result has come in."""

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """A trial has ended; it may be told again at the experiment's end."""

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self.log_trial_start(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        self.log_trial_result(iteration, trial, result)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self.log_trial_end(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self.log_trial_end(trial, failed=True)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        for trial in trials:
            self.log_trial_end(trial)
