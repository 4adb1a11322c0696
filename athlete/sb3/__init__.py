"""Stable-Baselines3's first hour: `PPO("MlpPolicy", "CartPole-v1").learn(10_000)`, over an `athlete.Algorithm`.

Defaults are Athlete's. `model.algorithm` is what stands behind, with all there is beyond this page.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np

from athlete.algorithm import Algorithm
from athlete.algorithms import get_config_class
from athlete.policy import Policy
from athlete.record.checkpoint import CheckpointError
from athlete.rllib.names import find
from athlete.sb3.played import Played
from athlete.settings.config import AlgorithmConfig
from athlete.settings.memory import memory_name
from athlete.settings.rllib_names import STABLE_BASELINES, no_attribute
from athlete.spaces import Dict, Space, Tuple

POLICIES = ("MlpPolicy", "CnnPolicy", "MultiInputPolicy")
WITHOUT_EFFECT = ("device", "_init_setup_model", "stats_window_size", "optimize_memory_usage")

# Argument -> our setting of the same meaning, by what is learned from.
_ALL = {"gamma": "gamma", "seed": "seed", "max_grad_norm": "grad_clip"}
_LATEST = {
    **_ALL,
    "learning_rate": "lr",
    "batch_size": "minibatch_size",
    "n_epochs": "num_epochs",
    "gae_lambda": "lambda_",
    "clip_range": "clip_param",
    "ent_coef": "entropy_coeff",
    "vf_coef": "vf_loss_coeff",
}
_REPLAY = {
    **_ALL,
    "batch_size": "train_batch_size",
    "learning_starts": "num_steps_sampled_before_learning_starts",
    "tau": "tau",
    "train_freq": "rollout_fragment_length",
    "target_update_interval": "target_network_update_freq",
    "policy_delay": "policy_delay",
}
_RATES = {"DQN": ("lr",), "SAC": ("actor_lr", "critic_lr", "alpha_lr")}
# Attribute of their models -> what there is instead.
_INSTEAD = {
    "env": "get_env() gives environments to play in",
    **dict.fromkeys(
        ("algorithm", "num_timesteps"),
        "the model's environment was an object, which no file holds: Model.load(path, env) learns on",
    ),
    "set_env": "Model.load(path, env) goes on in another environment",
    **dict.fromkeys(("get_parameters", "set_parameters"), "model.algorithm has get_weights() and set_weights(weights)"),
    **dict.fromkeys(("save_replay_buffer", "load_replay_buffer", "replay_buffer"), "save(path) keeps the memory too"),
    **dict.fromkeys(("logger", "set_logger"), "tensorboard_log=FOLDER writes TensorBoard, CSV and JSON"),
    "get_vec_normalize_env": "filters are settings: rollouts(observation_filter='MeanStdFilter')",
}
_EPSILONS = {"exploration_initial_eps": "initial_epsilon", "exploration_final_eps": "final_epsilon"}


class VecEnv(NamedTuple):
    """Environments side by side: what `make_vec_env` gives and a model takes."""

    env: Any
    n_envs: int = 1
    env_kwargs: Any = None
    workers: int = 0


def make_vec_env(
    env_id: Any, n_envs: int = 1, seed: int | None = None, *, env_kwargs: Any = None, vec_env_cls: Any = None
) -> VecEnv:
    """`n_envs` environments of an id, a class or a factory; in processes with `vec_env_cls=SubprocVecEnv`.

    The model's `seed` seeds them.
    """
    return VecEnv(env_id, n_envs, env_kwargs, n_envs if vec_env_cls is SubprocVecEnv else 0)


class SubprocVecEnv:
    """For `make_vec_env(vec_env_cls=SubprocVecEnv)`: a process for each environment."""


class DummyVecEnv:
    """For `make_vec_env(vec_env_cls=DummyVecEnv)`: environments in this process."""


class HerReplayBuffer:
    """For `replay_buffer_class=HerReplayBuffer`: hindsight, with its `replay_buffer_kwargs`."""


class Model:
    """An algorithm in its environment under Stable-Baselines3's names. Subclasses name it: `PPO`, `DQN`, `SAC`, ...

    Args:
        policy: "MlpPolicy", "CnnPolicy" or "MultiInputPolicy"; the network follows from the observations.
        env: an id, an environment, or what `make_vec_env` gave.
        verbose: 1 prints a line for each iteration.
        arguments: those that have a meaning here; of others an error says what is so instead.
    """

    name: ClassVar[str]
    _alone: Policy | None  # what acts where no environment can be made again

    def __init__(self, policy: Any, env: Any, verbose: int = 0, **arguments: Any):
        if policy not in POLICIES:
            raise ValueError(
                f"{self.name}({policy!r}, ...): expected one of {', '.join(POLICIES)}; a network of your own is an "
                "athlete.core.Model in a configuration"
            )
        self.verbose, self._alone = verbose, None
        self.algorithm: Algorithm = configured(self.name, env, arguments).build()

    if not TYPE_CHECKING:  # which would take every name for one that is there

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name, _INSTEAD)

    @property
    def num_timesteps(self) -> int:
        return int(self.algorithm.run.timesteps)

    @property
    def policy(self) -> Policy:
        """What acts, as it is now."""
        return self.algorithm.get_policy() if self._alone is None else self._alone

    def learn(self, total_timesteps: int, callback: Any = None, progress_bar: bool = False, **of_logs: Any) -> Self:
        """Train for at least so many timesteps more."""
        if callback is not None:
            raise ValueError(
                "learn(callback=...): hooks are methods of athlete.DefaultCallbacks; evaluation, checkpoints and stops "
                "are settings: .evaluation(evaluation_interval=...), .checkpointing(checkpoint_freq=...), and "
                "model.algorithm.learn(stop=...)"
            )
        if progress_bar:
            self.algorithm.learn(total_timesteps, progress_bar=True)
            return self
        end = self.num_timesteps + total_timesteps
        while self.num_timesteps < end:
            result = self.algorithm.train()
            if self.verbose:
                print(f"{self.num_timesteps} timesteps, episode_reward_mean {result['episode_reward_mean']:.4g}")
        return self

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """`(action, state)` for one observation, or `(actions, state)` for many stacked `[B, ...]`."""
        policy = self.policy
        many = _is_many(policy.observation_space, observation)
        act = policy.compute_actions if many else policy.compute_single_action
        if episode_start is not None and np.all(episode_start):
            state = None
        action, state, _ = act(observation, state, explore=not deterministic)
        return action, state if policy.is_recurrent() else None

    def get_env(self) -> Played:
        """Environments like the model's, to play in."""
        return Played(self.algorithm.config)

    def save(self, path: str | Path) -> None:
        """Write the model into the folder `path`."""
        self.algorithm.save(_folder(path))

    @classmethod
    def load(cls, path: str | Path, env: Any = None) -> Self:
        """The model that was saved in the folder `path`, ready to act and to learn on.

        One whose environment was an object acts without it, and learns on where it is given again.
        """
        model = cls.__new__(cls)
        model.verbose, model._alone = 0, None
        try:
            model.algorithm = Algorithm.from_checkpoint(_folder(path), env)
        except CheckpointError:
            if env is not None:
                raise
            model._alone = Policy.from_checkpoint(_folder(path))
        return model


