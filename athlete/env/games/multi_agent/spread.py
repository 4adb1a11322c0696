"""Cooperative navigation, `simple_spread` of the multi-agent particle environments, in JAX."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Group, Key, MultiEnv, MultiStep, Tree, hyper
from athlete.spaces import Box, Discrete, Space

TIME_STEP = 0.1
DAMPING = 0.25  # the share of its velocity that an agent loses in a step
SENSITIVITY = 5.0  # acceleration at a full action
TOUCHING = 0.3  # distance of two agents that collide: twice their radius
CONTACT_FORCE, CONTACT_MARGIN = 100.0, 1e-3
DIRECTIONS = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]], np.float32)  # of the five actions
PIXELS = 256  # along a side, in pictures
AGENT_COLOUR, LANDMARK_COLOUR = (70, 70, 170), (50, 50, 50)


class SpreadState(NamedTuple):
    position: Array  # [n, 2]
    velocity: Array  # [n, 2]
    landmarks: Array  # [n, 2]
    steps: Array  # int32: taken in this episode


@hyper
class Spread(MultiEnv):
    """As many agents as landmarks: each landmark should have an agent near it, and agents should not collide.

    Equal to `mpe2.simple_spread_v3` step by step. An agent observes its velocity and position, where the landmarks and
    the other agents are from it, and 2 zeros for each of these, which say nothing: `[6 n]`. Actions: nothing, left,
    right, down, up; with `continuous_actions` the five strengths in [0, 1].
    All get the sum over landmarks of the negative distance to the nearest agent, times `1 - local_ratio`; and each -1
    for every agent that it touches, times `local_ratio`. An episode is cut after `max_cycles` steps. Three agents that
    act at random get -78 or so, summed over agents.

    Lowe et al. 2017 (arXiv:1706.02275), "cooperative navigation"; Mordatch & Abbeel 2017 (arXiv:1703.04908).

    Raises:
        ValueError: `num_agents` is below 1.
    """

    num_agents: int = 3
    local_ratio: float = 0.5
    max_cycles: int = 25
    continuous_actions: bool = False

    always_acting = True
    render_fps: ClassVar[int] = 10

    def __post_init__(self) -> None:
        if self.num_agents < 1:
            raise ValueError(f"Spread(num_agents={self.num_agents}): expected at least 1")

    @property
    def groups(self) -> dict[str, Group]:
        action: Space = Box(0.0, 1.0, (5,)) if self.continuous_actions else Discrete(5)
        return {"agent": Group(self.num_agents, Box(-np.inf, np.inf, (6 * self.num_agents,)), action)}

    def reset(self, key: Key) -> tuple[SpreadState, Tree, Tree]:
        position, landmarks = jax.random.uniform(key, (2, self.num_agents, 2), minval=-1.0, maxval=1.0)
        state = SpreadState(position, jnp.zeros_like(position), landmarks, jnp.int32(0))
        return state, self._observe(state), ()

    def step(self, state: SpreadState, action: Tree, key: Key) -> tuple[SpreadState, MultiStep]:
        strengths = action["agent"]
        if not self.continuous_actions:
            strengths = (strengths[:, None] == jnp.arange(5)).astype(jnp.float32)
        force = SENSITIVITY * strengths @ jnp.asarray(DIRECTIONS) + self._contact_forces(state.position)
        # The position moves with the velocity from before the step: mpe2 does so, older versions took the new one.
        state = SpreadState(
            position=state.position + TIME_STEP * state.velocity,
            velocity=(1 - DAMPING) * state.velocity + TIME_STEP * force,
            landmarks=state.landmarks,
            steps=state.steps + 1,
        )
        reward = {"agent": self._reward(state)}
        return state, MultiStep(self._observe(state), reward, jnp.asarray(False), state.steps >= self.max_cycles)

    def render(self, state: SpreadState) -> np.ndarray:
        """A picture, uint8 `[256, 256, 3]`: agents are blue, landmarks small and dark."""
        position, landmarks = np.asarray(state.position), np.asarray(state.landmarks)
        reach = max(1.3, float(np.abs(position).max()) + 0.2)
        across = np.linspace(-reach, reach, PIXELS)
        x, y = across[None, :], -across[:, None]
        picture = np.full((PIXELS, PIXELS, 3), 255, np.uint8)
        for places, radius, colour in ((position, 0.15, AGENT_COLOUR), (landmarks, 0.05, LANDMARK_COLOUR)):
            for centre_x, centre_y in places:
                picture[np.hypot(x - centre_x, y - centre_y) < radius] = colour
        return picture

    def _contact_forces(self, position: Array) -> Array:
        """What pushes agents apart that come near each other, `[n, 2]`."""
        away = position[:, None] - position[None]
        # Agents in the very same place, as each is with itself, have no direction to be pushed in.
        distance = jnp.sqrt(jnp.maximum(jnp.sum(away**2, axis=-1, keepdims=True), 1e-12))
        penetration = CONTACT_MARGIN * jnp.logaddexp(0.0, (TOUCHING - distance) / CONTACT_MARGIN)
        return CONTACT_FORCE * jnp.sum(away / distance * penetration, axis=1)

    def _reward(self, state: SpreadState) -> Array:
        to_landmarks = jnp.linalg.norm(state.landmarks[:, None] - state.position[None], axis=-1)
        apart = jnp.linalg.norm(state.position[:, None] - state.position[None], axis=-1)
        collisions = jnp.sum(apart < TOUCHING, axis=1) - 1  # each touches itself
        covering = -jnp.sum(jnp.min(to_landmarks, axis=1))
        return (1 - self.local_ratio) * covering - self.local_ratio * collisions

    def _observe(self, state: SpreadState) -> Tree:
        n = self.num_agents
        others = np.array([[j for j in range(n) if j != i] for i in range(n)], int).reshape(n, n - 1)
        landmarks = state.landmarks[None] - state.position[:, None]
        neighbours = state.position[others] - state.position[:, None]
        parts = [state.velocity, state.position, landmarks, neighbours, jnp.zeros((n, 2 * (n - 1)))]
        return {"agent": jnp.concatenate([part.reshape(n, -1) for part in parts], axis=1)}
