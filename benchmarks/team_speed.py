"""What many agents cost: a team of two in half as many environments, beside one agent in all of them.

    python benchmarks/team_speed.py [--json FILE]

PPO with the same networks and batches on CartPole, compiled: one agent in 16 environments; two agents that always act,
in 8 environments of two CartPoles; and two that may fall one before the other, which takes the bookkeeping of turns.
Each iteration learns from as many steps. Medians of alternating rounds, in steps of agents a second of processor time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import jax
import numpy as np
from manifest import add_speed_options, require_idle, write_manifest

from athlete.algorithms.ppo import PPOConfig
from athlete.core import Group, Key, MultiEnv, MultiStep, Tree, hyper
from athlete.env.games.classic.cartpole import CartPole
from athlete.env.multi_agent import JointEnv
from athlete.env.wrappers.copies import Copies
from athlete.env.wrappers.time_limit import TimeLimit
from athlete.loops.collect import spec_of
from athlete.loops.train import CompiledTraining
from athlete.teams import agent_for

ROWS, LENGTH, ITERATIONS = 16, 64, 20
KEY = np.array([0, 1], np.uint32)


@hyper
class Together(MultiEnv):
    """Two CartPoles that always act: the episode ends for both when one of them falls."""

    env: TimeLimit

    always_acting = True

    @property
    def groups(self) -> dict[str, Group]:
        return {"agent": Group(2, self.env.observation_space, self.env.action_space)}

    def reset(self, key: Key) -> tuple[Tree, Tree, Tree]:
        state, obs = jax.vmap(self.env.reset)(jax.random.split(key, 2))
        return state, {"agent": obs}, ()

    def step(self, state: Tree, action: Tree, key: Key) -> tuple[Tree, MultiStep]:
        state, step = jax.vmap(self.env.step)(state, action["agent"], jax.random.split(key, 2))
        obs, reward = {"agent": step.obs}, {"agent": step.reward}
        return state, MultiStep(obs, reward, step.terminated.any(), step.truncated.any())


def training(env: object, rows: int) -> CompiledTraining:
    config = PPOConfig().rollouts(num_envs_per_worker=rows, rollout_fragment_length=LENGTH)
    config.training(train_batch_size=rows * LENGTH, minibatch_size=256, num_epochs=4)
    agent = agent_for(config, spec_of(env), LENGTH)  # type: ignore[arg-type]
    return CompiledTraining(agent, env, rows, LENGTH, 1.0, KEY)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_speed_options(parser)
    arguments = parser.parse_args()
    require_idle(arguments)
    cartpole = TimeLimit(CartPole(), 500)
    cases = {
        "one agent, 16 environments": training(cartpole, ROWS),
        "two that always act, 8 environments": training(JointEnv(Together(cartpole)), ROWS // 2),
        "two that fall one by one, 8 environments": training(JointEnv(Copies(cartpole, 2)), ROWS // 2),
    }
    for case in cases.values():
        case.advance(ITERATIONS)
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(arguments.rounds):
        for name, case in cases.items():
            start = time.process_time()
            case.advance(ITERATIONS)
            rates[name].append(ROWS * LENGTH * ITERATIONS / (time.process_time() - start))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    first = next(iter(medians.values()))
    for name, rate in medians.items():
        print(f"{name}: {rate:,.0f} steps of agents a second, {first / rate:.2f}x the time of one agent")
    if arguments.json:
        ratios = {name: round(first / rate, 3) for name, rate in medians.items()}
        write_manifest(arguments.json, {"times_of_one_agent": ratios}, {"athlete": sys.executable}, rates=rates)


if __name__ == "__main__":
    main()
