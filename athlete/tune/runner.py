"""The loop that makes trials happen: starts them, takes their results, stops, saves, records, shows.

All decisions are taken here, in the calling process, after each single result, wherever the trial runs.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import time
from dataclasses import dataclass, field
from typing import Any

from athlete.record.about import write_about
from athlete.record.errors import DamagedError
from athlete.record.files import named
from athlete.record.keeping import Checkpoint, checkpoint_name, checkpoint_score
from athlete.record.names import TuneError
from athlete.record.progress import ProgressReporter, brief, full
from athlete.record.recorder import Recorder
from athlete.record.results import cut_results, flatten, write_params
from athlete.record.stopper import Stopper
from athlete.record.tensorboard import step_of
from athlete.tune.callbacks import Callback
from athlete.tune.experiment import Experiment
from athlete.tune.interrupt import Interrupt
from athlete.tune.plan import Suggestions
from athlete.tune.ray_slots import Cluster, RayPool
from athlete.tune.schedulers import CONTINUE, PAUSE, STOP, FIFOScheduler, Release, TrialScheduler
from athlete.tune.trainable import config_dict, run_name, with_changes
from athlete.tune.trial import (
    ERROR,
    PAUSED,
    PENDING,
    RUNNING,
    TERMINATED,
    Trial,
    clear_leftovers,
    copy_checkpoint,
    drop_checkpoints,
    last_line,
    set_aside,
)
from athlete.tune.worker import LocalPool, LocalSlot, MappedPool, Outcome, Pool, ProcessPool, Slot

_STATE_SECONDS = 10.0
_WAIT_SECONDS = 0.2

logger = logging.getLogger("athlete.tune")


@dataclass(frozen=True)
class Settings:
    """How `tune.run` was asked to run its trials."""

    stopper: Stopper
    scheduler: TrialScheduler = field(default_factory=FIFOScheduler)
    suggestions: Suggestions | None = None  # where trials come one after another
    at_once: int = 0  # trials that train at the same time, wherever they do; 0: as many as there are
    checkpoint_freq: int = 0
    checkpoint_at_end: bool = False
    keep_checkpoints_num: int | None = None
    checkpoint_score_attr: str | None = None
    max_failures: int = 0
    fail_fast: bool | str = False
    max_concurrent_trials: int | None = None
    cluster: Cluster | None = None  # in which trials run
    mapped: bool = False  # all trials are one program
    checkpoint_seconds: float = math.inf  # between checkpoints, where there is no checkpoint_freq
    restore: str | None = None
    verbose: int = 1


@dataclass
class Running:
    """A trial in a slot. `command` is what the slot is at, "" if nothing."""

    trial: Trial
    slot: Slot
    record: Recorder
    command: str = ""
    began: float = 0.0
    saved_at: float = field(default_factory=time.monotonic)  # or when it began
    unsaved: bool = False  # it has trained since its last checkpoint
    copied: bool = False  # it is being made from another trial's state
    printed: float = -math.inf

    def submit(self, command: str, *arguments: Any) -> None:
        self.command, self.began = command, time.perf_counter()
        self.slot.submit(command, *arguments)


class Runner:
    """Runs an experiment's trials to their ends."""

    def __init__(
        self, experiment: Experiment, settings: Settings, reporter: ProgressReporter, callbacks: list[Callback]
    ):
        self.experiment, self.settings, self.reporter, self.callbacks = experiment, settings, reporter, callbacks
        self.trials = experiment.trials
        self.scheduler = settings.scheduler
        self.waiting = [trial for trial in self.trials if trial.status == PENDING]
        self.running: list[Running] = []
        self.interrupt = Interrupt(reporter.print_always)
        self.first_error: BaseException | None = None
        self._failed_fast = False
        self._events = 0
        self._last_state = -math.inf
        self._host = socket.gethostname()
        self._pool: Pool = LocalPool()

    def go(self) -> None:
        """Run until every trial has ended, the stopper or Ctrl-C ends the experiment; its `status` then tells which.

        Raises TuneError where going on makes no sense (a stop key that no result has), whatever a callback raises, and
        with `fail_fast="raise"` a trial's error. The folder is in order in every case. Call it within `self.interrupt`.
        """
        suggestions = self.settings.suggestions
        total = len(self.trials) if suggestions is None else suggestions.total
        for callback in self.callbacks:
            callback.setup(stop=self.settings.stopper, num_samples=total, total_num_samples=total)
        self._save_state()
        for trial in self.trials:  # after a resume some have ended
            known = self.scheduler.on_trial_add if trial.status == PENDING else self.scheduler.on_trial_end
            known(trial)
        processes, most = self.settings.max_concurrent_trials, self.settings.at_once or max(1, total)
        if self.settings.cluster is not None:
            self._pool = RayPool(self.settings.cluster, min(self.settings.cluster.size, max(1, total), most))
        elif self.settings.mapped:
            self._pool = MappedPool(total)
        elif processes is not None and processes > 1:
            self._pool = ProcessPool(min(processes, most), self.experiment.folder)
        elif processes is None and self.scheduler.compares:
            self._pool = LocalPool(min(total if suggestions is None else suggestions.at_once, most))
        try:
            self._loop()
            self._end_running()
        finally:
            self._close()

    def _loop(self) -> None:
        while True:
            if not self._ending():
                self._release_paused()
            while not self._ending() and self._pool.has_room() and (trial := self._next_trial()) is not None:
                slot = self._pool.free()
                assert slot is not None
                self._start(trial, slot)
            if not any(running.command for running in self.running):
                return
            for callback in self.callbacks:
                callback.on_step_begin(iteration=self._events, trials=self.trials)
            slot = self._pool.next(_WAIT_SECONDS)
            if slot is not None:
                self._take(slot.occupant)
                self._events += 1
            for callback in self.callbacks:
                callback.on_step_end(iteration=self._events, trials=self.trials)
            self._report()
            if time.monotonic() - self._last_state > _STATE_SECONDS:
                self._save_state()

    def _next_trial(self) -> Trial | None:
        """The trial to begin or to go on with: one that waits, else a new one that the searcher suggests."""
        if self.waiting:
            return self.waiting.pop(0)
        trial = self.settings.suggestions.next() if self.settings.suggestions else None
        if trial is not None:
            self.scheduler.on_trial_add(trial)
        return trial

    def _ended(self, trial: Trial) -> None:
        """Tell scheduler and searcher that a trial has stopped or failed."""
        self.scheduler.on_trial_end(trial)
        if self.settings.suggestions is not None:
            self.settings.suggestions.ended(trial)

    def _ending(self) -> bool:
        """Whether no iteration is begun any more."""
        return self.interrupt.requested or self._failed_fast or self.settings.stopper.stop_all()

    def _end_running(self) -> None:
        """What still runs when the loop ends: complete if the stopper ended it all, else saved for a resume."""
        for running in list(self.running):
            if self.settings.stopper.stop_all():
                self._complete(running)
            else:
                self._pause(running)

    def _close(self) -> None:
        """Leave everything in order: what fails, as on a full disk, keeps nothing else from it."""
        with contextlib.ExitStack() as last_first:
            for callback in reversed(self.callbacks):
                last_first.callback(callback.on_experiment_end, trials=self.trials)
            last_first.callback(self.reporter.close)
            last_first.callback(self._report, done=True)
            last_first.callback(self._pool.close)
            last_first.callback(self._save_state)
            for running in self.running:
                running.trial.status = PAUSED
                last_first.callback(running.record.close)
            over = all(trial.status in (TERMINATED, ERROR) for trial in self.trials)
            if self.settings.suggestions is not None and not self.settings.stopper.stop_all():
                over = over and len(self.trials) == self.settings.suggestions.total
            self.experiment.status = TERMINATED if over else PAUSED

    # One trial, from its start to its end

    def _start(self, trial: Trial, slot: Slot) -> None:
        again = bool(trial.last_result)
        trial.status = RUNNING
        trial.folder.mkdir(parents=True, exist_ok=True)
        clear_leftovers(trial.folder)
        # what a lost process wrote after the checkpoint will come once more
        trial.last_result = cut_results(trial.folder, trial.checkpoints[-1].iteration if trial.checkpoints else 0)
        write_params(trial.folder, trial.config)
        write_about(trial.folder, run_name(self.experiment.run))
        record = Recorder(trial.folder, step_of(flatten(trial.last_result)) + 1 if again else None)
        record.compare_by(trial.evaluated_params or trial.config)
        running = Running(trial, slot, record)
        slot.occupant = running
        self.running.append(running)
        for callback in self.callbacks:
            callback.on_trial_start(iteration=self._events, trials=self.trials, trial=trial)
        config = self.experiment.configs[trial.trial_id]
        running.submit("make", self.experiment.run, config, trial.checkpoint or self.settings.restore)

    def _take(self, running: Running) -> None:
        """Deal with what came of the command that a trial's slot was given."""
        outcome = running.slot.take()
        seconds = time.perf_counter() - running.began
        command, running.command = running.command, ""
        if outcome.trace and command == "make" and running.trial.checkpoint and _is_damage(outcome.trace):
            self._fall_back(running, outcome)
        elif outcome.trace:
            self._fail(running, outcome)
        elif command == "make":
            self._made(running)
        elif outcome.value is None:
            self._complete(running)
        else:
            self._result(running, outcome.value, seconds)

    def _made(self, running: Running) -> None:
        trial = running.trial
        if trial.checkpoint:
            for callback in self.callbacks:
                callback.on_trial_restore(iteration=self._events, trials=self.trials, trial=trial)
        if running.copied:  # an older checkpoint of its own is no way back
            running.copied, running.unsaved = False, True
            if trial.checkpoints and not self._save(running):
                return
        if self._ending():
            return
        seen = trial.last_result if trial.iteration else None  # before a resume
        self._go_on(running, self.scheduler.on_trial_result(trial, seen) if seen else CONTINUE)

    def _go_on(self, running: Running, decision: str) -> None:
        """What the scheduler has decided after a result."""
        if decision == STOP:
            self._complete(running)
        elif decision == PAUSE:
            self._wait(running)
        elif not self._ending():
            running.submit("train")

    def _wait(self, running: Running) -> None:
        """The trial waits for its scheduler: in its slot while nobody else needs that, else as a checkpoint."""
        if not self.waiting or self._pool.has_room():
            return
        trial = running.trial
        if running.unsaved and not self._save(running):
            return
        if trial.checkpoint is None:
            raise TuneError(
                f"{trial.name} is to wait for other trials, and has no checkpoint to go on from: give it save() and "
                "restore(), or a max_concurrent_trials of at least the number of trials"
            )
        self._release(running, PAUSED)

    def _result(self, running: Running, reported: dict[str, Any], seconds: float) -> None:
        trial, settings = running.trial, self.settings
        result = self._filled(trial, reported, seconds)
        running.unsaved = True
        decision = CONTINUE
        try:
            result["done"] = settings.stopper(trial.trial_id, result) or bool(reported.get("done"))
            decision = self.scheduler.on_trial_result(trial, result)
            result["done"] = result["done"] or decision == STOP
        finally:  # a stop that raises still leaves the result on record
            trial.last_result = result
            running.record.write(result)
        checkpoint_score(settings.checkpoint_score_attr, result)  # a wrong name is an error now, not when Ctrl-C saves
        for callback in self.callbacks:
            callback.on_trial_result(iteration=self._events, trials=self.trials, trial=trial, result=result)
        self._print(running, result)
        due = settings.checkpoint_freq > 0 and trial.iteration % settings.checkpoint_freq == 0
        due = due or time.monotonic() - running.saved_at > settings.checkpoint_seconds
        if (due or result.get("should_checkpoint")) and not self._save(running):
            return
        self._go_on(running, STOP if result["done"] else decision)

    def _filled(self, trial: Trial, reported: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The result with what every result has, where the trainable does not count it itself."""
        return {
            "training_iteration": trial.iteration + 1,
            "time_this_iter_s": seconds,
            "time_total_s": float(trial.last_result.get("time_total_s", 0.0)) + seconds,
            "timestamp": int(time.time()),
            "date": reported.get("date") or time.strftime("%Y-%m-%d_%H-%M-%S"),
            "hostname": self._host,
            **reported,
            "done": False,
            "trial_id": trial.trial_id,
            "experiment_tag": trial.experiment_tag,
        }

    def _save(self, running: Running) -> bool:
        """Save a checkpoint. False if the trainable failed at it, which ends the trial."""
        trial = running.trial
        running.record.flush()
        score = checkpoint_score(self.settings.checkpoint_score_attr, trial.last_result)
        running.slot.submit("save", str(trial.folder / checkpoint_name(trial.iteration)))
        outcome = running.slot.take()
        if outcome.trace:
            self._fail(running, outcome)
            return False
        running.unsaved, running.saved_at = False, time.monotonic()
        if outcome.value is None:  # the trainable has nothing to save
            return True
        checkpoint = Checkpoint(str(outcome.value), trial.iteration, score)
        trial.checkpoints = [old for old in trial.checkpoints if old.path != checkpoint.path] + [checkpoint]
        one = 1 if self.settings.checkpoint_seconds < math.inf else None
        drop_checkpoints(trial, self.settings.keep_checkpoints_num or one)
        if self.scheduler.compares:  # what it knows is never older than what trials go on from
            self._save_state()
        for callback in self.callbacks:
            callback.on_trial_save(iteration=self._events, trials=self.trials, trial=trial)
            callback.on_checkpoint(iteration=self._events, trials=self.trials, trial=trial, checkpoint=checkpoint)
        return True

    def _complete(self, running: Running) -> None:
        if self.settings.checkpoint_at_end and running.unsaved and not self._save(running):
            return
        self._release(running, TERMINATED)
        self._ended(running.trial)
        for callback in self.callbacks:
            callback.on_trial_complete(iteration=self._events, trials=self.trials, trial=running.trial)

    def _pause(self, running: Running) -> None:
        if running.unsaved and not self._save(running):
            return
        self._release(running, PAUSED)

    def _release(self, running: Running, status: str) -> None:
        """The trial leaves its slot in good order."""
        running.trial.status = status
        running.record.close()
        running.slot.submit("stop")
        outcome = running.slot.take()
        if outcome.trace:
            logger.warning("%s: stop() failed\n%s", running.trial.name, outcome.trace)
            self._pool.drop(running.slot)
        running.slot.occupant = None
        self.running.remove(running)
        self._save_state()

    # What the scheduler decides of trials that wait for it

    def _release_paused(self) -> None:
        """Let the paused trials go on that the scheduler releases: copies first, so that donors are as they were."""
        for release in self.scheduler.release():
            trial = self._trial(release.trial_id)
            running = self._held(trial)
            if release.stops:
                self._stop_paused(trial, running)
            elif release.donor is not None:
                self._copy(trial, release)
            elif running is not None:
                running.submit("train")
            elif trial not in self.waiting and trial.status == PAUSED:
                self.waiting.append(trial)

    def _trial(self, trial_id: str | None) -> Trial:
        return next(trial for trial in self.trials if trial.trial_id == trial_id)

    def _held(self, trial: Trial) -> Running | None:
        """A trial's slot, where it has one and waits there."""
        return next((running for running in self.running if running.trial is trial and not running.command), None)

    def _stop_paused(self, trial: Trial, running: Running | None) -> None:
        if running is not None:
            self._complete(running)
            return
        trial.status = TERMINATED
        self._ended(trial)
        self._save_state()
        for callback in self.callbacks:
            callback.on_trial_complete(iteration=self._events, trials=self.trials, trial=trial)

    def _copy(self, trial: Trial, release: Release) -> None:
        """A trial goes on from another's state with a changed config: in memory where both are here, else from a copy
        of the other's checkpoint, which it then has for its own.
        """
        donor = self._trial(release.donor)
        running, lender = self._held(trial), self._held(donor)
        trial.changes = dict(release.changes or {})
        config = with_changes(self.experiment.run, self.experiment.configs[trial.trial_id], trial.changes)
        self.experiment.configs[trial.trial_id], trial.config = config, config_dict(config)
        lent = _lent(lender) if donor.iteration == trial.iteration else None
        if running is not None and lent is not None:
            write_params(trial.folder, trial.config)
            running.copied = True
            running.submit("make", self.experiment.run, config, lent)
            self._take(running)  # now, before the donor trains on
            return
        if lender is not None and lender.unsaved and not self._save(lender):
            raise TuneError(f"{trial.name} cannot go on from {donor.name}, whose checkpoint failed")
        if donor.checkpoint is None:
            raise TuneError(
                f"{trial.name} cannot go on from {donor.name}, which saves no checkpoint: give it save() and restore()"
            )
        if running is not None:
            running.unsaved = False
            self._release(running, PAUSED)
        copy_checkpoint(donor, trial)
        self.waiting.insert(0, trial)
        self._save_state()

    def _fall_back(self, running: Running, outcome: Outcome) -> None:
        """The newest checkpoint is damaged: once more from the one before, which is no failure of the trial's."""
        trial = running.trial
        running.record.close()
        self._pool.drop(running.slot)
        self.running.remove(running)
        aside = set_aside(trial)
        where = f"from {trial.checkpoint}" if trial.checkpoint else "from its beginning"
        reason = last_line(outcome.trace).partition(": ")[2]
        self.reporter.print(f"{trial.name}: {reason}. It is now {aside.name}; the trial goes on {where}")
        trial.status = PENDING
        self.waiting.insert(0, trial)

    def _fail(self, running: Running, outcome: Outcome) -> None:
        trial, settings = running.trial, self.settings
        trial.failures += 1
        self.first_error = self.first_error or outcome.error
        running.record.close()
        with named(trial.folder / "error.txt"), (trial.folder / "error.txt").open("a", encoding="utf-8") as file:
            file.write(f"Failure {trial.failures}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n{outcome.trace}\n")
        self._pool.drop(running.slot)
        self.running.remove(running)
        if settings.fail_fast == "raise" and outcome.error is not None:
            trial.status = ERROR
            raise outcome.error
        if settings.max_failures < 0 or trial.failures <= settings.max_failures:
            where = f"from {trial.checkpoint}" if trial.checkpoint else "from its beginning"
            self.reporter.print(f"{trial.name} failed ({last_line(outcome.trace)}); once more {where}")
            trial.status = PENDING
            self.waiting.insert(0, trial)
            return
        trial.status = ERROR
        self._ended(trial)
        self._failed_fast = self._failed_fast or bool(settings.fail_fast)
        self._save_state()
        for callback in self.callbacks:
            callback.on_trial_error(iteration=self._events, trials=self.trials, trial=trial)

    # What is shown and kept

    def _print(self, running: Running, result: dict[str, Any]) -> None:
        """`verbose` 2 and 3: the result itself; of a fast trial only what one can read."""
        now = time.monotonic()
        if self.settings.verbose < 2 or (now - running.printed < self.reporter.seconds and not result["done"]):
            return
        running.printed = now
        text = brief if self.settings.verbose == 2 else full
        self.reporter.print(text(running.trial.name, result))

    def _report(self, done: bool = False) -> None:
        if not self.reporter.should_report(self.trials, done):
            return
        for trial in self.trials:
            if trial.last_result and trial.status in (RUNNING, PAUSED):
                trial.progress = self.settings.stopper.progress(trial.trial_id, trial.last_result)
            elif trial.status == TERMINATED:
                trial.progress = 1.0
        self.reporter.report(self.trials, done)

    def _save_state(self) -> None:
        self.experiment.save()
        self._last_state = time.monotonic()


def _lent(lender: Running | None) -> Any:
    """The trainable in a slot, where another trial can go on from it without a file; else None."""
    if lender is None or not isinstance(lender.slot, LocalSlot) or not hasattr(lender.slot.trainable, "take_over"):
        return None
    return lender.slot.trainable


def _is_damage(trace: str) -> bool:
    """Whether a traceback, which may come from another process, ends in a DamagedError."""
    return last_line(trace).startswith(f"{DamagedError.__module__}.{DamagedError.__qualname__}: ")
