"""An environment of your own, written in JAX: set a falling rocket down gently.

    python examples/my_jax_env.py

Checks the environment, trains PPO on it, films an episode and compares two planets. `docs/jax-environments.md` walks
through it line by line.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import athlete
from athlete import spaces, tune
from athlete.algorithms.ppo import PPOConfig
from athlete.core import Array, Env, Key, Step, hyper
from athlete.env.wrappers.time_limit import TimeLimit


# --8<-- [start:lander]
class LanderState(NamedTuple):
    height: Array  # metres above the ground
    velocity: Array  # metres a second, upwards


@hyper
class Lander(Env):
    """A rocket falls and may burn its engine (1) or not (0). The gentler it touches the ground, the better.

    The fields are physics. They are floats, so they can be swept without compiling anything again.
    """

    gravity: float = 9.8  # of the earth, metres a second squared
    thrust: float = 15.0  # what the engine adds, metres a second squared
    gentle: float = 5.0  # the speed of a touchdown that earns nothing, metres a second

    render_fps = 20

    @property
    def observation_space(self) -> spaces.Box:
        return spaces.Box(-np.inf, np.inf, (2,))

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(2)

    def reset(self, key: Key) -> tuple[LanderState, Array]:
        height = jax.random.uniform(key, (), jnp.float32, 5.0, 10.0)
        state = LanderState(height, jnp.float32(0.0))
        return state, _observe(state)

    def step(self, state: LanderState, action: Array, key: Key) -> tuple[LanderState, Step]:
        velocity = state.velocity + 0.05 * (action * self.thrust - self.gravity)
        state = LanderState(state.height + 0.05 * velocity, velocity)
        landed = state.height <= 0.0
        score = 1.0 - jnp.abs(velocity) / self.gentle
        reward = jnp.where(landed, score, -0.001)  # the little less a step: do not hover
        return state, Step(_observe(state), reward, landed, jnp.asarray(False), {})

    def render(self, state: LanderState) -> np.ndarray:
        """A picture of the rocket above the ground, uint8 `[height, width, 3]`."""
        image = np.full((240, 160, 3), 20, np.uint8)
        image[220:] = 120  # the ground
        bottom = 220 - int(np.clip(20 * state.height, 0, 200))
        image[max(bottom - 24, 0) : bottom, 72:88] = (230, 230, 240)
        return image


def _observe(state: LanderState) -> Array:
    return jnp.stack([state.height / 10.0, state.velocity / 5.0])


# --8<-- [end:lander]
# --8<-- [start:time-limit]
def make_lander(env_config: dict) -> Env:
    """The rocket with a time limit. `env_config` holds fields of `Lander`."""
    return TimeLimit(Lander(**env_config), max_episode_steps=400)


# --8<-- [end:time-limit]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=200_000)
    parser.add_argument("--folder", default="athlete_results/lander")
    arguments = parser.parse_args()

    athlete.check_env(make_lander({}))
    athlete.register_env("Lander", make_lander)
    print("random actions earn", round(athlete.baseline("Lander", episodes=1000).episode_reward_mean, 2))

    config = PPOConfig().environment("Lander").debugging(seed=0)
    with config.build() as algo:
        result = algo.train()
        while result["timesteps_total"] < arguments.timesteps:
            result = algo.train()
        print("trained to", round(result["episode_reward_mean"], 2))
        print("greedily it earns", round(algo.evaluate()["evaluation"]["episode_reward_mean"], 2))
        print("film:", *algo.record_video(arguments.folder, episodes=1))

    # Another gravity is another number in the same program: the second trial compiles nothing.
    gravities = {"gravity": tune.grid_search([9.8, 8.9])}
    analysis = tune.run(
        "PPO",
        config=config.copy().environment(env_config=gravities, disable_env_checking=True),  # it was checked above
        stop={"timesteps_total": arguments.timesteps},
        local_dir=arguments.folder,
        verbose=0,
    )
    columns = {"config/env_config/gravity": "gravity", "perf/compilations": "compiled so far"}
    shown = analysis.results_df.rename(columns=columns)[["gravity", "episode_reward_mean", "compiled so far"]]
    print(shown.to_string(index=False))


if __name__ == "__main__":
    main()
