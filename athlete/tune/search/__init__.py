"""Searchers: where the values of a search come from, `tune.run(search_alg=OptunaSearch(...))`, Ray Tune's names."""

from typing import Any

from athlete.record.names import nearest
from athlete.tune.search.optuna import OptunaSearch
from athlete.tune.search.searcher import BasicVariantGenerator, ConcurrencyLimiter, Searcher

__all__ = ["BasicVariantGenerator", "ConcurrencyLimiter", "OptunaSearch", "Searcher", "create_searcher"]

_NAMES = ("variant_generator", "random", "optuna")


def create_searcher(search_alg: str, **settings: Any) -> Any:
    """A searcher by its name: `create_searcher("optuna", metric="loss", mode="min")`. ValueError for an unknown one."""
    name = search_alg.lower()
    if name in ("variant_generator", "random", "basicvariantgenerator", "fifo"):
        return BasicVariantGenerator(**settings)
    if name in ("optuna", "optunasearch"):
        return OptunaSearch(**settings)
    close = nearest(name, _NAMES, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(_NAMES)}"
    raise ValueError(f"there is no searcher {search_alg!r}: {hint}")


def find_searcher(search_alg: Any) -> Any:
    """What `tune.run(search_alg=...)` means: None, a name, or an object. Raises TypeError for anything else."""
    if search_alg is None:
        return BasicVariantGenerator()
    if isinstance(search_alg, str):
        return create_searcher(search_alg)
    if not isinstance(search_alg, Searcher | BasicVariantGenerator):
        raise TypeError(
            f"tune.run(search_alg={search_alg!r}): give a name such as 'optuna', or an object of athlete.tune.search"
        )
    return search_alg
