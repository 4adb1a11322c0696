"""What a config may hold instead of a value: a grid to go through, or a distribution to draw from.

`variants` turns such a config into the configs of the trials: `num_samples` times the product of all grids. Draws come
from the standard library's generator, so a seed gives the same trials on every machine.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]  # keys and list positions from the config's top to a value


class Domain:
    """Something to draw a value from. Anywhere in a config, however deep, it stands for its draws."""

    def draw(self, generator: random.Random) -> Any:
        raise NotImplementedError

    def sample(self, size: int = 1, seed: int | None = None) -> Any:
        """One draw, or a list of `size` of them."""
        generator = random.Random(seed)
        return self.draw(generator) if size == 1 else [self.draw(generator) for _ in range(size)]


@dataclass(frozen=True)
class Float(Domain):
    """Real numbers between `lower` and `upper`, evenly or evenly in their logarithm, rounded to multiples of `q`."""

    lower: float
    upper: float
    log: bool = False
    q: float | None = None

    def draw(self, generator: random.Random) -> float:
        if self.log:
            value = math.exp(generator.uniform(math.log(self.lower), math.log(self.upper)))
        else:
            value = generator.uniform(self.lower, self.upper)
        return self.within(value)

    def within(self, value: float) -> float:
        """The nearest value of the range."""
        return float(min(max(_rounded(value, self.q), self.lower), self.upper))


@dataclass(frozen=True)
class Integer(Domain):
    """Integers from `lower` up to, not including, `upper`; with `q`, its multiples, `upper` included."""

    lower: int
    upper: int
    log: bool = False
    q: int | None = None

    def draw(self, generator: random.Random) -> int:
        if self.log:
            value = math.exp(generator.uniform(math.log(self.lower), math.log(self.last + 1)))
        else:
            value = generator.randint(self.lower, self.last)
        return self.within(math.floor(value))

    @property
    def last(self) -> int:
        """The largest value."""
        return self.upper if self.q else self.upper - 1

    def within(self, value: float) -> int:
        """The nearest value of the range."""
        return min(max(int(_rounded(round(value), self.q)), self.lower), self.last)


@dataclass(frozen=True)
class Normal(Domain):
    """Normally distributed real numbers, rounded to multiples of `q`."""

    mean: float = 0.0
    sd: float = 1.0
    q: float | None = None

    def draw(self, generator: random.Random) -> float:
        return _rounded(generator.gauss(self.mean, self.sd), self.q)


@dataclass(frozen=True)
class Categorical(Domain):
    """One of `categories`, each as likely as the others."""

    categories: tuple[Any, ...]

    def draw(self, generator: random.Random) -> Any:
        return self.categories[generator.randrange(len(self.categories))]


@dataclass(frozen=True)
class Function(Domain):
    """Whatever `function(spec)` returns; `spec.config` is the trial's config with all other draws in place."""

    function: Callable[[Any], Any]


def _rounded(value: float, q: float | None) -> float:
    """The multiple of `q` nearest to `value`, without the noise of floats: 0.3, not 0.30000000000000004."""
    return value if q is None else float(f"{round(value / q) * q:.12g}")


def _check_range(name: str, lower: float, upper: float, log: bool) -> None:
    if not lower < upper:
        raise ValueError(f"tune.{name}({lower}, {upper}): the first number must be below the second")
    if log and lower <= 0:
        raise ValueError(f"tune.{name}({lower}, {upper}): a logarithmic range must begin above 0")


def _check_step(name: str, q: float) -> None:
    if not q > 0:
        raise ValueError(f"tune.{name}(q={q}): the step q must be above 0")


def uniform(lower: float, upper: float) -> Float:
    """Real numbers from [lower, upper]."""
    _check_range("uniform", lower, upper, log=False)
    return Float(lower, upper)


def quniform(lower: float, upper: float, q: float) -> Float:
    """Multiples of `q` from [lower, upper]."""
    _check_range("quniform", lower, upper, log=False)
    _check_step("quniform", q)
    return Float(lower, upper, q=q)


def loguniform(lower: float, upper: float, base: float = 10) -> Float:
    """Real numbers from [lower, upper] whose logarithm is uniform; the result is the same for every `base`."""
    _check_range("loguniform", lower, upper, log=True)
    return Float(lower, upper, log=True)


def qloguniform(lower: float, upper: float, q: float, base: float = 10) -> Float:
    """As `loguniform`, rounded to multiples of `q`."""
    _check_range("qloguniform", lower, upper, log=True)
    _check_step("qloguniform", q)
    return Float(lower, upper, log=True, q=q)


