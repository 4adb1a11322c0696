"""Users and documents with features of their own, as RLlib's `ParametricRecSys`."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Env, Key, Step, Tree, hyper
from athlete.env.games.recommenders.slates import observation_space, response, taken
from athlete.spaces import Box, Dict, MultiDiscrete


class ParametricState(NamedTuple):
    user: Array  # [embedding_size]
    documents: Array  # [num_docs_to_select_from, embedding_size]
    budget: Array  # clicks that are left
    response: Tree


@hyper
class ParametricRecSys(Env):
    """A document is worth user' document to a user; both have `embedding_size` numbers, uniform in [-1, 1].

    The user takes one of the slate with a probability proportional to the exponential of what it is worth, or none,
    which is worth 0. The reward of a click is 1 minus what the best candidate is worth more. An episode ends after
    `user_time_budget` clicks. Documents and users are new ones each time, or from a number that is drawn once from
    `db_seed`. Of slates of one, `info["regret"]` is what the best document would have been paid more on average.
    """

    embedding_size: int = 20
    num_docs_to_select_from: int = 10
    slate_size: int = 1
    num_docs_in_db: int | None = None
    num_users_in_db: int | None = None
    user_time_budget: float = 60.0  # clicks
    db_seed: int = 0

    def __post_init__(self) -> None:
        if self.num_docs_in_db is not None and self.num_docs_in_db < self.num_docs_to_select_from:
            raise ValueError(
                f"ParametricRecSys: num_docs_in_db={self.num_docs_in_db} has fewer documents than "
                f"num_docs_to_select_from={self.num_docs_to_select_from}"
            )

    @property
    def info_metrics(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("regret",) if self.slate_size == 1 else ()

    @property
    def observation_space(self) -> Dict:
        user = Box(-1.0, 1.0, (self.embedding_size,))
        doc = Box(-1.0, 1.0, (self.num_docs_to_select_from, self.embedding_size))
        return observation_space(user, doc, self.slate_size, "engagement")

    @property
    def action_space(self) -> MultiDiscrete:
        return MultiDiscrete((self.num_docs_to_select_from,) * self.slate_size)

    def reset(self, key: Key) -> tuple[ParametricState, Tree]:
        user_key, documents_key = jax.random.split(key)
        user = self._drawn(user_key, 1, self.num_users_in_db, self.db_seed)[0]
        seen = response(jnp.int32(self.slate_size), self.slate_size, "engagement", jnp.zeros(()))
        state = ParametricState(user, self._documents(documents_key), jnp.float32(self.user_time_budget), seen)
        return state, _shown(state)

    def step(self, state: ParametricState, action: Array, key: Key) -> tuple[ParametricState, Step]:
        choice_key, documents_key = jax.random.split(key)
        worth = state.documents @ state.user
        place = taken(jnp.exp(worth[action]), jnp.float32(1.0), choice_key)
        clicked = place < self.slate_size
        regret = jnp.max(worth) - worth[action[jnp.minimum(place, self.slate_size - 1)]]
        reward = jnp.where(clicked, 1.0 - regret, 0.0)
        seen = response(place, self.slate_size, "engagement", reward)
        budget = state.budget - clicked
        paid = jax.nn.sigmoid(worth) * (1.0 - (jnp.max(worth) - worth))  # on average, for a slate of one
        info = {"regret": jnp.max(paid) - paid[action[0]]} if self.slate_size == 1 else {}
        state = ParametricState(state.user, self._documents(documents_key), budget, seen)
        return state, Step(_shown(state), reward, budget <= 0.0, jnp.asarray(False), info)

    def _documents(self, key: Key) -> Array:
        return self._drawn(key, self.num_docs_to_select_from, self.num_docs_in_db, self.db_seed + 1)

    def _drawn(self, key: Key, number: int, known: int | None, seed: int) -> Array:
        """So many different ones of those that are `known`, or new ones, `[number, embedding_size]`."""
        if known is None:
            return jax.random.uniform(key, (number, self.embedding_size), minval=-1.0)
        database = np.random.default_rng(seed).uniform(-1, 1, (known, self.embedding_size)).astype(np.float32)
        return jnp.asarray(database)[jax.lax.top_k(jax.random.uniform(key, (known,)), number)[1]]


def _shown(state: ParametricState) -> Tree:
    return {"user": state.user, "doc": state.documents, "response": state.response}
