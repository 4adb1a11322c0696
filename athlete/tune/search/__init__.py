"""Searchers: where the values of a search come from, `tune.run(search_alg=OptunaSearch(...))`, Ray Tune's names."""

from athlete.tune.search.optuna import OptunaSearch
from athlete.tune.search.searcher import BasicVariantGenerator, ConcurrencyLimiter, Searcher, create_searcher

__all__ = ["BasicVariantGenerator", "ConcurrencyLimiter", "OptunaSearch", "Searcher", "create_searcher"]
