"""The last action and reward as parts of an observation: RLlib's `lstm_use_prev_action` and `lstm_use_prev_reward`.

They come from the environment's side, where a step's action and reward meet the observation that they led to. So every
loop, memory and algorithm has them right without knowing of them: a transition's `next_obs` holds its own action and
reward, whether the episode goes on or not, and the observation of a reset holds zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, EnvWrapper, Key, Source, SourceWrapper, Spec, Step, Tree, hyper
from athlete.ops.features import action_features, feature_size
from athlete.spaces import ACTION_MASK, Box, Dict, Space, Tuple, has_mask, to_canonical, to_environment


class Previous(NamedTuple):
    """What is shown besides the observation, each as a part of a tuple after it; where the observation is a dictionary
    with a mask of actions, which has to stay where it is found, as entries `prev_action` and `prev_reward` of it.
    """

    action: bool = False  # one-hot or in [-1, 1], flat, `[n]`
    reward: bool = False  # `[1]`

    def spec(self, spec: Spec) -> Spec:
        """The spaces with the parts that are shown."""
        if not any(self):
            return spec
        sizes = [feature_size(spec.action)] * self.action + [1] * self.reward
        parts = [Box(-np.inf, np.inf, (size,)) for size in sizes]
        if has_mask(spec.obs):
            return Spec(Dict(self.joined(dict(spec.obs.items), parts)), spec.action)
        return Spec(Tuple((spec.obs, *parts)), spec.action)

    def show(self, action_space: Space, obs: Tree, action: Tree, reward: Array) -> Tree:
        """The observation that `action`, as the environment took it, and `reward` led to; any leading axes."""
        parts = [action_features(action_space, to_canonical(action_space, action))] if self.action else []
        return self.joined(obs, [*parts, *([reward[..., None]] if self.reward else [])])

    def show_start(self, action_space: Space, obs: Tree, leading: tuple[int, ...] = ()) -> Tree:
        """The first observation of an episode: nothing was done yet."""
        sizes = [feature_size(action_space)] * self.action + [1] * self.reward
        return self.joined(obs, [np.zeros((*leading, size), np.float32) for size in sizes])

    def parted(self, shown: Tree) -> tuple[Tree, list]:
        """The observation without what is shown besides, and that."""
        if isinstance(shown, tuple):
            return shown[0], list(shown[1:])
        names = self._names()
        return {name: part for name, part in shown.items() if name not in names}, [shown[name] for name in names]

    def parted_space(self, shown: Space) -> Space:
        """The space of observations without what is shown besides."""
        if not any(self):
            return shown
        if isinstance(shown, Tuple):
            return shown.spaces[0]
        return Dict({name: part for name, part in shown.items if name not in self._names()})  # type: ignore[attr-defined]

    def joined(self, obs: Tree, parts: list) -> Tree:
        """The observation with what is shown besides."""
        if isinstance(obs, Mapping) and ACTION_MASK in obs:
            return {**obs, **dict(zip(self._names(), parts, strict=True))}
        return (obs, *parts)

    def _names(self) -> list[str]:
        return ["prev_action"] * self.action + ["prev_reward"] * self.reward


def previous_of(config: Any) -> Previous:
    """What the networks of a configuration see besides the observation: actor and critics see the same."""
    models = [config.get(name) or {} for name in ("model", "policy_model_config", "q_model_config")]
    action, reward = (any(model.get(f"lstm_use_prev_{part}") for model in models) for part in ("action", "reward"))
    return Previous(action, reward or config.shows_reward)


@hyper
class PreviousStep(EnvWrapper):
    """A JAX environment whose observations show what led to them."""

    previous: Previous

    @property
    def observation_space(self) -> Space:
        return self.previous.spec(Spec(self.env.observation_space, self.env.action_space)).obs

    def reset(self, key: Key) -> tuple[Tree, Tree]:
        state, obs = self.env.reset(key)
        return state, jax.tree.map(jnp.asarray, self.previous.show_start(self.action_space, obs))

    def step(self, state: Tree, action: Tree, key: Key) -> tuple[Tree, Step]:
        state, step = self.env.step(state, action, key)
        return state, step._replace(obs=self.previous.show(self.action_space, step.obs, action, step.reward))

    def render(self, state: Tree) -> Array:
        """The picture of `env`, where it draws one."""
        return self.env.render(state)  # type: ignore[attr-defined]


class PreviousStepSource(SourceWrapper):
    """Rows of environments outside JAX whose observations show what led to them."""

    def __init__(self, source: Source, previous: Previous):
        super().__init__(source)
        self.previous = previous
        self.spec = previous.spec(source.spec)

    def reset(self, key: Key) -> Tree:
        return self.previous.show_start(self.spec.action, self.source.reset(key), (self.rows,))

    def step(self, action: Tree, key: Key) -> Step:
        step = self.source.step(action, key)
        taken = to_environment(self.spec.action, self.source.taken_of(action))
        return step._replace(obs=self.previous.show(self.spec.action, step.obs, taken, step.reward))

    def reset_where(self, done: Array, obs: Tree, key: Key) -> Tree:
        own, parts = self.previous.parted(obs)
        kept = [np.where(done[:, None], np.float32(0), part) for part in parts]
        return self.previous.joined(self.source.reset_where(done, own, key), kept)


class FilmedPreviousStep:
    """One environment in Gymnasium's form, for films, whose observations show what led to them."""

    def __init__(self, env: Any, action_space: Space, previous: Previous):
        self.env, self.previous, self.action_space = env, previous, action_space

    def reset(self, **options: Any) -> tuple[Any, dict]:
        obs, info = self.env.reset(**options)
        return self.previous.show_start(self.action_space, obs), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        taken = jax.tree.map(np.asarray, action)
        shown = self.previous.show(self.action_space, obs, taken, np.asarray(reward, np.float32))
        return shown, reward, terminated, truncated, info

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)
