"""What configurations share whose algorithms explore by a type or have a replay memory: RLlib's dictionaries."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from athlete.settings.checks import is_schedule, require_count, require_known, require_number
from athlete.settings.config import AlgorithmConfig, Setting

REPLAY_SETTINGS: dict[str, Setting] = {
    "replay_buffer_config": Setting("training", {}, "dict"),
    "training_intensity": Setting("training", None, "number or None"),
    "store_buffer_in_checkpoints": Setting("training", True, "bool"),
    "sample_async": Setting("rollouts", False, "bool"),
}

# RLlib's names of memories -> whether prioritised. Its multi-agent ones are the same with one agent.
MEMORIES = {
    "ReplayBuffer": False,
    "EpisodeReplayBuffer": False,
    "MultiAgentReplayBuffer": False,
    "PrioritizedReplayBuffer": True,
    "PrioritizedEpisodeReplayBuffer": True,
    "MultiAgentPrioritizedReplayBuffer": True,
}
SEQUENCE_ALGORITHMS = "R2D2 (discrete actions) or RNNSAC"
UNIFORM_MEMORIES = tuple(name for name, prioritized in MEMORIES.items() if not prioritized)
MEMORY_SETTINGS: dict[str, Any] = {
    "type": "ReplayBuffer",
    "capacity": 50_000,  # timesteps
    "prioritized_replay_alpha": 0.6,
    "prioritized_replay_beta": 0.4,  # a number or a schedule
    "prioritized_replay_eps": 1e-6,
    "stack_axis": None,  # the axis of observations that is a stack of frames: each frame is then stored once
    "replay_burn_in": 0,  # timesteps before each sequence that only bring the recurrent state up to date
}
# RLlib's keys with values that say what is so in any case: sequences of max_seq_len begin at every timestep.
SAME_MEMORIES = (
    ("storage_unit", "timesteps"),
    ("storage_unit", "sequences"),
    ("replay_sequence_length", -1),
    ("worker_side_prioritization", False),
)
MEMORY_SPELLINGS = {"alpha": "prioritized_replay_alpha", "beta": "prioritized_replay_beta"}


class ExplorationConfig(AlgorithmConfig):
    """A configuration whose agent has no random policy of its own. Subclasses name the exploration types that fit."""

    fields_set_elsewhere = (*AlgorithmConfig.fields_set_elsewhere, "exploration", "random_timesteps")

    def all_schedules(self) -> list[Any]:
        points = _level_points(self._exploration().exploration)
        return super().all_schedules() + ([] if points is None else [points])

    def agent_parts(self) -> dict[str, Any]:
        exploration, fields = self._exploration().exploration, self.model_parts()
        if "random_timesteps" in self.agent_fields():
            fields["random_timesteps"] = exploration["random_timesteps"]
        if "exploration" in self.agent_fields():
            fields["exploration"] = _make_exploration(exploration, self.horizon())
        return fields

    def model_parts(self) -> dict[str, Any]:
        """The agent's networks: here one torso for all heads."""
        from athlete.models.catalog import make_model

        return {"model": make_model({**self.model, "vf_share_layers": True})}

    @classmethod
    def agent_fields(cls) -> set[str]:
        """The names of the agent's hyperparameters."""
        import dataclasses

        return {field.name for field in dataclasses.fields(cls.agent_class)}  # type: ignore[arg-type]


