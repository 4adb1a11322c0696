"""Environments with goals: what of their observations is a goal, and who judges goals that are chosen afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from athlete.core.contracts import Array

# The entries of their Dict observations, as Gymnasium-Robotics has them.
OBSERVATION, ACHIEVED_GOAL, DESIRED_GOAL = "observation", "achieved_goal", "desired_goal"


class Goals:
    """What an environment with goals gives for any goal. Subclasses are `@hyper` classes."""

    __hyper__ = True

    def judge(self, achieved_goal: Array, desired_goal: Array, terminated: Array) -> tuple[Array, Array]:
        """Rewards, float32 `[N]`, of steps that led to `achieved_goal` `[N, ...]` had `desired_goal` `[N, ...]` been
        wanted, and whether they terminated their episodes, bool `[N]`: as they did, `terminated` `[N]`, where the
        environment does not say that goals decide it.
        """
        raise NotImplementedError
