"""What recommenders share: their spaces, what a user takes of a slate, and slates as numbers."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from athlete.core import Array, EnvWrapper, Key, Step, Tree, hyper
from athlete.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space

MOST_SPENT = 100.0  # in what is seen of a response


def observation_space(user: Box, doc: Box, slate_size: int, spent: str) -> Dict:
    """Of a user `[m]` and candidates `[n, d]`; `spent` is what the response calls what the user spent."""
    response = {"click": MultiBinary((slate_size,)), spent: Box(0.0, MOST_SPENT, (slate_size,))}
    return Dict({"user": user, "doc": doc, "response": Dict(response)})


def taken(weights: Array, nothing: Array, key: Key) -> Array:
    """Which place of a slate the user takes, with a probability proportional to its weight `[s]`; s is none of it."""
    everything = jnp.append(weights, nothing)
    return jax.random.categorical(key, jnp.log(everything))


def response(place: Array, slate_size: int, spent: str, amount: Array) -> dict[str, Array]:
    """What became of a slate whose `place` was taken (s: none), on which the user spent `amount`."""
    click = jnp.arange(slate_size) == place
    return {"click": click.astype(jnp.int8), spent: jnp.where(click, jnp.clip(amount, 0.0, MOST_SPENT), 0.0)}


@hyper
class NumberedSlates(EnvWrapper):
    """Slates as numbers, for algorithms of `Discrete` actions: (a, b, ...) of n candidates is a + n b + ..."""

    @property
    def info_metrics(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.env.info_metrics

    @property
    def action_space(self) -> Space:
        return Discrete(math.prod(self._counts()))

    def step(self, state: Tree, action: Array, key: Key) -> tuple[Tree, Step]:
        slate = []
        for count in self._counts():
            slate.append(action % count)
            action = action // count
        return self.env.step(state, jnp.stack(slate), key)

    def _counts(self) -> tuple[int, ...]:
        space = self.env.action_space
        assert isinstance(space, MultiDiscrete)
        return space.sizes


@hyper
class ArmsOfSlates(NumberedSlates):
    """Candidates as the arms of a bandit, whose contexts are `item` `[n, d]`.

    An arm is the first place of a slate; the others show candidate 0, as RLlib's numbers below n do.
    """

    @property
    def observation_space(self) -> Space:
        return Dict(_with_items(dict(self.env.observation_space.items)))  # type: ignore[attr-defined]

    @property
    def action_space(self) -> Space:
        return Discrete(self._counts()[0])

    def reset(self, key: Key) -> tuple[Tree, Tree]:
        state, obs = self.env.reset(key)
        return state, _with_items(obs)

    def step(self, state: Tree, action: Array, key: Key) -> tuple[Tree, Step]:
        state, step = super().step(state, action, key)
        return state, step._replace(obs=_with_items(step.obs))


def _with_items(parts: dict) -> dict:
    return {"item" if name == "doc" else name: part for name, part in parts.items()}