class ReplayConfig(ExplorationConfig):
    """A configuration whose agent learns from a replay memory. Subclasses may name the memories that fit."""

    more_settings = REPLAY_SETTINGS
    memory_types: ClassVar[tuple[str, ...]] = tuple(MEMORIES)
    learns_sequences: ClassVar[bool] = False  # its networks have memory, and its samples are sequences of steps
    fields_set_elsewhere = (*ExplorationConfig.fields_set_elsewhere, "timesteps_per_update", "burn_in")

    def _set(self, section: str | None, settings: Mapping[str, Any]) -> Self:
        if self.learns_sequences and "burn_in" in settings:  # where RLlib had it before its replay_buffer_config
            memory = {**settings.get("replay_buffer_config", {}), "replay_burn_in": settings["burn_in"]}
            settings = {name: value for name, value in settings.items() if name != "burn_in"}
            settings["replay_buffer_config"] = memory
        return super()._set(section, settings)

    def _merged(self, name: str, value: Any) -> Any:
        merged = super()._merged(name, value)
        if name == "model" and self.learns_sequences:
            from athlete.models.catalog import merged_models

            return merged_models(merged, value)
        return merged

    def fragment_length(self) -> int:
        """How many steps each environment takes an iteration."""
        return 1 if self.rollout_fragment_length == "auto" else self.rollout_fragment_length

    def updates(self) -> int:
        """Updates an iteration: `training_intensity` is timesteps learned from over timesteps sampled."""
        if self.training_intensity is None:
            return 1
        return round(self.training_intensity * self.rows() * self.fragment_length() / self.learned_per_update())

    def learned_per_update(self) -> int:
        """Timesteps that one update learns from: whole sequences, at least one."""
        sequence = self.sequence_length()
        return max(1, self.train_batch_size // sequence) * sequence

    def all_schedules(self) -> list[Any]:
        beta = self._memory()["prioritized_replay_beta"]
        return super().all_schedules() + ([beta] if is_schedule(beta) else [])

    def agent_parts(self) -> dict[str, Any]:
        length, updates = self.fragment_length(), self.updates()
        fields = {**super().agent_parts(), "updates": updates, "memory": self._make_memory(length)}
        if "timesteps_per_update" in self.agent_fields():
            fields["timesteps_per_update"] = self.rows() * length / updates
        if self.learns_sequences:
            fields["burn_in"] = self._memory()["replay_burn_in"]
        return fields

    def window_length(self) -> int:
        """Consecutive steps of a sample: the burn-in, those that are learned from, and those of the last one's target.

        A network without memory learns from one, `n_step` make its target, and there is no burn-in.
        """
        return self._memory()["replay_burn_in"] + self.sequence_length() - 1 + (self.get("n_step") or 1)

    def validate(self) -> None:
        super().validate()
        self._check_recurrence()
        title, batch, memory = self._title(), self.train_batch_size, self._memory()
        warm_up, capacity = self.num_steps_sampled_before_learning_starts, memory["capacity"]
        if batch > warm_up:
            raise ValueError(
                f"{title}: train_batch_size={batch} is larger than num_steps_sampled_before_learning_starts={warm_up}: "
                "the first batch would hold the same steps again and again; make the warm-up at least as long"
            )
        if capacity < batch:
            raise ValueError(
                f"{title}: replay_buffer_config has capacity={capacity} timesteps, less than train_batch_size={batch}"
            )
        if capacity < warm_up:
            raise ValueError(
                f"{title}: replay_buffer_config has capacity={capacity} timesteps, less than "
                f"num_steps_sampled_before_learning_starts={warm_up}: learning would start with part of them lost"
            )
        window, each = self.window_length(), capacity // self.rows()
        if window > each or window * self.rows() > warm_up:
            parts = "a sequence of replay_burn_in, max_seq_len and n_step steps" if self.learns_sequences else "n_step"
            raise ValueError(
                f"{title}: {parts}={window} is longer than what one of {self.rows()} environments has in memory when "
                f"learning starts ({min(each, warm_up // self.rows())} steps of capacity={capacity} and "
                f"num_steps_sampled_before_learning_starts={warm_up})"
            )
        if self.sample_async and self.fragment_length() > 1:
            raise ValueError(
                f"{title}: sample_async=True updates while the environments take one step; "
                f"it does not fit rollout_fragment_length={self.fragment_length()}, make that 1"
            )
        if self.updates() < 1:
            raise ValueError(
                f"{title}: training_intensity={self.training_intensity} is less than one update of "
                f"{self.learned_per_update()} timesteps for {self.rows() * self.fragment_length()} timesteps sampled; "
                f"make rollout_fragment_length at least {self._shortest_fragment()}"
            )

    def _check_recurrence(self) -> None:
        """Raise ValueError for networks with memory where samples are single steps, and without where they are not."""
        from athlete.models.catalog import is_recurrent

        title, burn_in = self._title(), self._memory()["replay_burn_in"]
        if burn_in and not self.learns_sequences:
            raise ValueError(
                f"{title}: replay_buffer_config has replay_burn_in={burn_in}, and its networks have no memory; "
                f"leave it out, or take {SEQUENCE_ALGORITHMS}"
            )
        for name, model in self.model_parts().items():
            if is_recurrent(model) and not self.learns_sequences:
                raise ValueError(
                    f"{title}: {name} is recurrent ({type(model).__name__}), and it learns from single steps; take "
                    f"{SEQUENCE_ALGORITHMS}, which learn from sequences, or a feed-forward network"
                )
            if self.learns_sequences and not is_recurrent(model):
                raise ValueError(
                    f"{title}: {name} has no memory ({type(model).__name__}), and it learns from sequences; set "
                    "model={'use_lstm': True}, 'use_gru' or 'use_attention', or take DQN or SAC"
                )

    def _shortest_fragment(self) -> int:
        assert self.training_intensity
        return -int(-self.learned_per_update() // (self.training_intensity * self.rows()))

    def _make_memory(self, length: int) -> Any:
        from athlete.memory.prioritized import Prioritized
        from athlete.memory.replay import Replay
        from athlete.ops.schedule import from_timesteps

        settings, sequence = self._memory(), self.sequence_length()
        shape = {
            "capacity": settings["capacity"],
            "batch_size": self.learned_per_update(),
            "sequence": sequence,
            "window": self.window_length(),
            "unroll": length,
            "keep_carry": self.learns_sequences and not self.zero_init_states,
            "stack_axis": settings["stack_axis"],
        }
        if not MEMORIES[settings["type"]]:
            return Replay(**shape)
        beta = settings["prioritized_replay_beta"]
        return Prioritized(
            alpha=settings["prioritized_replay_alpha"],
            beta=from_timesteps(beta, self.horizon()) if is_schedule(beta) else beta,
            epsilon=settings["prioritized_replay_eps"],
            **shape,
        )

    def _memory(self) -> dict[str, Any]:
        """`replay_buffer_config` over its defaults. Raises ValueError for names and values that cannot be."""
        return checked_memory(self.replay_buffer_config, self._title(), self.memory_types)

    def _check(self, name: str, given: str, value: Any, section: str | None, where: str, hints: dict) -> None:
        super()._check(name, given, value, section, where, hints)
        if name == "replay_buffer_config":
            checked_memory(self._merged(name, value), self._title(), self.memory_types)


# RLlib's older names of learning rates, in `optimization`.
OPTIMIZATION = {
    "actor_learning_rate": "actor_lr",
    "critic_learning_rate": "critic_lr",
    "entropy_learning_rate": "alpha_lr",
}


class ActorCriticConfig(ReplayConfig):
    """A configuration whose agent has an actor and critics apart: `policy_model` and `q_model`.

    `policy_model_config` and `q_model_config` are settings of `model` that hold for one of them. RLlib's older
    `optimization={"actor_learning_rate": ...}` sets the learning rates, its `target_entropy="auto"` is None here.
    """

    more_settings: ClassVar[dict[str, Setting]] = {
        **REPLAY_SETTINGS,
        "policy_model_config": Setting("training", {}, "dict"),
        "q_model_config": Setting("training", {}, "dict"),
    }
    fields_set_elsewhere = (*ReplayConfig.fields_set_elsewhere, "policy_model", "q_model")

    def model_parts(self) -> dict[str, Any]:
        from athlete.models.catalog import make_model, merged_models

        shared = {"vf_share_layers": True}  # each has heads of one kind
        return {
            "policy_model": make_model({**merged_models(self.model, self.policy_model_config), **shared}),
            "q_model": make_model({**merged_models(self.model, self.q_model_config), **shared}),
        }

    def _set(self, section: str | None, settings: Mapping[str, Any]) -> Self:
        return super()._set(section, _translated(settings))

    def _check(self, name: str, given: str, value: Any, section: str | None, where: str, hints: dict) -> None:
        if name == "lr" or (name == "lr_schedule" and value is not None):
            rates = ", ".join(rate for rate in OPTIMIZATION.values() if rate in self._values)
            raise ValueError(f"{where}: {self._title()} has a learning rate for each of its networks: set {rates}")
        super()._check(name, given, value, section, where, hints)
        if name in ("policy_model_config", "q_model_config"):
            from athlete.models.catalog import check_model

            check_model(value)
            shared = {"conv_filters", "conv_activation", "lstm_use_prev_action", "lstm_use_prev_reward"} & set(value)
            if shared:
                raise ValueError(
                    f"{where}: actor and critics see the same, by the same convolutions; set {min(shared)} in model"
                )


class DelayedPolicyConfig(ActorCriticConfig):
    """A configuration whose agent learns from `policy_delay` batches in one update: critics from each, the actor once.

    So one update stands for `policy_delay` of the paper's, and costs one call of the memory and of the actor. Without
    `training_intensity` there is one update an iteration.
    """

    def learned_per_update(self) -> int:
        return self.policy_delay * self.train_batch_size


def _translated(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of actor-critics as RLlib spells them, in the words here."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if name == "optimization" and isinstance(value, Mapping):
            for part, rate in value.items():
                require_known(part, OPTIMIZATION, f"optimization={{{part!r}: {rate!r}}}")
                found[OPTIMIZATION[part]] = rate
        else:
            found[name] = None if name == "target_entropy" and value == "auto" else value
    return found


def require_discrete(algorithm: str, space: Any) -> None:
    """Raise ValueError, naming the algorithms that serve it, unless the action space is Discrete."""
    from athlete.spaces import Discrete

    if not isinstance(space, Discrete):
        raise ValueError(f"{algorithm} serves Discrete action spaces, and this one is {space}; {algorithms_for(space)}")


def require_continuous(algorithm: str, space: Any) -> None:
    """Raise ValueError, naming the algorithms that serve it, unless the action space is a bounded Box of floats."""
    from athlete.spaces import Box

    if not isinstance(space, Box) or space.dtype.kind != "f" or not space.bounded.all():
        raise ValueError(
            f"{algorithm} serves Box action spaces of floats with finite bounds, and this one is {space}; "
            f"{algorithms_for(space)}"
        )


def require_policy_space(algorithm: str, space: Any, exploration: Any) -> None:
    """Raise ValueError unless the action space is a bounded Box of floats, or Discrete without noise on the actions."""
    from athlete.exploration import StochasticSampling
    from athlete.spaces import Discrete

    if not isinstance(space, Discrete):
        require_continuous(algorithm, space)
    elif not isinstance(exploration, StochasticSampling):
        raise ValueError(
            f"{type(exploration).__name__} is noise on continuous actions, and {algorithm}'s are {space} here; "
            "take exploration_config={'type': 'StochasticSampling'}"
        )


def algorithms_for(space: Any) -> str:
    """Which algorithms serve an action space, as the end of a sentence."""
    from athlete.distributions import output_size
    from athlete.spaces import Box, Discrete

    if isinstance(space, Discrete):
        return "PPO, DQN, R2D2, SimpleQ, QRDQN, IQN, PQN, A2C, TRPO, PG, SAC and RNNSAC serve it"
    if isinstance(space, Box) and space.dtype.kind == "f":
        if space.bounded.all():
            return "PPO, DDPG, TD3, SAC, RNNSAC, TQC, CrossQ, REDQ, DroQ, A2C, TRPO and PG serve it"
        return "PPO, A2C, TRPO and PG serve it"
    try:
        output_size(space)
    except ValueError as error:
        return f"no algorithm serves it: {error}"
    return "PPO, A2C, TRPO and PG serve it"


def checked_memory(given: Mapping[str, Any], title: str, types: tuple[str, ...]) -> dict[str, Any]:
    """`replay_buffer_config` over its defaults. Raises ValueError for names and values that cannot be."""
    settings = {**MEMORY_SETTINGS}
    for name, value in given.items():
        known = MEMORY_SPELLINGS.get(name, name)
        if (known, value) in SAME_MEMORIES:
            continue
        require_known(known, settings, f"replay_buffer_config={{{name!r}: {value!r}}}")
        settings[known] = value
    where = "replay_buffer_config"
    kind = settings["type"]
    if kind not in types:
        near = [] if kind in MEMORIES else difflib.get_close_matches(str(kind), types, n=1)
        raise ValueError(f"{where}={{'type': {kind!r}}}: {title} learns from {', '.join(near or types)}")
    require_count(settings, "capacity", 1, where)
    require_count(settings, "replay_burn_in", 0, where)
    axis = settings["stack_axis"]
    if axis is not None and (not isinstance(axis, int) or isinstance(axis, bool)):
        raise ValueError(
            f"{where}={{'stack_axis': {axis!r}}}: expected the number of an axis, such as 0 or -1, or None"
        )
    require_number(settings, "prioritized_replay_alpha", where)
    require_number(settings, "prioritized_replay_eps", where)
    if not is_schedule(settings["prioritized_replay_beta"]):
        require_number(settings, "prioritized_replay_beta", where)
    return settings


def _level_points(settings: Mapping[str, Any]) -> list[list[float]] | None:
    """The schedule of an exploration's level, in timesteps; None where it stays."""
    if settings["type"] == "EpsilonGreedy":
        start, end = settings["initial_epsilon"], settings["final_epsilon"]
        begin, length = settings["warmup_timesteps"], settings["epsilon_timesteps"]
    elif "scale_timesteps" in settings:
        start, end = settings["initial_scale"], settings["final_scale"]
        begin, length = settings["random_timesteps"], settings["scale_timesteps"]
    elif is_schedule(settings.get("temperature")):
        return settings["temperature"]
    else:
        return None
    return [[begin, start], [begin + max(length, 1), end]]


def _make_exploration(settings: Mapping[str, Any], horizon: float) -> Any:
    from athlete import exploration
    from athlete.ops.schedule import from_timesteps

    points = _level_points(settings)
    level: Any = from_timesteps(points, horizon) if points is not None else settings.get("temperature")
    match settings["type"]:
        case "EpsilonGreedy":
            return exploration.EpsilonGreedy(level)
        case "SoftQ":
            return exploration.SoftQ(level)
        case "StochasticSampling":
            return exploration.StochasticSampling()
        case "GaussianNoise":
            return exploration.GaussianNoise(settings["stddev"], level)
        case "OrnsteinUhlenbeckNoise":
            return exploration.OrnsteinUhlenbeckNoise(
                settings["ou_theta"], settings["ou_sigma"], settings["ou_base_scale"], level
            )
    return exploration.ParameterNoise(settings["initial_stddev"], settings["target"])