def _folder(path: str | Path) -> Path:
    """Where a model is; the `.zip` of their files may be said and is left out."""
    return Path(str(path).removesuffix(".zip")) / "checkpoint"


def configured(name: str, env: Any, arguments: dict[str, Any]) -> AlgorithmConfig:
    """The configuration of the algorithm `name` with Stable-Baselines3's arguments.

    Raises ValueError for one that has no meaning here, with what is so instead.
    """
    config = get_config_class(name)()
    replay = "replay_buffer_config" in config
    vec = env if isinstance(env, VecEnv) else VecEnv(env)
    given = {argument: value for argument, value in arguments.items() if argument not in WITHOUT_EFFECT}
    settings: dict[str, Any] = {"env": vec.env, "env_config": vec.env_kwargs or {}}
    settings["logdir"] = given.pop("tensorboard_log", None) or False
    if isinstance(env, VecEnv) or not isinstance(env, str):
        settings |= {"num_rollout_workers": vec.workers, "num_envs_per_worker": 1 if vec.workers else vec.n_envs}
    if "n_steps" in given and not replay:
        settings["train_batch_size"] = given.pop("n_steps") * vec.n_envs
    if "learning_rate" in given and replay:
        settings |= dict.fromkeys(_RATES.get(name, ("actor_lr", "critic_lr")), given.pop("learning_rate"))
    if replay and given.get("ent_coef") == "auto":
        del given["ent_coef"]
    memory = {"capacity": given.pop("buffer_size")} if "buffer_size" in given else {}
    if replay and given.get("replay_buffer_class") is not None:
        kind = memory_name(given.pop("replay_buffer_class"))  # a name: checkpoints hold no classes
        memory |= {"type": kind, **(given.pop("replay_buffer_kwargs", None) or {})}
    if memory:
        settings["replay_buffer_config"] = memory
    epsilons = {ours: given.pop(theirs) for theirs, ours in _EPSILONS.items() if theirs in given}
    if epsilons:
        settings["exploration_config"] = {"type": "EpsilonGreedy", **epsilons}
    if given.get("policy_kwargs") is not None:
        settings["model"] = _network(given.pop("policy_kwargs"))
    known = _REPLAY if replay else _LATEST
    if replay and (updates := given.pop("gradient_steps", 1)) != 1:  # one is what None means
        batch = given.get("batch_size", config.train_batch_size)
        steps = given.get("train_freq", config.fragment_length()) * vec.n_envs
        settings["training_intensity"] = batch if updates < 0 else updates * batch / steps
    for argument, value in given.items():
        if value is None:
            continue
        if argument not in known or known[argument] not in config:
            raise ValueError(f"{name}({argument}={value!r}): {_told(argument, [*known, *STABLE_BASELINES])}")
        settings[known[argument]] = value
    return config.update_from_dict(settings)


