"""What configurations share whose algorithms explore by a type or have a replay memory: RLlib's dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from athlete.log import logger
from athlete.memory.replay import Replay
from athlete.models.catalog import MODEL_DEFAULTS, check_model, is_recurrent, make_model, merged_models, with_streams
from athlete.models.streams import without_streams
from athlete.settings.assemble import level_points, make_exploration, make_memory
from athlete.settings.checks import is_schedule
from athlete.settings.config import AlgorithmConfig
from athlete.settings.devices import wanted_devices
from athlete.settings.memory import MEMORIES, checked_memory
from athlete.settings.rllib_places import OPTIMIZATION
from athlete.settings.table import Setting

# Of algorithms that may learn from the trajectories of workers that act as they come.
WORKER_SETTINGS: dict[str, Setting] = {
    "max_requests_in_flight_per_sampler_worker": Setting("rollouts", 2, "positive count"),
    "broadcast_interval": Setting("training", 1, "positive count"),
    "max_policy_lag": Setting("rollouts", None, "count or None"),
}

REPLAY_SETTINGS: dict[str, Setting] = {
    "replay_buffer_config": Setting("training", {}, "dict"),
    "training_intensity": Setting("training", None, "positive number or None"),
    "store_buffer_in_checkpoints": Setting("training", "last", "last or bool"),
    "sample_async": Setting("rollouts", False, "bool or lagged"),
    **WORKER_SETTINGS,
}

# As the end of a sentence.
WITH_MEMORY = "an algorithm that learns from sequences (`athlete list algorithms` has them)"

# Of learners of action values whose heads may have layers of their own, with rectified units: RLlib's `hiddens`.
STREAM_SETTINGS: dict[str, Setting] = {"hiddens": Setting("training", [], "layers")}


class OnPolicyConfig(AlgorithmConfig):
    """A configuration whose agent learns from whole trajectories with a random policy of its own."""

    fields_set_elsewhere = (*AlgorithmConfig.fields_set_elsewhere, "max_seq_len", "free_log_std", "log_std_init")

    def agent_parts(self) -> dict[str, Any]:
        chosen = {**MODEL_DEFAULTS, **self.model}
        return {
            **super().agent_parts(),
            **trajectory_parts(self),
            "free_log_std": chosen["free_log_std"],
            "log_std_init": float(chosen["log_std_init"]),
        }


def trajectory_parts(config: AlgorithmConfig) -> dict[str, Any]:
    """The fields of agents that cut a trajectory into sequences, and these into minibatches, where they do."""
    parts: dict[str, Any] = {"max_seq_len": config.sequence_length()}
    if "minibatch_size" in config:
        parts["minibatch_size"] = config.minibatch_timesteps()
    return parts


class RecordedConfig(OnPolicyConfig):
    """A configuration whose agent has a random policy of its own and learns from recorded data alone."""

    offline = True

    def agent_parts(self) -> dict[str, Any]:
        return {**super().agent_parts(), "memory": self.recorded_memory()}

    def recorded_memory(self) -> Replay:
        """What batches of sequences are drawn as."""
        sequence = self.sequence_length()
        batch = max(1, self.train_batch_size // sequence) * sequence
        return Replay(capacity=batch, batch_size=batch, window=sequence, sequence=sequence)

    def validate(self) -> None:
        super().validate()
        if not self.is_offline():
            raise ValueError(
                f"{self._title()} learns from recorded data alone: say .offline_data(input_='FILE'); "
                "`athlete record CHECKPOINT --out FILE` makes some"
            )


class EvolutionConfig(AlgorithmConfig):
    """A configuration whose agent learns from whole episodes of a population, without batches and gradients.

    `eval_prob` is the share of episodes that the policy itself plays in each generation, one at least, and
    `report_length` the number of generations whose such episodes `episode_reward_mean` is of.
    """

    more_settings: ClassVar[dict[str, Setting]] = {
        "eval_prob": Setting("training", 0.03, "number"),
        "report_length": Setting("training", 10, "positive count"),
    }
    members_setting: ClassVar[str]  # says how many episodes the members of a generation play
    fields_set_elsewhere = (*AlgorithmConfig.fields_set_elsewhere, "standardizes", "policy_episodes")

    def agent_parts(self) -> dict[str, Any]:
        return {
            "model": make_model({**self.model, "vf_share_layers": True}),
            "standardizes": self.observation_filter == "MeanStdFilter",
            "policy_episodes": self.policy_episodes(),
        }

    def policy_episodes(self) -> int:
        """Episodes of the policy itself in each generation."""
        return max(1, round(self.eval_prob * self[self.members_setting])) if self.eval_prob else 0

    def smoothing(self) -> int:
        if "metrics_num_episodes_for_smoothing" in self._chosen:
            return super().smoothing()
        return self.report_length * (self.policy_episodes() or self[self.members_setting])

    def validate(self) -> None:
        super().validate()
        title = self._title()
        for name in ("train_batch_size", "rollout_fragment_length"):
            if name in self._chosen:
                members = f"{self.members_setting}={self[self.members_setting]}"
                logger.info("%s: %s has no effect: a generation is whole episodes, %s", title, name, members)
        if self.eval_prob > 1.0:
            raise ValueError(f"{title}: eval_prob={self.eval_prob!r} is a share of episodes; make it 1 or less")
        changed = {"normalize_rewards": self.normalize_rewards, "clip_rewards": self.clip_rewards}
        changed |= {"reward_scale": self.reward_scale != 1.0, "a bonus": self.exploration_settings().bonus}
        for name, is_set in changed.items():
            if is_set:
                raise ValueError(
                    f"{title}: {name} changes rewards, and members are judged by the returns of the environment; "
                    "leave it out"
                )
        if self.output is not None:
            raise ValueError(f"{title}: output={self.output!r}: no steps are kept; `athlete record` writes episodes")
        if (wanted_devices(self) or 1) > 1:
            raise ValueError(
                f"{title}: num_learners={self.num_learners!r}: a population plays on one device; leave it out "
                "(num_rollout_workers shares episodes out among processes)"
            )


class ExplorationConfig(AlgorithmConfig):
    """A configuration whose agent has no random policy of its own. Subclasses name the exploration types that fit.

    An agent with more than one has a field `exploration`.
    """

    fields_set_elsewhere = (*AlgorithmConfig.fields_set_elsewhere, "exploration", "random_timesteps")

    def all_schedules(self) -> list[Any]:
        points = level_points(self.exploration_settings().exploration)
        return super().all_schedules() + ([] if points is None else [points])

    def agent_parts(self) -> dict[str, Any]:
        exploration, fields = self.exploration_settings().exploration, self.model_parts()
        if len(self.exploration_types) > 1:
            fields["exploration"] = make_exploration(exploration, self.horizon())
        return fields

    def model_parts(self) -> dict[str, Any]:
        """The agent's networks, the one that acts first: one torso for all heads, behind it the layers of `hiddens`."""
        model = make_model({**self.model, "vf_share_layers": True})
        return {"model": with_streams(model, self.get("hiddens") or ())}


