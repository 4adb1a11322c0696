"""Environments for tests of workers. Apart, so that worker processes do not import pytest with them."""

import os
import signal
import time

import gymnasium
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv, PendulumEnv
from hanging import Frail

from athlete.env import MultiAgentEnv


class Pole(CartPoleEnv):
    """CartPole whose hosted loop takes a call for each step, and whose episodes are cut after 15."""

    def __init__(self, env_config):
        super().__init__()
        self.metadata = {**self.metadata, "any_thread": False}
        self.slowness = env_config.get("slowness", 0.0)

    def reset(self, **options):
        self.taken = 0
        return super().reset(**options)

    def step(self, action):
        time.sleep(self.slowness)
        self.taken += 1
        obs, reward, terminated, truncated, _ = super().step(action)
        return obs, reward, terminated, truncated or self.taken == 15, {"taken": self.taken}


class Swing(gymnasium.wrappers.TimeLimit):
    """Pendulum in the same way, cut after 9."""

    def __init__(self, env_config):
        env = PendulumEnv()
        env.metadata = {**env.metadata, "any_thread": False}
        super().__init__(env, 9)


class Pair(MultiAgentEnv):
    """Two agents who both act at every step, five times, and are paid for the same choice."""

    def __init__(self, env_config):
        super().__init__()
        self.possible_agents = self.agents = ["left", "right"]
        self.observation_space = gymnasium.spaces.Box(-9.0, 9.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._seen(), {}

    def _seen(self):
        return {agent: self.np_random.normal(size=2).astype(np.float32) for agent in self.agents}

    def step(self, action_dict):
        self.steps += 1
        reward = float(action_dict["left"] == action_dict["right"])
        over = self.steps == 5
        ends = {"__all__": over}
        return self._seen(), dict.fromkeys(self.agents, reward), ends, {"__all__": False}, {}


class Deaf(Frail):
    """It hangs where no signal reaches it."""

    def step(self, action):
        if self.total + 1 == self.context["at"]:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})
        return super().step(action)


class Unmakeable(Pole):
    def __init__(self, env_config):
        super().__init__(env_config)
        if env_config.worker_index == 2:
            raise ZeroDivisionError("no room in worker 2")


class Deadly(Pole):
    def __init__(self, env_config):
        super().__init__(env_config)
        if env_config.worker_index == 2:
            os._exit(4)
