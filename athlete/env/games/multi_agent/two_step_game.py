"""The two-step game: why a joint value must not be monotonic in each agent's own by mere addition."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Group, Key, MultiEnv, MultiStep, Tree, hyper
from athlete.env.registry import EnvContext, create
from athlete.env.wrappers.grouped import Grouped
from athlete.spaces import Dict, Discrete, MultiDiscrete, Space

AGENTS = 2
SAFE = 7.0  # the payoff of the first matrix, whatever the agents do
RISKY = np.array([[0.0, 1.0], [1.0, 8.0]], np.float32)  # that of the second, by both actions


class TwoStepGameState(NamedTuple):
    matrix: Array  # int32: 0 before the choice, 1 in the safe matrix, 2 in the risky one


@hyper
class TwoStepGame(MultiEnv):
    """The first agent chooses one of two matrix games, which both then play once; both see where they are.

    In the first step the action of `agent_0` alone counts: 0 leads to a matrix that pays 7 whatever the agents do, 1 to
    one that pays 8 if both take action 1, 1 if one of them does, and 0 if none. The payoff is the team's, and each
    agent gets half of it, as in RLlib: the agents' returns sum to the figures of the paper. The best return is 8; where
    the joint value is a sum of the agents' own, as in VDN, it is 7.

    An agent observes one of the six pairs of state and agent, a Discrete number; with `one_hot_state_encoding` the
    state's one-hot form and the agent's number from 1, `[4]`. With `separate_state_space` that is the entry `"obs"` of
    a Dict beside the state alone, `"state"` `[3]`, for methods that learn from the state of the whole.

    Rashid et al. 2018 (arXiv:1803.11485), section 5 and table 1; RLlib's example of the same name.
    """

    one_hot_state_encoding: bool = False
    separate_state_space: bool = False

    always_acting = True

    @property
    def groups(self) -> dict[str, Group]:
        obs: Space = MultiDiscrete((2, 2, 2, 3)) if self.one_hot_state_encoding else Discrete(6)
        if self.separate_state_space:
            obs = Dict({"obs": obs, "state": MultiDiscrete((2, 2, 2))})
        return {"agent": Group(AGENTS, obs, Discrete(2))}

    def reset(self, key: Key) -> tuple[TwoStepGameState, Tree, Tree]:
        state = TwoStepGameState(jnp.int32(0))
        return state, self._observe(state), ()

    def step(self, state: TwoStepGameState, action: Tree, key: Key) -> tuple[TwoStepGameState, MultiStep]:
        first, second = action["agent"]
        chosen = jnp.asarray(RISKY)[first, second]
        payoff = jnp.where(state.matrix == 0, 0.0, jnp.where(state.matrix == 1, SAFE, chosen))
        ended = state.matrix != 0
        state = TwoStepGameState(jnp.where(ended, state.matrix, 1 + first).astype(jnp.int32))
        reward = jnp.full(AGENTS, payoff / AGENTS, jnp.float32)
        return state, MultiStep(self._observe(state), {"agent": reward}, ended, jnp.asarray(False))

    def _observe(self, state: TwoStepGameState) -> Tree:
        one_hot = (state.matrix == jnp.arange(3)).astype(jnp.int32)
        each = jnp.broadcast_to(one_hot, (AGENTS, 3))
        if self.one_hot_state_encoding:
            obs = jnp.concatenate([each, 1 + jnp.arange(AGENTS, dtype=jnp.int32)[:, None]], axis=1)
        else:
            obs = state.matrix + 3 * jnp.arange(AGENTS, dtype=jnp.int32)
        return {"agent": {"obs": obs, "state": each} if self.separate_state_space else obs}


def grouped_two_step_game(**encoding: bool) -> Grouped:
    """The game with both agents as one, RLlib's `TwoStepGameWithGroupedAgents`; `encoding` are fields of it."""
    return Grouped(create(TwoStepGame, EnvContext(encoding)))