class ReplayConfig(ExplorationConfig):
    """A configuration whose agent learns from a replay memory. Subclasses may name the memories that fit."""

    more_settings = REPLAY_SETTINGS
    memory_types: ClassVar[tuple[str, ...]] = tuple(MEMORIES)
    takes_random_timesteps = True
    intensity_setting: ClassVar[str] = "training_intensity"  # as its users call it
    # Its networks have memory, and its samples are sequences of steps; None: where the user gives them one.
    learns_sequences: ClassVar[bool | None] = False
    fields_set_elsewhere = (*ExplorationConfig.fields_set_elsewhere, "timesteps_per_update", "burn_in", "max_seq_len")
    _apart = False  # trajectories of different rows follow one another in memory

    def with_trajectories_apart(self) -> Self:
        """A copy whose samples each lie within one trajectory, as those of workers that are taken as they come."""
        new = self.copy()
        new._apart = True
        return new

    def copy(self, copy_frozen: bool = False) -> Self:
        new = super().copy(copy_frozen)
        new._apart = self._apart
        return new

    def _merged(self, name: str, value: Any) -> Any:
        merged = super()._merged(name, value)
        if name == "model" and self.learns_sequences is not False:
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
        settings, sequence = self._memory(), self.sequence_length()
        memory = make_memory(
            settings,
            self.horizon(),
            batch_size=self.learned_per_update(),
            sequence=sequence,
            window=self.window_length(),
            unroll=length,
            apart=self._apart,
            keep_carry=self._takes_sequences() and not self.get("zero_init_states"),
        )
        fields = {
            **super().agent_parts(),
            "updates": updates,
            "memory": memory,
            "random_timesteps": self.exploration_settings().exploration["random_timesteps"],
            "timesteps_per_update": self.rows() * length / updates,
        }
        if self._takes_sequences():
            fields |= {"burn_in": settings["replay_burn_in"], "max_seq_len": sequence}
        return fields

    def _takes_sequences(self) -> bool:
        if self.learns_sequences is None:
            return any(is_recurrent(without_streams(network)) for network in self.model_parts().values())
        return self.learns_sequences

    def window_length(self) -> int:
        """Consecutive steps of a sample: the burn-in, those that are learned from, and those of the last one's target.

        A network without memory learns from one, `n_step` make its target, and there is no burn-in.
        """
        return self._memory()["replay_burn_in"] + self.sequence_length() - 1 + (self.get("n_step") or 1)

    def validate(self) -> None:
        super().validate()
        self._check_recurrence()
        self._check_hindsight()
        if self.is_offline():
            return
        title, batch, memory = self._title(), self.train_batch_size, self._memory()
        warm_up, capacity = self.num_steps_sampled_before_learning_starts, memory["capacity"]
        if batch > warm_up:  # as files of RLlib have it
            logger.warning(
                f"{title}: train_batch_size={batch} is larger than num_steps_sampled_before_learning_starts={warm_up}: "
                "the first batches hold the same steps again and again; a warm-up that is as long has none of it"
            )
        assert self.agent_class is not None
        if memory["worker_side_prioritization"] and not self.agent_class.rates:
            raise ValueError(
                f"{title}: replay_buffer_config has worker_side_prioritization=True, and its new steps have the "
                "largest priority so far; leave it out"
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
        if self._apart and window > self.fragment_length():
            raise ValueError(
                f"{title}: sample_async=True keeps trajectories apart, and a sequence of replay_burn_in, max_seq_len "
                f"and n_step steps={window} is longer than rollout_fragment_length={self.fragment_length()}; make "
                f"that {window} or more"
            )
        if window > each or window * self.rows() > warm_up:
            sequences = self._takes_sequences()
            parts = "a sequence of replay_burn_in, max_seq_len and n_step steps" if sequences else "n_step"
            raise ValueError(
                f"{title}: {parts}={window} is longer than what one of {self.rows()} environments has in memory when "
                f"learning starts ({min(each, warm_up // self.rows())} steps of capacity={capacity} and "
                f"num_steps_sampled_before_learning_starts={warm_up})"
            )
        if self.sample_async and self.fragment_length() > 1 and not self.workers_act:
            raise ValueError(
                f"{title}: sample_async=True updates while the environments take one step; "
                f"it does not fit rollout_fragment_length={self.fragment_length()}, make that 1"
            )
        if self.updates() < 1:
            raise ValueError(
                f"{title}: {self.intensity_setting}={self.training_intensity} is less than one update of "
                f"{self.learned_per_update()} timesteps for {self.rows() * self.fragment_length()} timesteps sampled; "
                f"make rollout_fragment_length at least {self._shortest_fragment()}"
            )

    def _check_hindsight(self) -> None:
        """Raise ValueError where samples cannot have other goals than those that were wanted."""
        memory = self._memory()
        if MEMORIES[memory["type"]] != "hindsight":
            return
        assert self.agent_class is not None
        wrong = "it learns from sequences" if self._takes_sequences() else None
        wrong = "it learns for several agents together" if self.agent_class.joint else wrong
        if self.num_rollout_workers and (self.workers_act or self.ray):
            wrong = "workers that act by themselves do not bring steps episode by episode"
        wrong = "observations have goals, and are no stacks of frames" if memory["stack_axis"] is not None else wrong
        if wrong is not None:
            raise ValueError(
                f"{self._title()}: replay_buffer_config={{'type': {memory['type']!r}}}: hindsight is for single steps "
                f"of one agent, and {wrong}; take 'ReplayBuffer'"
            )

    def _check_recurrence(self) -> None:
        """Raise ValueError for networks with memory where samples are single steps, and without where they are not."""
        title, burn_in, sequences = self._title(), self._memory()["replay_burn_in"], self._takes_sequences()
        if burn_in and not sequences:
            raise ValueError(
                f"{title}: replay_buffer_config has replay_burn_in={burn_in}, and its networks have no memory; "
                f"leave it out, or take {WITH_MEMORY}"
            )
        for name, network in self.model_parts().items():
            model = without_streams(network)
            if is_recurrent(model) and not sequences:
                raise ValueError(
                    f"{title}: {name} is recurrent ({type(model).__name__}), and it learns from single steps; take a "
                    f"feed-forward network, or {WITH_MEMORY}"
                )
            if sequences and not is_recurrent(model):
                raise ValueError(
                    f"{title}: {name} has no memory ({type(model).__name__}), and it learns from sequences; set "
                    "model={'use_lstm': True}, 'use_gru' or 'use_attention', or take an algorithm without memory"
                )

    def _shortest_fragment(self) -> int:
        assert self.training_intensity
        return -int(-self.learned_per_update() // (self.training_intensity * self.rows()))

    def _memory(self) -> dict[str, Any]:
        """`replay_buffer_config` over its defaults. Raises ValueError for names and values that cannot be."""
        return checked_memory(self.replay_buffer_config, self._title(), self.memory_types)

    def _check(self, name: str, given: str, value: Any, section: str | None, where: str, hints: dict) -> None:
        super()._check(name, given, value, section, where, hints)
        if name == "replay_buffer_config":
            checked_memory(self._merged(name, value), self._title(), self.memory_types)


class ActorCriticConfig(ReplayConfig):
    """A configuration whose agent has an actor and critics apart: `policy_model` and `q_model`.

    `policy_model_config` and `q_model_config` are settings of `model` that hold for one of them; `actor_hiddens`,
    `critic_hiddens` and their activations go before these. RLlib's older `optimization={"actor_learning_rate": ...}`
    sets the learning rates, its `target_entropy="auto"` is None here.
    """

    more_settings: ClassVar[dict[str, Setting]] = {
        **REPLAY_SETTINGS,
        "policy_model_config": Setting("training", {}, "dict"),
        "q_model_config": Setting("training", {}, "dict"),
        "actor_hiddens": Setting("training", None, "layers or None"),
        "actor_hidden_activation": Setting("training", None, "activation or None"),
        "critic_hiddens": Setting("training", None, "layers or None"),
        "critic_hidden_activation": Setting("training", None, "activation or None"),
    }
    fields_set_elsewhere = (*ReplayConfig.fields_set_elsewhere, "policy_model", "q_model")

    def model_parts(self) -> dict[str, Any]:
        return {
            "policy_model": self._network(self.policy_model_config, "actor"),
            "q_model": self._network(self.q_model_config, "critic"),
        }

    def _network(self, changes: Mapping[str, Any], name: str) -> Any:
        """The network of the actor or the critics: `model` with `changes` and with the layers of its own settings."""
        layers = {"fcnet_hiddens": self[f"{name}_hiddens"], "fcnet_activation": self[f"{name}_hidden_activation"]}
        given = {setting: value for setting, value in layers.items() if value is not None}
        return make_model({**merged_models(self.model, changes), **given, "vf_share_layers": True})

    def _check(self, name: str, given: str, value: Any, section: str | None, where: str, hints: dict) -> None:
        if name == "lr" or (name == "lr_schedule" and value is not None):
            rates = ", ".join(rate for rate in OPTIMIZATION.values() if rate in self._values)
            raise ValueError(f"{where}: {self._title()} has a learning rate for each of its networks: set {rates}")
        super()._check(name, given, value, section, where, hints)
        if name in ("policy_model_config", "q_model_config"):
            check_model(value)
            shared = {"conv_filters", "conv_activation"} & set(value)
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

    def agent_parts(self) -> dict[str, Any]:
        fields = super().agent_parts()
        del fields["timesteps_per_update"]  # its targets move with every update
        return fields