def randint(lower: int, upper: int) -> Integer:
    """Integers from [lower, upper), as Python's `range`."""
    _check_range("randint", lower, upper, log=False)
    return Integer(lower, upper)


def qrandint(lower: int, upper: int, q: int = 1) -> Integer:
    """Multiples of `q` from [lower, upper], `upper` included."""
    _check_range("qrandint", lower, upper, log=False)
    _check_step("qrandint", q)
    return Integer(lower, upper, q=q)


def lograndint(lower: int, upper: int, base: float = 10) -> Integer:
    """Integers from [lower, upper), evenly in their logarithm."""
    _check_range("lograndint", lower, upper, log=True)
    return Integer(lower, upper, log=True)


def qlograndint(lower: int, upper: int, q: int, base: float = 10) -> Integer:
    """Multiples of `q` from [lower, upper], `upper` included, evenly in their logarithm."""
    _check_range("qlograndint", lower, upper, log=True)
    _check_step("qlograndint", q)
    return Integer(lower, upper, log=True, q=q)


def randn(mean: float = 0.0, sd: float = 1.0) -> Normal:
    """Normally distributed real numbers."""
    return Normal(mean, sd)


def qrandn(mean: float, sd: float, q: float) -> Normal:
    """Normally distributed real numbers, rounded to multiples of `q`."""
    _check_step("qrandn", q)
    return Normal(mean, sd, q)


def choice(categories: Sequence[Any]) -> Categorical:
    """One of a list's entries, drawn anew for each trial."""
    categories = tuple(categories)
    if not categories:
        raise ValueError("tune.choice([]): give at least one value to choose from")
    return Categorical(categories)


def sample_from(function: Callable[[Any], Any]) -> Function:
    """Whatever the function returns: `tune.sample_from(lambda spec: 2 * spec.config.lr)`.

    It is called once a trial with `spec`, whose `config` holds the other draws, by attribute or by key. Randomness of
    its own is the function's business: `seed` does not reach it.
    """
    if not callable(function):
        raise TypeError(f"tune.sample_from({function!r}): give a function of `spec`")
    return Function(function)


def grid_search(values: Sequence[Any]) -> dict[str, Any]:
    """Every value once: the trials are the product of all grids. In YAML `{grid_search: [a, b]}`."""
    return {"grid_search": list(values)}


def is_search(value: Any) -> bool:
    """Whether a config's value is not a value yet, but a grid or a distribution."""
    return isinstance(value, Domain) or _is_grid(value)


def _is_grid(value: Any) -> bool:
    return isinstance(value, Mapping) and "grid_search" in value


def _grid_values(value: Mapping[str, Any], path: Path) -> list[Any]:
    where = path_name(path)
    if len(value) > 1:
        others = ", ".join(repr(key) for key in value if key != "grid_search")
        raise ValueError(f"config {where}: 'grid_search' stands alone in its dictionary, found beside it {others}")
    values = value["grid_search"]
    if not isinstance(values, (list, tuple)) or not values:
        raise ValueError(f"config {where}: grid_search takes a list of at least one value, not {values!r}")
    return list(values)


def path_name(path: Path) -> str:
    """A path as users write it: `model/fcnet_hiddens`."""
    return "/".join(str(part) for part in path)


