"""Tables as networks and a chain of known values: what the tests of on-policy agents share."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Env, Step, Transition, hyper
from athlete.spaces import Discrete


def transitions(states, next_states, reward, terminated, truncated, **changes):
    """One row `[T, 1]` through three numbered states, in which action 0 was taken."""
    reward, terminated, truncated = (np.array(part)[:, None] for part in (reward, terminated, truncated))
    obs, next_obs = (np.eye(3, dtype=np.float32)[np.array(part)][:, None] for part in (states, next_states))
    never, action = np.zeros(reward.shape, bool), np.zeros(reward.shape, np.int32)
    batch = Transition(obs, never, action, reward.astype(np.float32), next_obs, terminated, truncated, (), ())
    return batch._replace(**changes)


class ChainState(NamedTuple):
    step: jax.Array


@hyper
class Chain(Env):
    """Three states in a row, a reward of 1 in each; the third step ends the episode in one of the two ways."""

    terminates: float = 1.0

    observation_space = Discrete(3)
    action_space = Discrete(2)

    def reset(self, key):
        return ChainState(jnp.int32(0)), jnp.int32(0)

    def step(self, state, action, key):
        step = state.step + 1
        over = step >= 3
        # Where the last step leads looks like the first state: what follows a cut is more of the same.
        flags = over & (self.terminates > 0), over & (self.terminates <= 0)
        return ChainState(step), Step(step % 3, jnp.float32(1), *flags, {})
