"""A game of turns in RLlib's form: Nim, played by one policy against itself until it plays perfectly.

    python examples/nim.py

There are 21 sticks. Two players take one, two or three in turns, and who takes the last one wins. Whoever leaves a
multiple of four has won, so that what was learned can be looked at. `docs/multi-agent-environments.md` goes through it.
"""

from __future__ import annotations

import argparse
from typing import Any

# --8<-- [start:env]
import numpy as np
from gymnasium.spaces import Dict, Discrete, MultiBinary

from athlete.env import MultiAgentEnv


class Nim(MultiAgentEnv):
    """Take one, two or three sticks in turns; who takes the last one wins."""

    def __init__(self, env_config: dict[str, Any] | None = None):
        self.start = (env_config or {}).get("sticks", 21)
        self.possible_agents = ["player_0", "player_1"]
        self.observation_space = Dict({"sticks": Discrete(self.start + 1), "action_mask": MultiBinary(3)})
        self.action_space = Discrete(3)  # taking one stick more than the action's number

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.sticks = int(self.np_random.integers(1, self.start + 1))
        self.turn = 0
        return {"player_0": self.look()}, {}

    def look(self) -> dict[str, Any]:
        return {"sticks": self.sticks, "action_mask": np.array([self.sticks > i for i in range(3)], np.int8)}

    def step(self, action_dict: dict[str, int]) -> Any:
        mover, other = self.possible_agents[self.turn], self.possible_agents[1 - self.turn]
        self.sticks -= action_dict[mover] + 1
        self.turn = 1 - self.turn
        over = self.sticks == 0
        rewards = {mover: 1.0, other: -1.0} if over else {}
        return {other: self.look()}, rewards, {"__all__": over}, {"__all__": False}, {}


# --8<-- [end:env]


# --8<-- [start:config]
from athlete.algorithms.ppo import PPOConfig  # noqa: E402


def make_config() -> PPOConfig:
    return (
        PPOConfig()
        .environment(Nim)
        .multi_agent(policies={"player"}, policy_mapping_fn=lambda agent_id, *_, **__: "player")
        .rollouts(num_envs_per_worker=16)
        .training(gamma=1.0, lr=1e-3, train_batch_size=1024, entropy_coeff=0.01, model={"fcnet_hiddens": [64]})
        .debugging(seed=0)
    )


# --8<-- [end:config]


def moves(algo: Any, start: int = 21) -> dict[int, int]:
    """How many sticks the policy takes where some number of them is left."""
    taken = {}
    for sticks in range(1, start + 1):
        mask = np.array([sticks > i for i in range(3)], np.int8)
        action = algo.compute_single_action({"sticks": sticks, "action_mask": mask}, policy_id="player", explore=False)
        taken[sticks] = int(action) + 1
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=60_000)
    arguments = parser.parse_args()
    with make_config().build(min_sample_timesteps_per_iteration=arguments.timesteps // 10) as algo:
        steps = 0
        while steps < arguments.timesteps:
            steps = algo.train()["timesteps_total"]
            taken = moves(algo)
            best = [taken[sticks] == sticks % 4 for sticks in taken if sticks % 4]
            print(f"{steps:7d} steps, {sum(best)} of {len(best)} winning moves found")
        print("sticks left: taken", taken)


if __name__ == "__main__":
    main()
