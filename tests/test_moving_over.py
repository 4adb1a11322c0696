"""Whole programs for other libraries, block by block: each runs once their name is replaced, or is answered."""

from __future__ import annotations

import logging
import re
import sys
import types
from pathlib import Path
from typing import NamedTuple

import gymnasium
import numpy as np
import pytest

PROGRAMS = Path(__file__).parent / "programs"


class Block(NamedTuple):
    """A section of a program: its code, and what is said to it."""

    title: str
    code: str
    answer: str | None  # of the error
    warning: str | None


def read(name: str) -> tuple[str, list[Block]]:
    """The code before the first section of a program, and its sections."""
    head, *sections = re.split(r"^## ", (PROGRAMS / name).read_text(encoding="utf-8"), flags=re.M)
    blocks = []
    for section in sections:
        said = {kind: re.search(rf"^{kind}: `(.+)`$", section, re.M) for kind in ("Answered", "Warned")}
        answer, warning = (None if found is None else found[1] for found in said.values())
        blocks.append(Block(section.partition("\n")[0], code_of(section), answer, warning))
    return code_of(head), blocks


def code_of(text: str) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S))


def run(code: str) -> None:
    """Run a program as a module of its own, so that its classes can be found by their names."""
    module = types.ModuleType("moved_program")
    sys.modules[module.__name__] = module
    try:
        exec(compile(code, module.__name__, "exec"), module.__dict__)
    finally:
        del sys.modules[module.__name__]


def check(block: Block, head: str, caplog: pytest.LogCaptureFixture) -> None:
    run(head)
    caplog.clear()
    if block.answer is None:
        run(f"{head}\n{block.code}")
    else:
        with pytest.raises(Exception, match=re.escape(block.answer)):
            run(f"{head}\n{block.code}")
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert any(block.warning in warning for warning in warnings) if block.warning is not None else True


RLLIB_HEAD, RLLIB = read("rllib_2_2.md")


def test_there_are_55_blocks_for_rllib():
    assert [block.title.partition(".")[0] for block in RLLIB] == [str(number) for number in range(1, 56)]


@pytest.mark.parametrize("block", RLLIB, ids=[block.title for block in RLLIB])
def test_a_block_for_rllib_runs_or_is_answered(block, caplog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    head, code = (re.sub(r"\bray\b", "athlete", text) for text in (RLLIB_HEAD, block.code))
    check(block._replace(code=code), head, caplog)


SB3_HEAD, SB3 = read("stable_baselines3.md")


def test_there_are_20_blocks_for_stable_baselines3():
    assert [block.title.partition(".")[0] for block in SB3] == [str(number) for number in range(1, 21)]


@pytest.mark.parametrize("block", SB3, ids=[block.title for block in SB3])
def test_a_block_for_stable_baselines3_runs_or_is_answered(block, caplog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    head, code = (text.replace("stable_baselines3", "athlete.sb3") for text in (SB3_HEAD, block.code))
    check(block._replace(code=code), head, caplog)


def test_a_model_of_stable_baselines3_says_what_there_is_instead(tmp_path, monkeypatch):
    from athlete.env.world import env_name
    from athlete.record.checkpoint import CheckpointError
    from athlete.sb3 import DQN, PPO

    with pytest.raises(ValueError, match=r"PPO\(n_step=128\): did you mean 'n_steps'"):
        PPO("MlpPolicy", "CartPole-v1", n_step=128)
    model = PPO("MlpPolicy", gymnasium.make("CartPole-v1"), n_steps=32, batch_size=32, n_epochs=1)
    assert env_name(model.algorithm.config.env) == "CartPole-v1"
    with pytest.raises(AttributeError, match=r"no attribute 'env': get_env\(\) gives environments"):
        _ = model.env
    monkeypatch.chdir(tmp_path)
    model.save("cartpole.zip")
    assert PPO.load("cartpole.zip", "CartPole-v1").num_timesteps == 0
    acting = PPO.load("cartpole")
    assert acting.predict([0.0] * 4, deterministic=True) == model.predict([0.0] * 4, deterministic=True)
    with pytest.raises(AttributeError, match=r"Model\.load\(path, env\) learns on"):
        acting.learn(32)
    with pytest.raises(CheckpointError, match="there is no such folder"):
        PPO.load("nowhere")
    two = DQN("MlpPolicy", "CartPole-v1", train_freq=4, gradient_steps=2, batch_size=32)
    as_many = DQN("MlpPolicy", "CartPole-v1", train_freq=4, gradient_steps=-1, batch_size=32)
    one = DQN("MlpPolicy", "CartPole-v1", train_freq=4, gradient_steps=1, batch_size=32)
    assert [model.algorithm.config.updates() for model in (one, two, as_many)] == [1, 2, 4]


def test_a_model_of_stable_baselines3_has_environments_to_play_in():
    from athlete.sb3 import PPO, evaluate_policy, make_vec_env

    small = {"n_steps": 32, "batch_size": 32, "n_epochs": 1, "seed": 0}
    model = PPO("MlpPolicy", gymnasium.make("CartPole-v1", render_mode="rgb_array", max_episode_steps=7), **small)
    env = model.get_env()
    obs = env.reset()
    for _ in range(7):
        obs, rewards, dones, infos = env.step(model.predict(obs, deterministic=True)[0])
        assert obs.shape == (1, 4) and rewards.tolist() == [1.0]
    assert dones.tolist() == [True] and infos[0]["TimeLimit.truncated"] and np.abs(obs).max() <= 0.05, "it is reset"
    assert infos[0]["terminal_observation"].shape == (4,) and env.render().shape[-1] == 3
    assert evaluate_policy(model, env, 2, return_episode_rewards=True) == ([7.0, 7.0], [7, 7])
    env.close()
    assert PPO("MlpPolicy", make_vec_env("CartPole-v1", 3), **small).get_env().reset().shape == (3, 4)
    with pytest.raises(ValueError, match=r"get_env\(\): an environment that is an object cannot be made again"):
        PPO("MlpPolicy", Endless(), **small).get_env()


class Endless(gymnasium.Env):
    observation_space, action_space = gymnasium.spaces.Box(0.0, 1.0, (1,)), gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.low, {}

    def step(self, action):
        return self.observation_space.low, 0.0, False, False, {}
