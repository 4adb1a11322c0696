"""A multi-agent environment of your own, written in JAX: catchers chase runners over a grid.

    python examples/my_multi_agent_env.py

Checks the environment, trains two policies on it with PPO and films an episode. `docs/multi-agent-environments.md`
walks through it line by line.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import athlete
from athlete import spaces
from athlete.algorithms.ppo import PPOConfig
from athlete.core import Array, Group, Key, MultiEnv, MultiStep, Tree, hyper

# --8<-- [start:tag]
MOVES = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]], np.int32)  # stay, up, down, left, right


class TagState(NamedTuple):
    catchers: Array  # int32 [2, 2]: row and column of each
    runners: Array  # int32 [2, 2]
    free: Array  # bool [2]: runners that have not been caught
    steps: Array  # int32


@hyper
class Tag(MultiEnv):
    """Two catchers and two runners on a grid. Who is caught is out; the episode ends with the last runner.

    A catch gives every catcher 1 and costs the runner 1; each step in freedom gives a runner `freedom`. After
    `limit` steps the episode is cut.
    """

    freedom: float = 0.02
    size: int = 8
    limit: int = 30

    always_acting = False  # a runner that was caught is asked no more
    render_fps = 6

    @property
    def groups(self) -> dict[str, Group]:
        # What an agent sees: itself, both catchers, both runners, and which runners are free.
        seen = spaces.Box(-np.inf, np.inf, (12,))
        return {"catcher": Group(2, seen, spaces.Discrete(5)), "runner": Group(2, seen, spaces.Discrete(5))}

    def reset(self, key: Key) -> tuple[TagState, Tree, Tree]:
        runners = jax.random.randint(key, (2, 2), 0, self.size)
        corners = jnp.array([[0, 0], [self.size - 1, self.size - 1]])
        state = TagState(corners, runners, jnp.ones(2, bool), jnp.int32(0))
        return state, self._observe(state), {"catcher": jnp.ones(2, bool), "runner": state.free}

    def step(self, state: TagState, action: Tree, key: Key) -> tuple[TagState, MultiStep]:
        runners = jnp.where(state.free[:, None], self._move(state.runners, action["runner"]), state.runners)
        catchers = self._move(state.catchers, action["catcher"])
        met = jnp.any(jnp.all(runners[:, None] == catchers[None], axis=-1), axis=1)
        caught = state.free & met
        state = TagState(catchers, runners, state.free & ~met, state.steps + 1)

        over = ~jnp.any(state.free)
        cut = (state.steps >= self.limit) & ~over
        goes_on = ~over & ~cut
        nobody = jnp.zeros(2, bool)
        return state, MultiStep(
            obs=self._observe(state),
            reward={
                "catcher": jnp.full(2, jnp.sum(caught), jnp.float32),
                "runner": jnp.where(caught, -1.0, self.freedom * state.free),
            },
            all_terminated=over,
            all_truncated=cut,
            acting={"catcher": nobody | goes_on, "runner": state.free & goes_on},
            terminated={"catcher": nobody | over, "runner": caught},
            truncated={"catcher": nobody, "runner": nobody},
        )

    def render(self, state: TagState) -> np.ndarray:
        """A picture, uint8 `[height, width, 3]`: catchers are red, runners green, and grey once they are caught."""
        picture = np.full((self.size, self.size, 3), 240, np.uint8)
        for cell, free in zip(np.asarray(state.runners), np.asarray(state.free), strict=True):
            picture[tuple(cell)] = (60, 170, 80) if free else (170, 170, 170)
        for cell in np.asarray(state.catchers):
            picture[tuple(cell)] = (210, 60, 50)
        return picture.repeat(32, axis=0).repeat(32, axis=1)

    def _move(self, cells: Array, action: Array) -> Array:
        return jnp.clip(cells + jnp.asarray(MOVES)[action], 0, self.size - 1)

    def _observe(self, state: TagState) -> Tree:
        everybody = jnp.concatenate([state.catchers, state.runners]) / (self.size - 1) * 2.0 - 1.0
        shared = jnp.concatenate([everybody.ravel(), state.free.astype(jnp.float32)])
        each = jnp.concatenate([everybody, jnp.tile(shared, (4, 1))], axis=1)
        return {"catcher": each[:2], "runner": each[2:]}


# --8<-- [end:tag]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=400_000)
    parser.add_argument("--folder", default="athlete_results/tag")
    arguments = parser.parse_args()

    athlete.check_env(Tag())
    config = PPOConfig().environment(Tag()).rollouts(num_envs_per_worker=16).debugging(seed=0)
    config = config.training(train_batch_size=2048, minibatch_size=512, num_epochs=4, lr=1e-3)
    config = config.multi_agent(
        policies=["catchers", "runners"],
        policy_mapping_fn=lambda agent_id, *args, **kwargs: agent_id.partition("_")[0] + "s",
    )
    with config.build() as algo:
        result = algo.train()
        print("at first", result["policy_reward_mean"])
        while result["timesteps_total"] < arguments.timesteps:
            result = algo.train()
        print("trained to", result["policy_reward_mean"])
        print("film:", *algo.record_video(arguments.folder, episodes=1))


if __name__ == "__main__":
    main()
