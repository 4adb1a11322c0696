"""Environments with many agents, of RLlib's form or PettingZoo's, as a `Source` of all of them seen as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from athlete.core import Array, Group, Spec, Tree
from athlete.env.adapters.agent_rows import AgentsRow
from athlete.env.adapters.agents import AgentsMaker
from athlete.env.adapters.buffers import Buffers, mapped
from athlete.env.adapters.rows import LocalRows
from athlete.env.adapters.source import GymnasiumSource
from athlete.env.errors import EnvError
from athlete.env.multi_agent import joint_spec
from athlete.ops.masks import check_mask, without_action
from athlete.spaces import ACTION_MASK, has_mask


class MultiAgentSource(GymnasiumSource):
    """Rows of an environment with many agents, in this process or in worker processes: all agents seen as one.

    Takes what `GymnasiumSource` takes, and in the place of Gymnasium's environments those of RLlib's form
    (`MultiAgentEnv`) and of PettingZoo, parallel or AEC. Agents with equal spaces are a group, named after their ids
    without numbers; `spec` is that of `athlete.env.multi_agent.joint_spec` with `always_acting=False`, and rewards are
    `[B, agents]` in the order of `agent_ids`, the environment's own.

    What an agent that is not asked was shown last stands in its place, zeros before it was shown anything. `info` has
    the rows' own dictionaries by agent id.

    Raises:
        ValueError: as `GymnasiumSource`; the environment does not say which agents there may be.
        EnvError: as `GymnasiumSource`, with the agent. Also where what is told does not hold together: a reward for, or
            an observation of, an agent that has ended, an observation that is missing, an agent that is none of the
            possible ones, all agents gone while nothing says that the episode is over.
    """

    row_maker = AgentsMaker
    agent_ids: tuple[Any, ...]

    def _seen_spec(self) -> Spec:
        self._members = self.vector.buffers.groups
        self.agent_ids = tuple(seat.agent for seat in self.vector.buffers.seats)
        groups = {group.name: Group(len(group.agents), group.obs, group.action) for group in self._members}
        for group in groups.values():
            check_mask(Spec(group.obs, group.action))
        return joint_spec(groups, always_acting=False)

    def _cut_off(self, rows: Array) -> None:
        super()._cut_off(rows)
        obs = self.vector.buffers.obs
        for name in ("terminated", "truncated"):  # of the step before, which has told of them
            for bits in obs[name].values():
                bits[rows] = 0

    def _require_actions(self, obs: Tree, goes_on: np.ndarray) -> None:
        for group in self._members:
            if not has_mask(group.obs):
                continue
            shown = obs["obs"][group.name]
            stuck = without_action(Spec(group.obs, group.action), shown) & (obs["acting"][group.name] > 0)
            if (stuck & goes_on[:, None]).any():
                row, i = np.argwhere(stuck & goes_on[:, None])[0].tolist()
                raise EnvError(
                    f"observation[{group.agents[i]!r}][{ACTION_MASK!r}] leaves no legal action: "
                    f"{shown[ACTION_MASK][row, i].tolist()}. Leave the agent out of the observations where it can do "
                    f"nothing, or end its life (terminated=True). {self._lives.tell(row)}"
                )

    def environments(self) -> list[Any]:
        return [row.env.env for row in self.vector.rows] if isinstance(self.vector, LocalRows) else []


def one_row(env: Any, env_config: Mapping[str, Any]) -> tuple[AgentsRow, Buffers]:
    """A row of what `MultiAgentSource` takes, in this process, and where it writes."""
    maker = AgentsMaker(env, dict(env_config), index=0, num_workers=0, num_envs_per_worker=1)
    agents = maker.make()
    shown = maker.shown(agents)
    buffers = Buffers(shown.space, 1, groups=shown.agents)
    return maker.row(agents, buffers), buffers


class FilmedAgents:
    """One environment with many agents in Gymnasium's form, for films: all seen as one, the reward the sum of theirs.

    Args:
        env: what `MultiAgentSource` takes.
        env_config: what it is made with, besides `render_mode="rgb_array"`.
    """

    def __init__(self, env: Any, env_config: Mapping[str, Any]):
        self._row, self._buffers = one_row(env, {**env_config, "render_mode": "rgb_array"})
        self.metadata = self._row.env.metadata
        self.render_mode = self._row.env.render_mode or "rgb_array"

    def reset(self, *, seed: int | None = None) -> tuple[Tree, Any]:
        info = self._row.reset(seed)
        return self._obs(), info

    def step(self, action: Tree) -> tuple[Tree, float, bool, bool, Any]:
        info = self._row.step(action)
        came = self._buffers
        return self._obs(), float(came.reward.sum()), bool(came.terminated[0]), bool(came.truncated[0]), info

    def _obs(self) -> Tree:
        return mapped(lambda leaf: leaf[0].copy(), self._buffers.obs)

    def render(self) -> Any:
        return self._row.env.env.render()

    def close(self) -> None:
        self._row.close()

    @property
    def unwrapped(self) -> Any:
        return self._row.env.env
