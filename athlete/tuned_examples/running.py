"""Finding the tuned examples, training them over seeds, and judging what they reached."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from athlete import tune
from athlete.record.results import flatten
from athlete.tuned_examples.experiment_file import Experiment, read_experiments

EVALUATION_EPISODES = 20
FINAL_EVALUATION = "evaluation/episode_reward_mean"


class Outcome(NamedTuple):
    """One seed of an example, trained to its stop. `results` are the last training result, flat, with the mean return
    of the final greedy evaluation as `evaluation/episode_reward_mean`.
    """

    seed: int
    results: dict[str, Any]
    checkpoint: str
    folder: Path


class Verdict(NamedTuple):
    """A criterion over all seeds: their interquartile mean (of fewer than four the mean) against the threshold, the
    worst seed against the floor.
    """

    result: str
    threshold: float
    statistic: str  # "interquartile mean" or "mean"
    value: float
    floor: float | None
    worst: float

    @property
    def met(self) -> bool:
        return self.value >= self.threshold and (self.floor is None or self.worst >= self.floor)

    def __str__(self) -> str:
        floor = "" if self.floor is None else f", floor {self.floor:g}"
        return (
            f"{self.result}: {self.statistic} {self.value:.6g} (threshold {self.threshold:g}), "
            f"worst seed {self.worst:.6g}{floor}: {'met' if self.met else 'NOT met'}"
        )


def _files() -> dict[str, Path]:
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*/*.yaml"))}


def names() -> list[str]:
    """The names of all tuned examples, sorted."""
    return sorted(_files())


def path_of(name: str) -> Path:
    """The file of an example. Raises ValueError with the nearest name."""
    files = _files()
    if name not in files:
        near = difflib.get_close_matches(name.lower(), files, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(files)}"
        raise ValueError(f"there is no tuned example {name!r}; {hint}")
    return files[name]


def load(name: str) -> Experiment:
    """A tuned example by its name, such as `"cartpole-ppo"`. Raises ValueError with the nearest name."""
    (experiment,) = read_experiments(path_of(name))
    return experiment


def train(experiment: Experiment, seeds: Iterable[int], **settings: Any) -> list[Outcome]:
    """Train an experiment once a seed, as its file says, and evaluate each result greedily.

    The final evaluation takes 20 episodes, or as many as the file's `evaluation_duration` says. `settings` go to
    `tune.run` before the file's. Fewer outcomes than seeds come back if Ctrl-C ended the run.
    """
    config = {**experiment.config, "seed": tune.grid_search(list(seeds))}
    arguments = {"checkpoint_at_end": True, **experiment.settings, "name": experiment.name, **settings}
    analysis = tune.run(experiment.run, config=config, stop=experiment.stop, **arguments)
    return [_outcome(trial, experiment) for trial in analysis.trials if trial.status == "TERMINATED"]


def _outcome(trial: Any, experiment: Experiment) -> Outcome:
    from athlete.algorithm import Algorithm

    duration = experiment.config.get("evaluation_duration", EVALUATION_EPISODES)
    episodes = EVALUATION_EPISODES if duration == "auto" else duration
    with Algorithm.from_checkpoint(trial.checkpoint) as algorithm:
        evaluation = algorithm.evaluate(episodes=episodes)
    results = {**flatten(trial.last_result), **flatten(evaluation)}
    return Outcome(trial.config["seed"], results, trial.checkpoint, trial.folder)


def judge(experiment: Experiment, outcomes: Sequence[Outcome]) -> list[Verdict]:
    """Each of an example's criteria against its seeds. Raises ValueError where there is nothing to judge by."""
    from athlete.ops.statistics import summarize

    if not experiment.pass_criteria or not outcomes:
        what = "pass_criteria in its file" if not experiment.pass_criteria else "seed trained to its end"
        raise ValueError(f"{experiment.name}: there is no {what}, so nothing can be said about its threshold")
    verdicts = []
    for result, threshold in experiment.pass_criteria.items():
        reached = summarize([float(outcome.results[result]) for outcome in outcomes])
        floor = experiment.floor.get(result)
        verdicts.append(Verdict(result, threshold, reached.statistic, reached.value, floor, reached.worst))
    return verdicts


def run_example(name: str, seeds: Iterable[int] = (0,), **settings: Any) -> list[float]:
    """The mean return of the final greedy evaluation of each seed; `settings` go to `tune.run`."""
    outcomes = train(load(name), seeds, **{"verbose": 0, **settings})
    return [float(outcome.results[FINAL_EVALUATION]) for outcome in outcomes]
