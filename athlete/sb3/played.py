"""Environments side by side as Stable-Baselines3's programs play in them: what `model.get_env()` gives."""

from __future__ import annotations

from typing import Any

import numpy as np

from athlete.env.adapters.gymnasium import make_gymnasium
from athlete.settings.config import AlgorithmConfig


class Played:
    """Environments like those that a model learns in, and not these: `reset()`, `step(actions)`, `render()`.

    Actions, rewards and `dones` are `[num_envs]`, observations `[num_envs, ...]`. One whose episode is over is reset at
    once; its `info` has the "terminal_observation", and whether "TimeLimit.truncated".

    Raises ValueError where the environment is an object that cannot be made again.
    """

    def __init__(self, config: AlgorithmConfig):
        env = config.env
        if hasattr(env, "step"):
            env = getattr(env, "spec", None)
            if env is None:
                raise ValueError(
                    "get_env(): an environment that is an object cannot be made again; play in it yourself"
                )
        chosen = config.chosen()
        self.num_envs: int = config.rows() if "num_envs_per_worker" in chosen else 1
        self.envs: list[Any] = [make_gymnasium(env, chosen.get("env_config")) for _ in range(self.num_envs)]

    def reset(self) -> Any:
        return _stacked([env.reset()[0] for env in self.envs])

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, list[dict]]:
        """`(observations, rewards, dones, infos)`."""
        steps = [_step(env, action) for env, action in zip(self.envs, actions, strict=True)]
        obs, rewards, dones, infos = zip(*steps, strict=True)
        return _stacked(obs), np.array(rewards, np.float32), np.array(dones, bool), list(infos)

    def render(self, mode: str | None = None) -> Any:
        """What the first one draws; how was said when it was made (`render_mode`)."""
        return self.envs[0].render()

    def close(self) -> None:
        for env in self.envs:
            env.close()


def _step(env: Any, action: Any) -> tuple[Any, float, bool, dict]:
    obs, reward, terminated, truncated, info = env.step(action)
    if not (terminated or truncated):
        return obs, float(reward), False, info
    more = {"terminal_observation": obs, "TimeLimit.truncated": truncated and not terminated}
    return env.reset()[0], float(reward), True, {**info, **more}


def _stacked(observations: Any) -> Any:
    if isinstance(observations[0], dict):
        return {name: np.stack([each[name] for each in observations]) for name in observations[0]}
    return np.stack(observations)
