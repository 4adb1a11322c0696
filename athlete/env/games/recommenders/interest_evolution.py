"""RecSim's interest evolution (Ie et al. 2019, arXiv:1909.04847), as RLlib's `InterestEvolutionRecSimEnv` has it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Env, Key, Step, Tree, hyper
from athlete.env.games.recommenders.slates import observation_space, response, taken
from athlete.spaces import Box, Dict, MultiDiscrete

TOPICS = 20
# Videos of the first 14 topics are trash, and take time from the user; those of the last 6 are nutritious, and give it.
QUALITIES = np.concatenate([np.linspace(-3.0, 0.0, 14), np.linspace(0.0, 3.0, 6)]).astype(np.float32)
QUALITY_NOISE = 0.1
VIDEO_LENGTH = 4.0  # minutes
NO_CLICK_PENALTY = 0.5  # minutes
RETURNED = 0.9 / 3.4  # of the time that a video takes, for each unit of its quality
LEARNING_RATE = 0.3  # how far interest moves where there is none, either way


class InterestState(NamedTuple):
    interests: Array  # [TOPICS], in [-1, 1]
    budget: Array  # minutes that are left
    topics: Array  # int32 [n], of the candidates
    qualities: Array  # [n]
    response: Tree


@hyper
class InterestEvolution(Env):
    """A user with 200 minutes watches videos of 20 topics. The reward is the time watched.

    Of a slate the user takes a video with a probability proportional to 1 and the interest in its topic, or none, whose
    weight is 2. A video takes four minutes, of which its quality gives back a part or takes more; taking none costs
    half a minute. Interest in a topic that was watched grows or falls, more likely what it already is. Who shows what
    users like best now is paid less in the end than who shows what is good for them.
    """

    num_candidates: int = 10
    slate_size: int = 2
    resample_documents: bool = True  # new candidates at every step; else those of the episode's start
    time_budget: float = 200.0  # minutes

    @property
    def observation_space(self) -> Dict:
        user, doc = Box(-1.0, 1.0, (TOPICS,)), Box(-1.0, 1.0, (self.num_candidates, TOPICS))
        return observation_space(user, doc, self.slate_size, "watch_time")

    @property
    def action_space(self) -> MultiDiscrete:
        return MultiDiscrete((self.num_candidates,) * self.slate_size)

    def reset(self, key: Key) -> tuple[InterestState, Tree]:
        interests_key, videos_key = jax.random.split(key)
        interests = jax.random.uniform(interests_key, (TOPICS,), minval=-1.0)
        seen = response(jnp.int32(self.slate_size), self.slate_size, "watch_time", jnp.zeros(()))
        state = InterestState(interests, jnp.float32(self.time_budget), *self._videos(videos_key), seen)
        return state, _shown(state)

    def step(self, state: InterestState, action: Array, key: Key) -> tuple[InterestState, Step]:
        choice_key, interest_key, videos_key = jax.random.split(key, 3)
        place = taken(1.0 + state.interests[state.topics[action]], jnp.float32(2.0), choice_key)
        clicked = place < self.slate_size
        video = action[jnp.minimum(place, self.slate_size - 1)]
        topic, quality = state.topics[video], state.qualities[video]
        watched = jnp.where(clicked, jnp.minimum(state.budget, VIDEO_LENGTH), 0.0)
        cost = jnp.where(clicked, watched * (1.0 - RETURNED * quality), NO_CLICK_PENALTY)
        interest = moved_interest(state.interests[topic], jax.random.uniform(interest_key))
        interests = jnp.where(clicked & (jnp.arange(TOPICS) == topic), interest, state.interests)
        videos = self._videos(videos_key) if self.resample_documents else (state.topics, state.qualities)
        seen = response(place, self.slate_size, "watch_time", watched)
        state = InterestState(interests, state.budget - cost, *videos, seen)
        return state, Step(_shown(state), watched, state.budget <= 0.0, jnp.asarray(False), {})

    def _videos(self, key: Key) -> tuple[Array, Array]:
        """Topics and qualities of new candidates, `[n]` each."""
        topic_key, noise_key = jax.random.split(key)
        topics = jax.random.randint(topic_key, (self.num_candidates,), 0, TOPICS)
        noise = QUALITY_NOISE * jax.random.normal(noise_key, (self.num_candidates,))
        return topics, jnp.asarray(QUALITIES)[topics] + noise


def moved_interest(interest: Array, uniform: Array) -> Array:
    """An interest in [-1, 1] after a video of its topic: towards 1 where `uniform` is below (interest + 1) / 2."""
    change = LEARNING_RATE * (1.0 - jnp.abs(interest)) * (1.0 - interest)
    towards = uniform < (interest + 1.0) / 2.0
    return jnp.clip(jnp.where(towards, interest + change, interest - change), -1.0, 1.0)


def _shown(state: InterestState) -> Tree:
    doc = (state.topics[:, None] == jnp.arange(TOPICS)).astype(jnp.float32)
    return {"user": state.interests, "doc": doc, "response": state.response}
