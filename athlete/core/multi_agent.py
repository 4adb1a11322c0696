"""The contract of JAX environments with many agents: groups of agents with equal spaces, not dictionaries of agents.

One array a group: a hundred agents are one leaf, and one product of matrices where networks see them.
"""

from __future__ import annotations

from typing import NamedTuple

from athlete.core.contracts import Array, Group, Key, Tree


class MultiStep(NamedTuple):
    """What one step gives to the agents: `{group: [n, ...]}` in every field but the two flags of all and `info`.

    Where agents always act, `acting`, `terminated` and `truncated` are left out.
    """

    obs: Tree
    reward: Tree  # float32 of this step, whether the agent acted in it or not
    all_terminated: Array  # bool scalar: the episode ended for all
    all_truncated: Array  # bool scalar: the episode was cut for all
    acting: Tree = ()  # bool: the agent is asked for an action now
    terminated: Tree = ()  # bool: the agent's own life ended with this step
    truncated: Tree = ()  # bool: it was taken out with this step, and might have gone on
    info: Tree = ()  # {name: scalar} that the environment tells besides


class MultiEnv:
    """A JAX environment with many agents: pure functions of one row. It never resets itself; the loop does.

    Subclasses are `@hyper` classes with the property `groups` and the two methods. Agents are numbered within their
    group; `agent_ids` has their names. Keys, states and time limits are as in `Env`.

    `always_acting` says that every agent is asked for an action at every step and stays until the episode ends. Where
    it is False, which is safe for all, `reset` and `step` tell who is `acting` and whose life ended. Rewards reach
    whoever they are for at any step: an agent's reward for an action is all that comes until it is asked again or its
    life ends. A number of a group whose life ended may be taken by a new agent later in the episode.
    """

    __hyper__ = True
    always_acting: bool = False
    info_metrics: tuple[str, ...] = ()  # entries of `MultiStep.info` that results tell of at the end of an episode

    @property
    def groups(self) -> dict[str, Group]:
        raise NotImplementedError

    def reset(self, key: Key) -> tuple[Tree, Tree, Tree]:
        """Start an episode: `(state, obs, acting)`; `acting` is `()` where agents always act."""
        raise NotImplementedError

    def step(self, state: Tree, action: Tree, key: Key) -> tuple[Tree, MultiStep]:
        """Take one step with actions `{group: [n, ...]}` as the spaces describe them: `(next state, MultiStep)`.

        Actions of agents that are not acting mean nothing.
        """
        raise NotImplementedError


class TurnGame(MultiEnv):
    """A game of two agents with equal spaces who move in turns, whose rewards add up to 0, and who see all of it.

    So a search can play it. Subclasses have two methods more than any `MultiEnv`. What is not up to the players, such
    as dice, is drawn from the keys.
    """

    def mover(self, state: Tree) -> Array:
        """Whose move it is: the number of the agent, 0 or 1."""
        raise NotImplementedError

    def state_of(self, obs: Tree) -> Tree:
        """The state in which who is to move sees `obs`."""
        raise NotImplementedError


def agent_ids(groups: dict[str, Group] | tuple[tuple[str, Group], ...]) -> tuple[str, ...]:
    """The names of all agents, groups in the order of their names: `group_0, group_1`, or `group` where it is alone.

    That is also the order of the rewards in a `Step` of all agents.
    """
    ordered = sorted(dict(groups).items())
    return tuple(name if group.size == 1 else f"{name}_{i}" for name, group in ordered for i in range(group.size))
