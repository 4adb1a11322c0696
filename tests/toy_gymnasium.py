"""Tiny Gymnasium environments for tests. Apart, so that worker processes import neither JAX nor pytest with them."""

import os

import gymnasium
import numpy as np
from gymnasium import spaces as gs


class Counter(gymnasium.Env):
    """Shows its step counter and a number drawn at the reset; terminates after `length`, is cut after `limit`."""

    observation_space = gs.Dict({"count": gs.Box(0, 100, (1,), np.float32), "drawn": gs.Discrete(1000, start=5)})
    action_space = gs.Discrete(3, start=1)

    def __init__(self, env_config):
        self.length = env_config.get("length", 3) + env_config.vector_index
        self.limit = env_config.get("limit", 1000)
        self.trouble = env_config.get("trouble", {})
        self.context = env_config

    def _observe(self):
        return {"count": np.array([self.count], np.float32), "drawn": self.drawn}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.drawn = 0, int(self.np_random.integers(5, 1005))
        return self._observe(), {}

    def step(self, action):
        assert action in self.action_space, action
        self.count += 1
        if self.trouble.get(self.context.vector_index) == self.count:
            raise ZeroDivisionError("the 100% track %s is broken")
        return (
            self._observe(),
            float(action),
            self.count >= self.length,
            self.count >= self.limit,
            {"count": self.count},
        )


class Dies(Counter):
    def step(self, action):
        if self.context.worker_index == 2:
            os._exit(3)
        return super().step(action)


class Space:  # stands for gym.spaces.Space: known by its name, gym need not be installed
    pass


class Box(Space):
    low, high, shape, dtype = np.zeros(2), np.ones(2), (2,), np.dtype(np.float64)


class Discrete(Space):
    n = 2


class Old:
    """As written for gym 0.21: no base class of Gymnasium, its own spaces, `seed` apart from `reset`."""

    observation_space, action_space = Box(), Discrete()
    seeded = None

    def seed(self, seed):
        self.seeded = seed

    def reset(self):
        self.count = 0
        return np.zeros(2)

    def step(self, action):
        self.count += 1
        cut = self.count == 3
        return np.ones(2), 1.0, self.count >= 2, {"TimeLimit.truncated": True} if cut else {}

    def render(self, mode="human"):
        return f"drawn as {mode}"


class HalfMigrated(gymnasium.Env):
    """A gymnasium.Env whose methods still answer as of old."""

    observation_space, action_space = gs.Box(0, 1, (2,), np.float32), gs.Discrete(2)

    def reset(self, seed=None, options=None):
        return np.zeros(2, np.float32)

    def step(self, action):
        return np.ones(2, np.float32), 1.0, True, {}


class Everything(gymnasium.Env):
    """Shows random elements of every kind of space, and insists on actions of every kind that lie in theirs."""

    observation_space = gs.Dict(
        {
            "numbers": gs.Tuple([gs.Box(-1, 1, (2, 2), np.float64), gs.Box(-5, 5, (1,), np.int64)]),
            "image": gs.Box(0, 255, (2, 2, 3), np.uint8),
            "flags": gs.Tuple([gs.MultiBinary([2, 1]), gs.Box(0, 1, (2,), bool)]),
            "which": gs.MultiDiscrete([[2, 3], [4, 5]], start=[[0, 1], [0, -1]]),
            "choice": gs.OneOf([gs.Discrete(3, start=1), gs.Dict({"deep": gs.Box(-1, 1, (2,))})]),
        }
    )
    action_space = gs.Dict(
        {
            "move": gs.Tuple([gs.Box(-2, 5, (2, 1), np.float64), gs.Box(0, np.inf, ()), gs.Box(-np.inf, np.inf, (1,))]),
            "count": gs.Box(3, 6, (2,), np.uint8),
            "pick": gs.Tuple([gs.Discrete(3, start=-1), gs.MultiDiscrete([[2, 3]]), gs.MultiBinary(2)]),
        }
    )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        assert action in self.action_space, action
        self.steps += 1
        return self.observation_space.sample(), 1.0, self.steps == 3, False, {}


class Doors(gymnasium.Env):
    """Three doors of which some are locked, as `info["action_mask"]` tells; a locked one is an error."""

    observation_space = gs.Box(0, 1, (1,), np.float32)
    action_space = gs.Discrete(3, start=1)

    def __init__(self, env_config):
        self.stuck_at = env_config.get("stuck_at", -1)

    def _info(self):
        self.open = self.np_random.permuted(np.array([1, self.np_random.integers(2), 0], np.int8))
        return {"action_mask": self.open * (self.steps != self.stuck_at)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), self._info()

    def step(self, action):
        assert self.open[action - 1], f"door {action} is locked"
        self.steps += 1
        ended = self.steps == 5
        return np.zeros(1, np.float32), 1.0, ended, False, {} if ended else self._info()


class Fickle(gymnasium.Env):
    """What `answer(step)` says, of all steps; the two spaces are `env_config["spaces"]` where it has them."""

    observation_space, action_space = gs.Box(-1, 1, (2,), np.float32), gs.Discrete(2)

    def __init__(self, env_config):
        self.answer = env_config["answer"]
        self.observation_space = env_config.get("space", self.observation_space)
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.answer(0)[0], {}

    def step(self, action):
        self.steps += 1
        return self.answer(self.steps)


class Pid(gymnasium.Env):
    """Shows the number of its process."""

    observation_space, action_space = gs.Box(0, 2**31 - 1, (1,), np.int32), gs.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.array([os.getpid()], np.int32), {}

    def step(self, action):
        return np.array([os.getpid()], np.int32), 0.0, False, False, {}


class SeedOnly(gymnasium.Env):
    """Its `reset` takes no options."""

    observation_space, action_space = gs.Box(0, 1, (1,), np.float32), gs.Discrete(2)

    def reset(self, seed=None):
        super().reset(seed=seed)
        return self.np_random.random(1).astype(np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, True, False, {}


class OldStep(SeedOnly):
    """Today's `reset`, and a `step` of four values."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed)

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, True, {"TimeLimit.truncated": True}
