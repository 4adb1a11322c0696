"""Several copies of an environment of one agent, as an environment of several agents: RLlib's `make_multi_agent`."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Env, Group, Key, MultiEnv, MultiStep, Tree, hyper
from athlete.ops.tree import where


class CopiesState(NamedTuple):
    env_state: Tree  # [n, ...]
    obs: Tree  # [n, ...]: the last
    playing: Array  # bool [n]


@hyper
class Copies(MultiEnv):
    """`num_agents` copies of `env`, one for each agent, which know nothing of each other.

    The life of an agent ends with the episode of its copy, which then stands still, shows its last observation and pays
    nothing; the episode of all ends with the last copy's, and as that one does: terminated or truncated.

    Raises:
        ValueError: `num_agents` is below 1.
    """

    env: Env
    num_agents: int

    def __post_init__(self) -> None:
        if self.num_agents < 1:
            raise ValueError(f"Copies(num_agents={self.num_agents}): expected at least 1")

    @property
    def groups(self) -> dict[str, Group]:
        return {"agent": Group(self.num_agents, self.env.observation_space, self.env.action_space)}

    def reset(self, key: Key) -> tuple[CopiesState, Tree, Tree]:
        env_state, obs = jax.vmap(self.env.reset)(jax.random.split(key, self.num_agents))
        playing = jnp.ones(self.num_agents, bool)
        return CopiesState(env_state, obs, playing), {"agent": obs}, {"agent": playing}

    def step(self, state: CopiesState, action: Tree, key: Key) -> tuple[CopiesState, MultiStep]:
        keys = jax.random.split(key, self.num_agents)
        env_state, step = jax.vmap(self.env.step)(state.env_state, action["agent"], keys)
        was_playing = state.playing
        env_state, obs = where(was_playing, (env_state, step.obs), (state.env_state, state.obs))
        terminated, truncated = was_playing & step.terminated, was_playing & step.truncated
        playing = was_playing & ~terminated & ~truncated
        nobody, cut = ~jnp.any(playing), jnp.any(truncated)
        return CopiesState(env_state, obs, playing), MultiStep(
            obs={"agent": obs},
            reward={"agent": jnp.where(was_playing, step.reward, 0.0)},
            all_terminated=nobody & ~cut,
            all_truncated=nobody & cut,
            acting={"agent": playing},
            terminated={"agent": terminated},
            truncated={"agent": truncated},
        )

    def render(self, state: CopiesState) -> np.ndarray:
        """The pictures of the copies side by side, where `env` draws one."""
        leaves, structure = jax.tree.flatten(state.env_state)
        each = (jax.tree.unflatten(structure, copy) for copy in zip(*leaves, strict=True))
        return np.concatenate([np.asarray(self.env.render(copy)) for copy in each], axis=1)  # type: ignore[attr-defined]
