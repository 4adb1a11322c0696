"""Users and the documents that are shown to them, in slates: RecSim's environments as RLlib has them, compiled.

At each step there are some documents, the candidates, of which a slate is shown; the user takes one of it, or none.
Observations are a Dict: `user` `[m]`, what is seen of the user, `doc` `[n, d]`, the candidates, and `response`, what
became of the last slate: `click` `[s]`, and what the user spent on each place. An action is a slate: the numbers of s
candidates.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from athlete.env.registry import EnvContext, create

if TYPE_CHECKING:
    from athlete.core import Env

_ENVIRONMENTS = {
    "InterestEvolution-v0": ("interest_evolution", "InterestEvolution"),
    "LongTermSatisfaction-v0": ("long_term_satisfaction", "LongTermSatisfaction"),
    "ParametricRecSys-v0": ("parametric", "ParametricRecSys"),
}


def make_recommender(env_id: str, env_config: Mapping[str, Any] | None = None) -> Env:
    """The environment of an id, such as `"InterestEvolution-v0"`; `env_config` has its fields.

    RLlib's entries besides: `convert_to_discrete_action_space` makes slates numbers, `wrap_for_bandits` shows
    candidates as the items of a bandit; `seed` is passed over, since the algorithm's seed decides. Raises ValueError
    for an entry that is none.
    """
    from athlete.env.games.recommenders.slates import ArmsOfSlates, NumberedSlates

    module, name = _ENVIRONMENTS[env_id]
    fields = dict(env_config or {})
    numbered, arms = (fields.pop(word, False) for word in ("convert_to_discrete_action_space", "wrap_for_bandits"))
    fields.pop("seed", None)
    env = create(getattr(importlib.import_module(f"{__name__}.{module}"), name), EnvContext(fields))
    if arms:
        return ArmsOfSlates(env)
    return NumberedSlates(env) if numbered else env


def make_interest_evolution(**env_config: Any) -> Env:
    """RLlib's `InterestEvolutionRecSimEnv`."""
    return make_recommender("InterestEvolution-v0", env_config)


def make_long_term_satisfaction(**env_config: Any) -> Env:
    """RLlib's `LongTermSatisfactionRecSimEnv`."""
    return make_recommender("LongTermSatisfaction-v0", env_config)


def make_parametric(**env_config: Any) -> Env:
    """RLlib's `ParametricRecSys`."""
    return make_recommender("ParametricRecSys-v0", env_config)