def _told(argument: str, names: list[str]) -> str:
    """The end of the sentence about an argument without a meaning here."""
    if argument in STABLE_BASELINES:
        return f"in a configuration of Athlete it is {STABLE_BASELINES[argument]}"
    near = difflib.get_close_matches(argument, names, n=1)
    return f"did you mean {near[0]!r}?" if near else "`Coming from Stable-Baselines3` lists what there is instead"


def _network(policy_kwargs: dict[str, Any]) -> dict[str, Any]:
    layers = policy_kwargs.get("net_arch")
    if set(policy_kwargs) != {"net_arch"} or not isinstance(layers, list):
        raise ValueError(
            f"policy_kwargs={policy_kwargs!r}: expected {{'net_arch': [64, 64]}}; everything else about a network is "
            "said in a configuration, training(model={...})"
        )
    return {"fcnet_hiddens": layers}


def _is_many(space: Space, observation: Any) -> bool:
    """Whether observations are stacked `[B, ...]`."""
    while isinstance(space, Dict | Tuple):
        name, space = space.items[0] if isinstance(space, Dict) else (0, space.spaces[0])
        observation = observation[name]
    return np.ndim(observation) > len(space.shape)


def evaluate_policy(
    model: Model, env: Any = None, n_eval_episodes: int = 10, deterministic: bool = True, **more: Any
) -> tuple[Any, Any]:
    """`(mean, standard deviation)` of the returns of so many episodes, in the model's own environment.

    With `return_episode_rewards=True` the returns and lengths themselves. An environment of Gymnasium that is given is
    played in.
    """
    if isinstance(env, Played):
        env = env.envs[0]
    if hasattr(env, "step"):
        returns, lengths = _played(model, env, n_eval_episodes, deterministic)
    elif not deterministic:
        raise ValueError("evaluate_policy(deterministic=False): give an environment of Gymnasium to play in")
    else:
        hist = model.algorithm.evaluate(n_eval_episodes)["evaluation"]["hist_stats"]
        returns, lengths = hist["episode_reward"], hist["episode_lengths"]
    if more.get("return_episode_rewards"):
        return returns, lengths
    return float(np.mean(returns)), float(np.std(returns))


def _played(model: Model, env: Any, episodes: int, deterministic: bool) -> tuple[list[float], list[int]]:
    returns, lengths = [], []
    for _ in range(episodes):
        (obs, _), state, total, length, over = env.reset(), None, 0.0, 0, False
        while not over:
            action, state = model.predict(obs, state, deterministic=deterministic)
            obs, reward, terminated, truncated, _ = env.step(action)
            total, length, over = total + float(reward), length + 1, terminated or truncated
        returns.append(total)
        lengths.append(length)
    return returns, lengths


def _model(name: str) -> type[Model]:
    doc = f"{name} under Stable-Baselines3's names; see `Model`."
    return type(name, (Model,), {"name": name, "__module__": __name__, "__doc__": doc})


PPO, A2C, DQN, SAC, TD3, DDPG = map(_model, ("PPO", "A2C", "DQN", "SAC", "TD3", "DDPG"))


def __getattr__(name: str) -> Any:
    return find("sb3", name)
