"""Environments with many agents outside JAX in which all act at every step: what joint methods learn from."""

from __future__ import annotations

import numpy as np

from athlete.core import Array, Key, Source, SourceWrapper, Step, Tree
from athlete.env.multi_agent import joint_spec


class ActingTogetherSource(SourceWrapper):
    """Rows of `source` without the flags of who acts and whose life ended: they are held to say "all" and "nobody".

    Agents may end one by one in the step that ends the episode for all. Raises RuntimeError, naming the agent, the row
    and the step of its episode, where one does not act while the episode goes on.
    """

    def __init__(self, source: Source):
        super().__init__(source)
        self.spec = joint_spec(dict(source.spec.groups), always_acting=True)
        self._shown: Tree = None  # the last joint observation, flags included
        self._steps = np.zeros(source.rows, np.int64)  # of the running episodes

    def reset(self, key: Key) -> Tree:
        self._steps[:] = 0
        return self._seen(self.source.reset(key), np.ones(self.rows, bool))

    def step(self, action: Tree, key: Key) -> Step:
        step = self.source.step(action, key)
        self._steps += 1
        return step._replace(obs=self._seen(step.obs, ~(step.terminated | step.truncated)))

    def reset_where(self, done: Array, obs: Tree, key: Key) -> Tree:
        self._steps[done] = 0
        return self._seen(self.source.reset_where(done, self._shown, key), done)

    def _seen(self, shown: Tree, goes_on: Array) -> Tree:
        """What agents see of a joint observation, in whose rows that go on all must act."""
        self._shown = shown
        acting = np.concatenate([shown["acting"][name] > 0 for name, _ in self.spec.groups], axis=1)
        asked = np.asarray(goes_on) if self.here is None else goes_on & self.here
        missing = np.argwhere(~acting & asked[:, None])
        if len(missing):
            row, number = missing[0]
            agent, step = self.agent_ids[number], self._steps[row]
            raise RuntimeError(
                f"agent {agent!r} is not asked for an action at step {step} of the episode in row {row}, and "
                f"the algorithm learns from agents that act at every step until the episode ends for "
                "all; take one with a policy for each agent, such as PPO"
            )
        return {"obs": shown["obs"]}
