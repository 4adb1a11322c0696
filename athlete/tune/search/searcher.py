"""What a searcher is, the one that draws at random or goes through grids, and one that holds another back."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from athlete.record.names import nearest
from athlete.tune.space import Path, find, fixed, path_name, variants


class BasicVariantGenerator:
    """The default: distributions are drawn at random and grids gone through, all before the first trial begins.

    `points_to_evaluate` are the first samples, `[{"lr": 1e-3, "model/width": 64}]`; what a point leaves out is drawn.
    `random_state` is the seed of the draws, in place of `tune.run(seed=)`. At most `max_concurrent` trials train at the
    same time (0: as many as there are): a scheduler that compares trials in turn in one process then has stopped the
    first before the last begin.
    """

    def __init__(
        self,
        points_to_evaluate: Sequence[Mapping[str, Any]] | None = None,
        random_state: int | None = None,
        max_concurrent: int = 0,
    ):
        if not isinstance(max_concurrent, int) or max_concurrent < 0:
            raise ValueError(
                f"BasicVariantGenerator(max_concurrent={max_concurrent!r}): a whole number, 0 for no limit"
            )
        self.points_to_evaluate, self.random_state = list(points_to_evaluate or ()), random_state
        self.max_concurrent = max_concurrent

    def variants(self, config: Mapping[str, Any], num_samples: int, seed: int) -> Iterator[dict[Path, Any]]:
        """What each trial puts into the config."""
        points = [point_paths(type(self).__name__, config, point) for point in self.points_to_evaluate[:num_samples]]
        order = [path for path, _ in find(config)]
        for index, point in enumerate(points):
            for picks in variants(fixed(config, point), 1, hash_of(seed, index)):
                found = point | picks
                yield {path: found[path] for path in order if path in found}
        if num_samples > len(points):
            yield from variants(config, num_samples - len(points), seed)


class Searcher:
    """Suggests one trial after another, and is told what came of each. Subclasses override the methods below.

    `metric` and `mode` default to those of `tune.run`, then to `episode_reward_mean` and `"max"`.
    """

    def __init__(self, metric: str | None = None, mode: str | None = None):
        if mode not in (None, "min", "max"):
            raise ValueError(f"{type(self).__name__}(mode={mode!r}): 'min' or 'max'")
        self.metric, self.mode = metric, mode

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: Mapping[str, Any], seed: int = 0
    ) -> None:
        """Before the first suggestion: what is searched. Raises ValueError for what cannot be."""
        for name, own, asked in (("metric", self.metric, metric), ("mode", self.mode, mode)):
            if own is not None and asked is not None and own != asked:
                raise ValueError(
                    f"tune.run({name}={asked!r}) and {type(self).__name__}({name}={own!r}) differ: give it once"
                )
        self.metric = self.metric or metric or "episode_reward_mean"
        self.mode = self.mode or mode or "max"

    def suggest(self, trial_id: str) -> dict[Path, Any] | None:
        """The values of the next trial, by their paths in the config; None to wait for one that is running."""
        raise NotImplementedError

    def on_trial_complete(self, trial_id: str, score: float | None) -> None:
        """What came of a suggestion: its metric, None where it failed or has none."""

    def resume(self, trials: Iterable[tuple[str, Mapping[Path, Any], float | None, bool]]) -> None:
        """After a resume the suggestions before it: trial_id, values, score, and whether it has ended."""


class ConcurrencyLimiter(Searcher):
    """Lets a searcher have at most `max_concurrent` suggestions that have not ended; `batch`: waits for all of them."""

    def __init__(self, searcher: Searcher, max_concurrent: int, batch: bool = False):
        if not isinstance(searcher, Searcher):
            other = "; BasicVariantGenerator has max_concurrent" if isinstance(searcher, BasicVariantGenerator) else ""
            raise TypeError(f"ConcurrencyLimiter({searcher!r}): give it a searcher such as OptunaSearch(){other}")
        if not isinstance(max_concurrent, int) or max_concurrent < 1:
            raise ValueError(f"ConcurrencyLimiter(max_concurrent={max_concurrent!r}): a whole number of at least 1")
        self.searcher, self.max_concurrent, self.batch = searcher, max_concurrent, batch
        self._live: set[str] = set()
        self._batch_is_full = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.searcher, name)

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: Mapping[str, Any], seed: int = 0
    ) -> None:
        self.searcher.set_search_properties(metric, mode, config, seed)

    def suggest(self, trial_id: str) -> dict[Path, Any] | None:
        if self._batch_is_full or len(self._live) >= self.max_concurrent:
            return None
        picks = self.searcher.suggest(trial_id)
        if picks is not None:
            self._live.add(trial_id)
            self._batch_is_full = self.batch and len(self._live) == self.max_concurrent
        return picks

    def on_trial_complete(self, trial_id: str, score: float | None) -> None:
        self.searcher.on_trial_complete(trial_id, score)
        self._live.discard(trial_id)
        self._batch_is_full = self._batch_is_full and bool(self._live)

    def resume(self, trials: Iterable[tuple[str, Mapping[Path, Any], float | None, bool]]) -> None:
        trials = list(trials)
        self._live = {trial_id for trial_id, _, _, has_ended in trials if not has_ended}
        self.searcher.resume(trials)


def point_paths(title: str, config: Mapping[str, Any], point: Mapping[str, Any]) -> dict[Path, Any]:
    """A point's values by path. Raises ValueError where it names what is not searched."""
    searched = {path_name(path): path for path, _ in find(config)}
    flat = dict(_flat(point, searched))
    for name in flat:
        if name not in searched:
            close = nearest(name, searched, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"searched are {', '.join(searched) or 'no values'}"
            raise ValueError(f"{title}(points_to_evaluate): {name!r} is not searched; {hint}")
    return {searched[name]: value for name, value in flat.items()}


def _flat(point: Mapping[str, Any], searched: Mapping[str, Path], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in point.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name not in searched:
            yield from _flat(value, searched, f"{name}/")
        else:
            yield name, value


def hash_of(seed: int, index: int) -> int:
    """The seed of one sample's draws."""
    return random.Random(f"{seed} {index}").getrandbits(32)
