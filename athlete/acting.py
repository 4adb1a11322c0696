"""Acting for users: one observation or many, with the memory and the previous step that the network needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from athlete.env.masks import OBSERVATIONS, joined_mask, lift, path_in
from athlete.env.wrappers.previous import Previous
from athlete.policy import Policy
from athlete.spaces import ACTION_MASK, has_mask, value_counts


class Actor:
    """A policy for callers who hold observations as `env.reset` and `env.step` give them."""

    def __init__(self, policy: Policy, previous: Previous):
        self.policy, self._previous = policy, previous

    def single(
        self, observation: Any, state: Any, prev_action: Any, prev_reward: float | None, explore: bool, info: Any = None
    ) -> tuple[Any, Any]:
        """`(action, new state)` for one observation; `Algorithm.compute_single_action` says the rest."""
        shown = self._shown(self._with_mask(observation, info), state, prev_action, prev_reward)
        return self.policy.act_one(shown, state, explore=explore)

    def many(
        self, observations: Any, state: Any, prev_action: Any, prev_reward: Any, explore: bool, info: Any = None
    ) -> tuple[dict | list, dict | list]:
        """`(actions, new states)` in the form of `observations`, a dictionary or a list."""
        names = list(observations) if isinstance(observations, Mapping) else list(range(len(observations)))
        none = dict.fromkeys(names)
        states, actions_before, rewards_before, infos = (
            none if given is None else given for given in (state, prev_action, prev_reward, info)
        )
        acted = {
            name: self.single(
                observations[name], states[name], actions_before[name], rewards_before[name], explore, infos[name]
            )
            for name in names
        }
        actions = {name: action for name, (action, _) in acted.items()}
        new_states = {name: new for name, (_, new) in acted.items()}
        if isinstance(observations, Mapping):
            return actions, new_states
        return list(actions.values()), list(new_states.values())

    def require_state(self, method: str) -> None:
        """Raise ValueError where a call without a state would lose the network's memory."""
        if self.policy.is_recurrent():
            raise ValueError(
                f"{method}(...): this network has memory and would lose it: give state, at the start of an episode "
                "algo.get_policy().get_initial_state() and then the state that came back with the last action"
            )

    def _with_mask(self, observation: Any, info: Any) -> Any:
        """The observation with the mask of actions where the policy reads it, wherever the environment tells it."""
        spec = self.policy.agent.spec
        assert spec is not None
        if not has_mask(spec.obs) or (isinstance(observation, Mapping) and ACTION_MASK in observation):
            return observation
        if isinstance(observation, Mapping) and (path := path_in(observation)):
            return lift(observation, path)
        if OBSERVATIONS not in dict(spec.obs.items):
            return observation  # which does not fit, as the policy says
        if not isinstance(info, Mapping) or ACTION_MASK not in info:
            raise ValueError(
                f"this policy chooses among the legal actions: give info=..., the environment's, with its "
                f"{ACTION_MASK!r}, or the observation as {{{OBSERVATIONS!r}: ..., {ACTION_MASK!r}: zeros and ones}}"
            )
        mask = joined_mask(info[ACTION_MASK], sum(value_counts(spec.action)), f"info[{ACTION_MASK!r}]")
        return {OBSERVATIONS: observation, ACTION_MASK: mask}

    def _shown(self, observation: Any, state: Any, action: Any, reward: float | None) -> Any:
        """The observation as the network sees it, with the last action and reward where it looks at them."""
        previous, spec = self._previous, self.policy.agent.spec
        if not any(previous):
            return observation
        assert spec is not None
        given = {"prev_action": (previous.action, action), "prev_reward": (previous.reward, reward)}
        missing = [name for name, (seen, value) in given.items() if seen and value is None]
        if not missing:
            taken = jax.tree.map(np.asarray, action) if previous.action else None
            return previous.show(spec.action, observation, taken, np.asarray(reward, np.float32))
        if not self.policy.is_start(state):
            raise ValueError(
                f"this network sees what was done and what came of it: give {' and '.join(missing)} too, but for the "
                "first step of an episode"
            )
        return previous.show_start(spec.action, observation)
