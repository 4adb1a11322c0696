"""What a trial runs: anything with `train`, `save`, `restore` and `stop`, and how it comes from what users name.

`make_trainable` is the one place that knows algorithms. Everything else in `tune` sees the protocol `Trainable`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import queue
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from athlete.algorithms import get_config_class
from athlete.record.errors import DamagedError
from athlete.record.files import flush, flush_folder
from athlete.tune.space import Path as ConfigPath
from athlete.tune.space import path_name, replace, set_values

logger = logging.getLogger("athlete.tune")

_registered: dict[str, Any] = {}
_session = threading.local()


class Trainable(Protocol):
    """What `tune` needs of a training. `athlete.Algorithm` has it, and any class with these methods will do."""

    def train(self) -> dict[str, Any] | None:
        """One iteration: its result. `done: True` in it ends the trial, as does None in its place."""

    def save(self, checkpoint_dir: str) -> str | None:
        """Write a checkpoint into that folder and return where it is; None if there is nothing to save.

        Whole or not at all: write beside it and rename, as `tune.Trainable` does, since a resume takes the newest.
        """

    def restore(self, checkpoint_path: str) -> None:
        """Go on from a checkpoint."""

    def stop(self) -> None:
        """Release what is held: environments, processes, files."""


class ClassTrainable:
    """A base for trainables in Tune's style: subclasses (of `tune.Trainable`) override `setup` and `step`.

    With checkpoints also `save_checkpoint(folder)` and `load_checkpoint(folder)`; `cleanup` at the end.
    `self.iteration` counts the iterations done.
    """

    def __init__(self, config: dict[str, Any] | None = None):
        self.config = config or {}
        self.iteration = 0
        self.setup(self.config)

    def setup(self, config: dict[str, Any]) -> None:
        """Before the first step."""

    def step(self) -> dict[str, Any]:
        """One iteration: its result."""
        raise NotImplementedError

    def save_checkpoint(self, checkpoint_dir: str) -> Any:
        """Write all that `load_checkpoint` needs into the folder."""
        raise NotImplementedError(f"{type(self).__name__} has no save_checkpoint: give it one, or set no checkpoints")

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Read what `save_checkpoint` wrote."""
        raise NotImplementedError(f"{type(self).__name__} has no load_checkpoint")

    def cleanup(self) -> None:
        """After the last step."""

    def train(self) -> dict[str, Any]:
        result = self.step()
        self.iteration += 1
        return {"training_iteration": self.iteration, **result}

    def save(self, checkpoint_dir: str) -> str | None:
        if type(self).save_checkpoint is ClassTrainable.save_checkpoint:
            return None
        with _Beside(checkpoint_dir) as beside:
            self.save_checkpoint(str(beside))
            (beside / ".iteration").write_text(str(self.iteration))
        return checkpoint_dir

    def restore(self, checkpoint_path: str) -> None:
        count = Path(checkpoint_path) / ".iteration"
        if not count.is_file() or not count.read_text().isdigit():
            raise DamagedError(f"the checkpoint {checkpoint_path} is incomplete: it has no number in {count.name}")
        self.load_checkpoint(checkpoint_path)
        self.iteration = int(count.read_text())

    def stop(self) -> None:
        self.cleanup()


class _Beside:
    """A fresh folder beside its place, put there when the block ends well, so that no checkpoint is ever half."""

    def __init__(self, place: str | os.PathLike[str]):
        self.place = Path(place)
        self.beside = self.place.with_name(f".tmp-{self.place.name}")

    def __enter__(self) -> Path:
        shutil.rmtree(self.beside, ignore_errors=True)
        self.beside.mkdir(parents=True)
        return self.beside

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            for path in self.beside.rglob("*"):
                if path.is_file():
                    with path.open("r+b") as file:
                        flush(file)
            shutil.rmtree(self.place, ignore_errors=True)
            os.replace(self.beside, self.place)
            flush_folder(self.place.parent)
        else:
            shutil.rmtree(self.beside, ignore_errors=True)


class _Stopped(BaseException):
    """Unwinds a function trainable whose trial has been stopped; not an Exception, so that users do not catch it."""


