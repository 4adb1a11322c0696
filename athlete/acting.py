"""Acting for users: one observation or many, with the memory and the previous step that the network needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from athlete.env.wrappers.previous import Previous
from athlete.policy import Policy


class Actor:
    """A policy for callers who hold observations as `env.reset` and `env.step` give them."""

    def __init__(self, policy: Policy, previous: Previous):
        self.policy, self._previous = policy, previous

    def single(
        self, observation: Any, state: Any, prev_action: Any, prev_reward: float | None, explore: bool
    ) -> tuple[Any, Any]:
        """`(action, new state)` for one observation; `Algorithm.compute_single_action` says the rest."""
        shown = self._shown(observation, state, prev_action, prev_reward)
        return self.policy.act_one(shown, state, explore=explore)

    def many(
        self, observations: Any, state: Any, prev_action: Any, prev_reward: Any, explore: bool
    ) -> tuple[dict | list, dict | list]:
        """`(actions, new states)` in the form of `observations`, a dictionary or a list."""
        names = list(observations) if isinstance(observations, Mapping) else list(range(len(observations)))
        none = dict.fromkeys(names)
        states, actions_before, rewards_before = (
            none if given is None else given for given in (state, prev_action, prev_reward)
        )
        acted = {
            name: self.single(observations[name], states[name], actions_before[name], rewards_before[name], explore)
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
