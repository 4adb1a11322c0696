"""Environments that fail, hang and die, for tests. Apart, so that worker processes import neither JAX nor pytest."""

import os
import time

import gymnasium
import numpy as np


class Frail(gymnasium.Env):
    """Episodes of ten steps. In the row `row`, at its step `at` in all, it does what `trouble` says, once: the folder
    `lives` tells whether it has."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, env_config):
        self.context, self.total = env_config, 0
        self.metadata = {"any_thread": env_config.get("any_thread", True)}
        self.row = env_config.vector_index + 100 * env_config.worker_index

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.total += 1
        self.steps += 1
        if self.row == self.context["row"] and self.total == self.context["at"] and self.is_first_life():
            TROUBLES[self.context["trouble"]]()
        return np.full(2, self.steps / 10, np.float32), 1.0, self.steps == 10, False, {}

    def is_first_life(self):
        try:
            os.mkdir(self.context["lives"])
        except FileExistsError:
            return self.context.get("always", False)
        return True


def raise_error():
    raise ZeroDivisionError("no such place")


def spin():
    while True:
        pass


TROUBLES = {"raises": raise_error, "dies": lambda: os._exit(3), "sleeps": lambda: time.sleep(1000), "spins": spin}