def find(config: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """All grids and distributions within a config, each with its path, in the config's order."""
    if is_search(config):
        yield path, config
    elif isinstance(config, Mapping):
        for key, value in config.items():
            yield from find(value, (*path, key))
    elif isinstance(config, (list, tuple)):
        for position, value in enumerate(config):
            yield from find(value, (*path, position))


def replace(config: Any, picks: Mapping[Path, Any], path: Path = ()) -> Any:
    """The config with the values at the given paths put in. Containers on the way are new, values are shared."""
    if path in picks:
        return picks[path]
    if isinstance(config, Mapping):
        return {key: replace(value, picks, (*path, key)) for key, value in config.items()}
    if type(config) in (list, tuple):
        return type(config)(replace(value, picks, (*path, i)) for i, value in enumerate(config))
    return config


def fixed(config: Mapping[str, Any], picks: Mapping[Path, Any]) -> dict[str, Any]:
    """The config with the values at the given paths put in; picks that are not there are passed over."""
    return dict(replace(config, picks))


def completed(config: Mapping[str, Any], picks: Mapping[Path, Any]) -> dict[Path, Any]:
    """The picks of a searcher, with those of the `sample_from` functions, which see them."""
    found = {**picks, **next(variants(fixed(config, picks), 1, 0))}
    return {path: found[path] for path, _ in find(config) if path in found}


def set_value(config: Mapping[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """The config with one value set, also where it had none. Dictionaries on the way are new."""
    head, rest = str(path[0]), path[1:]
    inner = config.get(head)
    new = set_value(inner if isinstance(inner, Mapping) else {}, rest, value) if rest else value
    return {**config, head: new}


def set_values(config: Mapping[str, Any], changes: Mapping[Path, Any]) -> dict[str, Any]:
    """The config with several values set."""
    changed = dict(config)
    for path, value in changes.items():
        changed = set_value(changed, path, value)
    return changed


def merged(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Dictionaries merge key by key, however deep; a search takes the place of what was there."""
    result = dict(config)
    for key, value in changes.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and not (_is_grid(old) or _is_grid(value)):
            value = merged(old, value)
        result[key] = value
    return result


def get_value(config: Any, path: Path, default: Any = None) -> Any:
    """The value at a path; `default` where the config has none there."""
    for key in path:
        if not isinstance(config, Mapping) or key not in config:
            return default
        config = config[key]
    return config


def extremes(place: Any) -> list[Any]:
    """The two ends of a range, or all categories; nothing of any other place, which has no ends."""
    if isinstance(place, Float):
        return [float(place.lower), float(place.upper)]
    if isinstance(place, Integer):
        return [place.lower, place.last]
    return list(place.categories) if isinstance(place, Categorical) else []


class _View:
    """A config by attribute and by key, for `sample_from`. Meeting a value that is still open raises `_Open`."""

    def __init__(self, values: Any):
        self._values = values

    def __getitem__(self, key: Any) -> Any:
        value = self._values[key]
        if is_search(value):
            raise _Open(key)
        return _View(value) if isinstance(value, Mapping) else value

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the config has no {name!r}; it has {sorted(map(str, self._values))}") from None

    def get(self, key: Any, default: Any = None) -> Any:
        return self[key] if key in self._values else default

    def __contains__(self, key: Any) -> bool:
        return key in self._values


class _Open(Exception):
    """A function of `sample_from` asked for a value that is itself still to be computed."""


def _call_functions(config: Any, functions: dict[Path, Function]) -> dict[Path, Any]:
    """The values of all `sample_from` entries, those that need others after these."""
    picks: dict[Path, Any] = {}
    waiting = dict(functions)
    while waiting:
        computed = {}
        for path, function in waiting.items():
            try:
                computed[path] = function.function(_View({"config": replace(config, picks)}))
            except _Open:
                continue
        if not computed:
            names = ", ".join(path_name(path) for path in waiting)
            raise ValueError(f"config {names}: these sample_from functions need each other's values")
        picks.update(computed)
        waiting = {path: function for path, function in waiting.items() if path not in computed}
    return picks


def _resolve(config: Any, generator: random.Random) -> Iterator[dict[Path, Any]]:
    """The picks of one sample: all combinations of the grids, the distributions drawn anew for each."""
    searches = dict(find(config))
    if not searches:
        yield {}
        return
    grids = {path: _grid_values(value, path) for path, value in searches.items() if _is_grid(value)}
    for combination in itertools.product(*grids.values()):
        picks: dict[Path, Any] = dict(zip(grids, combination, strict=True))
        for path, domain in searches.items():
            if isinstance(domain, Domain) and not isinstance(domain, Function):
                picks[path] = domain.draw(generator)
        functions = {path: value for path, value in searches.items() if isinstance(value, Function)}
        nested = dict(find(replace(config, picks)))
        if functions.keys() != nested.keys():  # a pick holds grids or distributions itself
            for inner in _resolve(replace(config, picks), generator):
                yield {path: replace(value, inner, path) for path, value in picks.items()} | inner
        else:
            yield picks | _call_functions(replace(config, picks), functions)


def variants(config: Mapping[str, Any], num_samples: int, seed: int) -> Iterator[dict[Path, Any]]:
    """What each trial puts into the config: `{path: value}`, `num_samples` times the product of the grids.

    The same config, number and seed give the same variants.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples={num_samples}: at least one sample is needed")
    generator = random.Random(seed)
    for _ in range(num_samples):
        for picks in _resolve(config, generator):
            order = [path for path, _ in find(config) if path in picks]
            yield {path: picks[path] for path in order}