class FunctionTrainable:
    """`function(config)` in a thread of its own, which waits inside every `tune.report` for the next `train`."""

    def __init__(self, function: Callable[[dict[str, Any]], Any], config: dict[str, Any]):
        self._turns: queue.Queue[str] = queue.Queue()
        self._reports: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._checkpoint: str | None = None
        self._restored: str | None = None
        self._thread: threading.Thread | None = None
        self._work = functools.partial(self._run, function, config)

    def _run(self, function: Callable[[dict[str, Any]], Any], config: dict[str, Any]) -> None:
        _session.trainable = self
        try:
            self._wait_for_turn()
            returned = function(config)
            self._reports.put(("done", returned if isinstance(returned, dict) else None))
        except _Stopped:
            pass
        except BaseException as error:
            self._reports.put(("error", error))

    def _wait_for_turn(self) -> None:
        if self._turns.get() == "stop":
            raise _Stopped

    def report(self, metrics: dict[str, Any], checkpoint: str | None) -> None:
        """Called in the function's thread: hand over a result and wait."""
        if checkpoint is not None:
            self._checkpoint = checkpoint
            metrics = {**metrics, "should_checkpoint": True}
        self._reports.put(("result", metrics))
        self._wait_for_turn()

    def train(self) -> dict[str, Any] | None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="trial", daemon=True)
            self._thread.start()
        self._turns.put("train")
        kind, value = self._next_report()
        if kind == "error":
            raise value
        if kind == "done":
            return None if value is None else {**value, "done": True}
        return value

    def _next_report(self) -> tuple[str, Any]:
        while True:
            try:
                return self._reports.get(timeout=1.0)  # with a timeout, so that Ctrl-C comes through on Windows too
            except queue.Empty:
                continue

    def save(self, checkpoint_dir: str) -> str | None:
        if self._checkpoint is None:
            return None
        with _Beside(checkpoint_dir) as beside:
            shutil.copytree(self._checkpoint, beside, dirs_exist_ok=True)
        self._checkpoint = checkpoint_dir  # the function's own folder may be gone by the next save
        return checkpoint_dir

    def restore(self, checkpoint_path: str) -> None:
        self._restored = self._checkpoint = checkpoint_path

    @property
    def restored(self) -> str | None:
        return self._restored

    def stop(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            self._turns.put("stop")
            self._thread.join(timeout=1.0)


def report(metrics: Mapping[str, Any] | None = None, *, checkpoint: Any = None, **more: Any) -> None:
    """Inside a function trainable: hand over a result, `tune.report(score=1.0)` or `tune.report({"score": 1.0})`.

    `checkpoint` is a folder with all that the function needs to go on from here; it is copied into the trial's folder
    and `tune.get_checkpoint()` gives it back after a resume. Raises RuntimeError outside a trial.
    """
    trainable = getattr(_session, "trainable", None)
    if trainable is None:
        raise RuntimeError(
            "tune.report() works inside a function that tune.run runs as a trial: tune.run(function, ...)"
        )
    folder = None if checkpoint is None else str(getattr(checkpoint, "path", checkpoint))
    trainable.report({**(metrics or {}), **more}, folder)


def get_checkpoint() -> str | None:
    """Inside a function trainable: the checkpoint folder to go on from, None at the beginning."""
    trainable = getattr(_session, "trainable", None)
    return None if trainable is None else trainable.restored


def with_parameters(function: Callable[..., Any], **parameters: Any) -> Callable[[dict[str, Any]], Any]:
    """The function trainable with more arguments filled in: large data, say, that does not belong in a config."""
    return functools.partial(function, **parameters)


def register_trainable(name: str, trainable: Any) -> None:
    """Make a class or function available as `tune.run(name)`."""
    _registered[name] = trainable


# From what users name to what runs


def find_run(run: Any, config: Any) -> tuple[Any, Any]:
    """What to run (a config class, a trainable class or a function) and the config that goes with it.

    Raises ValueError for an unknown name, TypeError for what cannot be run and for a config of another algorithm.
    """
    if is_config(run) and not isinstance(run, type):
        run, config = type(run), run
    if isinstance(run, type) and "config_class" in vars(run):
        run = vars(run)["config_class"]  # RLlib's PPO; a subclass of it runs itself
    if isinstance(run, str):
        run = _registered[run] if run in _registered else _algorithm(run)
    elif isinstance(run, type) and not hasattr(run, "train") and not is_config(run):
        run = _algorithm(run.__name__)
    if not callable(run):
        raise TypeError(f"tune.run({run!r}): give an algorithm's name, a config, a class with train(), or a function")
    if is_config(config):
        if not (isinstance(run, type) and isinstance(config, run)) and is_config(run):
            raise TypeError(
                f"tune.run({run_name(run)!r}, config={type(config).__name__}()): that is another algorithm's"
            )
    elif config is not None and not isinstance(config, Mapping):
        raise TypeError(f"tune.run(config={config!r}): give a dictionary or an AlgorithmConfig")
    return run, config if config is not None else {}


def _algorithm(name: str) -> Any:
    return get_config_class(name)


def is_config(value: Any) -> bool:
    """Whether a value is an `AlgorithmConfig` or a class of them, told by its methods: tune needs no more of it."""
    return all(hasattr(value, method) for method in ("build", "to_dict", "chosen", "validate"))


def run_name(run: Any) -> str:
    """How the trials of this are called: `PPO` for `PPOConfig`, else the class's or function's name."""
    while isinstance(run, functools.partial):
        run = run.func
    return str(getattr(run, "algorithm_name", None) or getattr(run, "__name__", type(run).__name__))


def config_dict(config: Any) -> dict[str, Any]:
    """A config as a dictionary, whichever kind it is."""
    return dict(config.to_dict() if is_config(config) else config)


def chosen(config: Any) -> dict[str, Any]:
    """What a config sets itself, without the defaults of its algorithm."""
    return dict(config.chosen() if is_config(config) else config)


def with_chosen(config: Any, values: Mapping[str, Any]) -> Any:
    """A config of the same kind that sets `values`."""
    return type(config).from_dict(values) if is_config(config) else dict(values)


def with_picks(run: Any, config: Any, picks: Mapping[ConfigPath, Any]) -> Any:
    """The config of one trial: the search's picks in their places. Raises what the algorithm's config raises."""
    if is_config(config):
        final = with_chosen(config, replace(chosen(config), picks))
    elif is_config(run):
        final = run().update_from_dict(replace(config, picks))
    else:
        return replace(config, picks)
    final.validate()
    return final


def with_changes(run: Any, final: Any, changes: Mapping[ConfigPath, Any]) -> Any:
    """The config of one trial with what its scheduler has changed since it began; `final` is what `with_picks` gave."""
    return with_picks(run, with_chosen(final, set_values(chosen(final), changes)), {})


def check_mutation(run: Any, config: Any, path: ConfigPath, values: Sequence[Any]) -> None:
    """Of a setting that a population mutates, `values` apart: whether one training can go on from another's state.

    Numbers never shape an algorithm's program. Other settings compile it anew for each value, which is said; where
    they also shape its arrays, ValueError is raised.
    """
    if not is_config(run) or all(isinstance(value, float) for value in values):
        return
    name = path_name(path)
    builds = [with_changes(run, config, {path: value}) for value in dict.fromkeys(values)]
    with contextlib.ExitStack() as built:
        first, *others = (built.enter_context(each.build()) for each in builds)
        for value, other in zip(values[1:], others, strict=True):
            if not other.fits(first):
                raise ValueError(
                    f"PopulationBasedTraining(hyperparam_mutations={{{name!r}: ...}}): {name} shapes the arrays, so "
                    f"that a trial of {value!r} cannot go on from one of {values[0]!r}; mutate others, and search "
                    "this one with tune.grid_search"
                )
    logger.warning("%s shapes the program: every new value of it compiles anew; numbers such as lr never do", name)


def make_trainable(run: Any, config: Any) -> Trainable:
    """The trainable of one trial, from what `find_run` and `with_picks` gave. The trial's folder has the results."""
    if isinstance(run, type) and not is_config(run):
        is_algorithm = hasattr(run, "config_class")  # a subclass of RLlib's PPO, or the like
        return run(with_chosen(config, {**chosen(config), "logdir": False}) if is_algorithm else config)
    if is_config(config):
        return config.build(logdir=False)
    return FunctionTrainable(run, config)


def evaluates(config: Mapping[str, Any]) -> bool:
    """Whether a training with this config will run evaluations."""
    return bool(config.get("evaluation_interval"))
