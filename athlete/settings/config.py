"""Configuration objects under RLlib's names: chainable sections, checked at the call."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import typing
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from athlete.callbacks import unknown_hook
from athlete.log import logger
from athlete.models.catalog import MEMORIES, MODEL_DEFAULTS, check_model, is_recurrent, make_model
from athlete.offline.spaces import kept_space
from athlete.ops.schedule import from_timesteps
from athlete.settings.assemble import make_agent
from athlete.settings.checks import is_schedule
from athlete.settings.devices import require_fit
from athlete.settings.exploration import ExplorationSettings, checked_exploration
from athlete.settings.multi_agent import plain_policies
from athlete.settings.recorded import (
    SAMPLER,
    SPACES,
    kept_input,
    require_learnable,
    require_writable,
    shares_of,
    tell_of_spaces,
)
from athlete.settings.rllib_names import (
    IGNORED,
    OTHER_SECTIONS,
    REFUSED,
    SECTIONS,
    SPELLINGS,
    STABLE_BASELINES,
    UNSERVED,
    said,
)
from athlete.settings.rllib_places import translated
from athlete.settings.table import (
    EVALUATION_CHANGES,
    GENERAL,
    SETTINGS,
    Setting,
    check_field,
    check_setting,
    is_search,
    section_names,
    type_names,
)

if typing.TYPE_CHECKING:
    from athlete.algorithm import Algorithm
    from athlete.core import Agent, Spec


class AlgorithmConfig:
    """What an algorithm is to do, in sections that chain and merge: RLlib's names and meanings.

    Subclasses name their agent. `config.lr` and `config["lr"]` read a setting; sections write. Every value is checked
    at the call. After `build()` the algorithm's own copy is frozen.
    """

    algorithm_name: str = ""
    summary: str = ""  # what it is, as the rest of a sentence that begins with its name
    paper: str = ""  # authors, year and where to find it
    agent_class: type[Agent] | None = None
    offline: typing.ClassVar[bool] = False  # made for recorded data
    learns: typing.ClassVar[bool] = True
    shows_reward: typing.ClassVar[bool] = False  # observations show the reward that led to them
    defaults: typing.ClassVar[dict[str, Any]] = {}  # where they differ from those of SETTINGS and of the agent
    more_settings: typing.ClassVar[dict[str, Setting]] = {}  # that not every algorithm has
    exploration_types: typing.ClassVar[tuple[str, ...]] = ("StochasticSampling",)  # that fit, the default first
    takes_random_timesteps: typing.ClassVar[bool] = False  # it can begin with uniformly random actions
    fields_set_elsewhere: tuple[str, ...] = ("model", "memory", "updates", "spec")

    def __init__(self, algo_class: type[Algorithm] | None = None):
        self._algo_class = algo_class  # that `build` makes, where it is a subclass of the user's
        settings = {**SETTINGS, **self.more_settings, **(GENERAL if self.agent_class is None else {})}
        self._values: dict[str, Any] = {name: _copied(setting.default) for name, setting in settings.items()}
        self._values.update({**self._agent_defaults(), **_copied(self.defaults)})
        self._chosen: set[str] = set()  # set by the user, not by default
        self._frozen = False
        self._least_horizon = 1.0  # timesteps; that of a team that these settings are part of

    # Sections -----------------------------------------------------------------------------------------------------

    def environment(self, env: Any = None, **settings: Any) -> typing.Self:
        """`env` (id, class, factory, registered name, PettingZoo's module or JAX environment), `env_config`, `backend`
        ("auto": compiled where there is a JAX twin; "jax": only so; "gymnasium": never; "envpool": in its batch),
        `observation_space` and `action_space` (of recorded data, where there is no environment and their files do not
        tell them), `disable_env_checking`, `clip_rewards` (True: the sign; a number: within plus and minus it),
        `reward_scale`, `normalize_rewards`.
        """
        if env is not None:
            # Files cannot hold a module; its name they can.
            settings["env"] = f"pettingzoo:{env.__name__}" if isinstance(env, ModuleType) else env
        return self._set("environment", settings)

    def rollouts(self, **settings: Any) -> typing.Self:
        """`num_rollout_workers` (processes; 0 is this process), `workers_act` (False: processes step environments, and
        one policy acts in all of them; True: each acts by itself), `num_envs_per_worker`, `rollout_fragment_length`,
        `observation_filter` ("NoFilter" or "MeanStdFilter"), `observation_fn` (what the agent sees of an observation),
        `preprocessor_pref` ("deepmind": Atari's pictures shrunk and stacked; "rllib" or None: as they are),
        `env_timeout` (seconds in which a step or a reset has to come back, None for no limit).
        """
        return self._set("rollouts", settings)

    def training(self, **settings: Any) -> typing.Self:
        """`train_batch_size`, `model`, `lr_schedule`, `entropy_coeff_schedule` and the fields of the agent: its
        docstring has them. Numbers that may be scheduled also take `[[timestep, value], ...]`.
        """
        return self._set("training", settings)

    def multi_agent(self, **settings: Any) -> typing.Self:
        """`policies` (names, or a dictionary from names to `PolicySpec`, `Past`, "random" or a heuristic function),
        `policy_mapping_fn` (an agent's name -> a policy's; asked when the algorithm is built), `policies_to_train`,
        `shuffle_seats` (who sits where is drawn for each episode), `count_steps_by` ("env_steps" or "agent_steps").

        Without policies like agents share one.
        """
        return self._set("multi_agent", settings)

    def offline_data(self, **settings: Any) -> typing.Self:
        """`input_` (recorded data to learn from in place of an environment's: a file, a folder, a pattern or a list of
        these, columns as a dictionary of arrays, or a dictionary from files to their shares of a batch),
        `input_config` (`max_episode_steps`, `format`, `capacity`: steps in memory at a time, where there are more),
        `actions_in_input_normalized` (they are in [-1, 1] already), `output` (a folder that all collected episodes are
        written into), `output_config` (`format`: "safetensors", "json" or "npz"), `output_max_file_size` (bytes of
        episodes after which a file is written).
        """
        return self._set("offline_data", settings)

    def resources(self, **settings: Any) -> typing.Self:
        """`num_gpus` (the JAX that is installed decides; more than there are is an error at `build`; two or more share
        the training out as `num_learners` does), `ray` (where workers are actors of a Ray cluster, and act by
        themselves: True for the one that this process is connected to, else the one at $RAY_ADDRESS, else one of this
        machine, which is started; an address; "auto": the first two, and without them processes),
        `num_cpus_per_worker`, `custom_resources_per_worker`, `placement_strategy` ("PACK", "SPREAD": over nodes,
        "STRICT_PACK": on one node, "STRICT_SPREAD": each on a node of its own).
        """
        return self._set("resources", settings)

    def framework(self, framework: str = "jax", **settings: Any) -> typing.Self:
        """Accepted for RLlib's users; networks run on JAX."""
        return self._set("framework", {"framework": framework, **settings})

    def exploration(self, **settings: Any) -> typing.Self:
        """`exploration_config`: `{"type": "EpsilonGreedy", ...}` where the algorithm has no random policy of its own,
        and the bonuses of every algorithm, `{"type": "RND", ...}`, `"Curiosity"`, `"Counts"`.
        """
        return self._set("exploration", settings)

    def evaluation(self, **settings: Any) -> typing.Self:
        """`evaluation_interval` (iterations), `evaluation_duration`, `evaluation_duration_unit` ("episodes" or
        "timesteps"), `evaluation_num_workers` (processes that play them), `evaluation_parallel_to_training` (beside the
        iteration, with the policy that it begins with; `evaluation_duration="auto"` then is as long as that takes),
        `evaluation_config` (settings that differ, such as `explore`), `custom_evaluation_function` (what is called in
        the place of playing episodes, with algorithm and `eval_workers`), `off_policy_estimation_methods`
        (`{"wis": {"type": "WeightedImportanceSampling"}}`: what recorded data tell of the policy, those of `input_` or
        of `evaluation_config={"input": ...}`).
        """
        return self._set("evaluation", settings)

    def debugging(self, **settings: Any) -> typing.Self:
        """`seed` (None: a new one each time, which the results name), `log_level`, and `on_nonfinite` ("error" or
        "warn" where learning makes NaN or infinity).
        """
        return self._set("debugging", settings)

    def reporting(self, **settings: Any) -> typing.Self:
        """`metrics_num_episodes_for_smoothing`, `min_time_s_per_iteration`, `min_sample_timesteps_per_iteration`,
        `info_metrics` (entries of `info` that become custom metrics at the end of an episode; True: all its numbers),
        `logdir` (the folder of results; None: a new one for each training, False: nothing is written), `monitor` (also
        a line for each episode, in `monitor.csv`).
        """
        return self._set("reporting", settings)

    def checkpointing(self, **settings: Any) -> typing.Self:
        """What a loop over `train()` saves by itself in `algo.logdir`: `checkpoint_freq` (every so many iterations; 0:
        never), `keep_checkpoints_num` (only the best so many, and the newest), `checkpoint_score_attr` (the result that
        makes one best, "min-..." where lower is better), as `tune.run` has them for its trials.
        """
        return self._set("checkpointing", settings)

    def callbacks(self, callbacks: Any = None) -> typing.Self:
        """A subclass of `athlete.callbacks.DefaultCallbacks`, or an instance of one.

        Raises ValueError for a method `on_...` that is no callback and would never be called.
        """
        if callbacks is not None and (sentence := unknown_hook(callbacks)) is not None:
            raise ValueError(f"callbacks(...): {sentence}")
        return self._set("callbacks", {"callbacks": callbacks})

    def fault_tolerance(self, **settings: Any) -> typing.Self:
        """`restart_failed_sub_environments` (an environment that raises or hangs is made anew),
        `recreate_failed_workers` (so is a process that dies or hangs), `max_num_worker_restarts` (of both together; the
        next one is an error).
        """
        return self._set("fault_tolerance", settings)

    def api_stack(self, **settings: Any) -> typing.Self:
        """Accepted for RLlib's users."""
        return self._set("api_stack", settings)

    def learners(self, **settings: Any) -> typing.Self:
        """`num_learners`: how many of the devices that JAX sees share environments and minibatches out (0 and 1: one;
        "auto": as many as can share evenly). The training is the same but for rounding. `coordinator_address`,
        `num_processes` and `process_id`, those of `jax.distributed.initialize`, where several processes train as one.
        """
        return self._set("learners", settings)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in SECTIONS:
            return getattr(self, SECTIONS[name])
        if name in OTHER_SECTIONS:
            return lambda **settings: self._set(name, settings)
        values = self.__dict__.get("_values", {})
        name = SPELLINGS.get(name, name)
        if name in values:
            return values[name]
        near = difflib.get_close_matches(name, [*values, *section_names()], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        # With a name Python adds no hint of its own to ours.
        raise AttributeError(f"{self._title()} has no {name!r}{hint}", name=name, obj=None)

    # Dictionaries -------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """All settings, flat, as a new dictionary."""
        return _copied(self._values)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> typing.Self:
        """A new configuration with `settings` over the defaults."""
        return cls().update_from_dict(settings)

    def update_from_dict(self, settings: Mapping[str, Any]) -> typing.Self:
        """Merge flat settings, of any section and spelling, as an RLlib configuration dictionary has them."""
        return self._set(None, settings)

    @staticmethod
    def overrides(**settings: Any) -> dict[str, Any]:
        """`settings` as what `evaluation_config` and the `config` of a `PolicySpec` take."""
        return settings

    def chosen(self) -> dict[str, Any]:
        """Only what was set, not the defaults."""
        return {name: _copied(self._values[name]) for name in sorted(self._chosen)}

    def copy(self, copy_frozen: bool = False) -> typing.Self:
        """An independent copy, open to changes unless `copy_frozen` keeps the seal."""
        new = type(self)()
        new._values = self.to_dict()
        new._chosen = set(self._chosen)
        new._algo_class = self._algo_class
        new._frozen = self._frozen and copy_frozen
        new._least_horizon = self._least_horizon
        return new

    def freeze(self) -> None:
        """Refuse changes from now on."""
        self._frozen = True

    def get(self, name: str, default: Any = None) -> Any:
        return self._values.get(SPELLINGS.get(name, name), default)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            object.__setattr__(self, name, value)
        elif SPELLINGS.get(name, name) in self.__dict__.get("_values", {}) or name in IGNORED | UNSERVED | REFUSED:
            self._set(None, {name: value})
        elif name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            raise AttributeError(f"{self._title()} has no {name!r}{self._nearest(name, None)}")

    def __setitem__(self, name: str, value: Any) -> None:
        self._set(None, {name: value})

    def __getitem__(self, name: str) -> Any:
        known = SPELLINGS.get(name, name)
        # `callbacks` is a section's method as well as a setting.
        return self._values[known] if known in self._values else getattr(self, name)

    def __contains__(self, name: str) -> bool:
        return SPELLINGS.get(name, name) in self._values

    def __repr__(self) -> str:
        chosen = ", ".join(f"{name}={value!r}" for name, value in self.chosen().items())
        return f"{type(self).__name__}({chosen})"

    # What stands behind -------------------------------------------------------------------------------------------

    def build(self, env: Any = None, **settings: Any) -> Algorithm:
        """The algorithm, ready to train. `env` and `settings` go before what was set in sections.

        Raises ValueError where settings do not fit one another or the environment.
        """
        from athlete.algorithm import Algorithm

        return (self._algo_class or Algorithm)(self.ready(env, **settings))

    def ready(self, env: Any = None, **settings: Any) -> typing.Self:
        """A frozen copy that an `Algorithm` can be made of; raises what `build` does for its settings."""
        if self.agent_class is None:
            raise ValueError("AlgorithmConfig has no algorithm to build; take an algorithm's own, such as PPOConfig()")
        config = self.copy()
        if env is not None:
            settings["env"] = env
        config._set(None, settings)
        config.validate()
        config.freeze()
        return config

    def validate(self) -> None:
        """Raise ValueError where settings do not fit one another."""
        for name, value in self._values.items():
            if is_search(value):
                raise ValueError(f"{self._title()}: {name}={value!r} is a search space; give the config to tune.run")
        tell_of_spaces(self)
        if shares_of(self.input_, self.input_config):
            require_learnable(self)
        if self.output is not None:
            require_writable(self)
        if self.env is None and not self.is_offline():
            raise ValueError(
                f"{self._title()}: no environment; say .environment('CartPole-v1') or .build(env='CartPole-v1')"
            )
        self._check_score()
        rows, length = self.rows(), self.fragment_length()
        minibatch = self.get("minibatch_size")
        if minibatch is not None and "minibatch_size" in self._chosen and minibatch > rows * length:
            raise ValueError(
                f"{self._title()}: minibatch_size={minibatch} does not fit a batch of {rows * length} timesteps "
                f"({rows} environments x {length} steps); make it smaller or train_batch_size larger"
            )
        try:
            require_fit(self)
        except ValueError as error:
            raise ValueError(f"{self._title()}: {error}") from None

    def is_offline(self) -> bool:
        """Whether it learns from recorded data alone: an environment, if there is one, is for evaluation."""
        shares = shares_of(self.input_, self.input_config)
        return bool(shares) and SAMPLER not in shares

    def _check_score(self) -> None:
        """Raise ValueError where checkpoints would never have the score by which they are kept."""
        scored, interval = self.checkpoint_score_attr, self.evaluation_interval
        if not scored or "evaluation/" not in scored or not self.checkpoint_freq:
            return
        if not interval or self.checkpoint_freq % interval:
            raise ValueError(
                f"{self._title()}: checkpoint_score_attr={scored!r} is not there every checkpoint_freq="
                f"{self.checkpoint_freq} iterations with evaluation_interval={interval}; make it a multiple of that"
            )

    def rows(self) -> int:
        """How many environments step side by side."""
        return max(1, self.num_rollout_workers) * self.num_envs_per_worker

    def fragment_length(self) -> int:
        """How many steps each environment takes an iteration; whole sequences, where the network has memory."""
        length, batch = self.rollout_fragment_length, math.ceil(self.train_batch_size / self.rows())
        if length == "auto":
            length = batch
        elif "train_batch_size" in self._chosen:
            length *= math.ceil(batch / length)  # whole fragments until the batch is full, as in RLlib
        sequence = self.sequence_length()
        return math.ceil(length / sequence) * sequence

    def smoothing(self) -> int:
        """Over how many episodes `episode_reward_mean` is."""
        return self.metrics_num_episodes_for_smoothing

    def minibatch_timesteps(self) -> int:
        """How many timesteps a minibatch has, of all workers and devices together."""
        return min(self.minibatch_size, self.rows() * self.fragment_length())

    def sequence_length(self) -> int:
        """Over how many steps gradients flow: 1 for a network without memory."""
        if self.model.get("custom_model") is None and not any(self.model.get(name) for name in MEMORIES):
            return 1  # known without a model, which takes time to ask
        model = {**MODEL_DEFAULTS, **self.model}
        return model["max_seq_len"] if is_recurrent(make_model(self.model)) else 1

    def horizon(self) -> float:
        """The timesteps at which progress is 1: the last point of any schedule."""
        return max([self._least_horizon, *(float(points[-1][0]) for points in self.all_schedules())])

    def with_horizon(self, timesteps: float) -> typing.Self:
        """A copy whose schedules are shares of at least so many timesteps: those of all policies of a team."""
        new = self.copy()
        new._least_horizon = max(new._least_horizon, timesteps)
        return new

    def sized(self, num_envs_per_worker: int, num_rollout_workers: int, length: int) -> typing.Self:
        """A copy for so many rows, each of which collects `length` steps at once: of one policy of a team."""
        new = self.copy()
        rows = max(1, num_rollout_workers) * num_envs_per_worker
        new._values |= {
            "num_envs_per_worker": num_envs_per_worker,
            "num_rollout_workers": num_rollout_workers,
            "rollout_fragment_length": length,
        }
        if "replay_buffer_config" not in new._values:  # it learns from what was just collected
            new._values["train_batch_size"] = rows * length
        return new

    def all_schedules(self) -> list[Any]:
        """`[[timestep, value], ...]` of everything that changes with the training's timesteps."""
        return list(self._schedules().values())

    def make_agent(self, spec: Spec) -> Agent:
        """The algorithm's agent with these settings, bound to the spaces of an environment."""
        return make_agent(self, spec)

    def hyperparameters(self) -> dict[str, Any]:
        """The agent's fields that are settings of the same name, schedules as shares of the horizon."""
        fields = {name: self._values[name] for name in self._agent_defaults()}
        horizon = self.horizon()
        return fields | {name: from_timesteps(points, horizon) for name, points in self._schedules().items()}

    def agent_parts(self) -> dict[str, Any]:
        """The agent's fields that are made of several settings. The first network among them is the one that acts."""
        return {"model": make_model(self.model)}

    def exploration_settings(self) -> ExplorationSettings:
        """`exploration_config` with all defaults. Raises ValueError for names and values that cannot be."""
        return self._checked_exploration(self.exploration_config)

    def _checked_exploration(self, given: Mapping[str, Any]) -> ExplorationSettings:
        own = self.defaults.get("exploration_config", {})
        return checked_exploration(given, self._title(), self.exploration_types, own)

    def _schedules(self) -> dict[str, Any]:
        """Field -> `[[timestep, value], ...]`, from `name_schedule` settings and from values given as schedules."""
        found = {name: self._values[name] for name in self._agent_defaults() if is_schedule(self._values[name])}
        for name in ("lr", "entropy_coeff"):
            if self._values.get(f"{name}_schedule") is not None:
                found[name] = self._values[f"{name}_schedule"]
        return found

    @classmethod
    def _agent_defaults(cls) -> dict[str, Any]:
        if cls.agent_class is None:
            return {}
        fields = dataclasses.fields(cls.agent_class)  # type: ignore[arg-type]
        return {field.name: field.default for field in fields if field.name not in cls.fields_set_elsewhere}

    @classmethod
    def _setting(cls, name: str) -> Setting | None:
        """What is known of a setting; None for the agent's own fields."""
        general = GENERAL.get(name) if cls.agent_class is None else None
        return SETTINGS.get(name) or cls.more_settings.get(name) or general

    @classmethod
    def _section_of(cls, name: str) -> str:
        """The section that a setting belongs to; an agent's fields are `training`'s."""
        setting = cls._setting(name)
        return setting.section if setting is not None else "training"

    @classmethod
    def _agent_hints(cls) -> dict[str, Any]:
        return typing.get_type_hints(cls.agent_class, include_extras=True) if cls.agent_class is not None else {}

    @classmethod
    def _title(cls) -> str:
        return cls.algorithm_name or cls.__name__

    def _set(self, section: str | None, settings: Mapping[str, Any]) -> typing.Self:
        """Check and merge `settings`; `section` None takes those of any section."""
        if self._frozen and settings:
            raise AttributeError(
                f"{self._title()}: the configuration of a built algorithm is frozen; change a .copy() and build that"
            )
        hints = self._agent_hints()
        values, chosen = dict(self._values), set(self._chosen)
        for given, value in translated(settings, self._values).items():
            name, value = SPELLINGS.get(given, given), _plain(value)
            where = f"{section}({given}={value!r})" if section else f"{given}={value!r}"
            if name in IGNORED and name not in self._values:
                if not (name == "framework" and value == "jax"):
                    logger.info("%s: %s", where, IGNORED[name])
                continue
            of_torch = name == "optimizer" and isinstance(value, Mapping) and not is_search(value)
            if (name in UNSERVED or name in REFUSED) and (name not in self._values or of_torch):
                _tell_unserved(name, value, where)
                continue
            self._check(name, given, value, section, where, hints)
            values[name] = self._merged(name, value)
            chosen.add(name)
        if "optimizer" in chosen and not chosen & {"lr", "lr_schedule"}:  # what is given has a rate of its own
            values["lr"] = type(self)().lr if values["optimizer"] is None else 1.0
        elif values.get("optimizer") is not None and {"optimizer", "lr", "lr_schedule"} & settings.keys():
            logger.info("optimizer=...: lr=%r multiplies its updates, beside a rate of its own", values.get("lr"))
        if {"minibatch_size", "train_batch_size"} <= chosen:
            _check_minibatch(values, section, settings)
        self._values, self._chosen = values, chosen
        return self

    def _check(self, name: str, given: str, value: Any, section: str | None, where: str, hints: dict) -> None:
        """Raise ValueError, naming the call, for an unknown name, a wrong type or an impossible value."""
        if name not in self._values:
            near = self._nearest(given, section)
            raise ValueError(f"{where}: {self._title()} has no {given!r}{near}")
        own = self._section_of(name)
        if section is not None and own != section:
            raise ValueError(f"{where}: {given!r} belongs to .{own}(...)")
        if is_search(value):
            return
        if (
            isinstance(value, Mapping)
            and name not in ("env_config", "policy_mapping_fn")  # agents may be called by numbers
            and (odd := [key for key in value if type(key) is not str])
        ):
            raise ValueError(f"{where}: expected a dictionary whose keys are texts, got the key {odd[0]!r}")
        scheduled = name.removesuffix("_schedule")
        if scheduled != name and hints and scheduled not in hints and value is not None:
            own = ", ".join(
                field for field in hints if field in self._values and "Schedule" in type_names(hints[field])
            )
            raise ValueError(f"{where}: {self._title()} has no {scheduled!r}; of its own, {own} may be schedules")
        setting = self._setting(name)
        if setting is None:
            expected = check_field(hints[name], value)
        elif scheduled != name and scheduled in hints and is_schedule(value):
            expected = check_field(hints[scheduled], value)
        else:
            expected = check_setting(setting.kind, value)
        if expected is not None:
            raise ValueError(f"{where}: expected {expected}, got {type(value).__name__} {value!r}")
        if name == "model":
            check_model(value)
        if name == "policies" and value is not None:
            try:
                plain_policies(value)
            except ValueError as error:
                raise ValueError(f"{section or 'config'}: {error}") from error
        if name == "evaluation_config":
            self._check_evaluation_config(value, where)
        if name == "exploration_config":
            self._checked_exploration(self._merged(name, value))

    def _check_evaluation_config(self, changes: Mapping[str, Any], where: str) -> None:
        """Raise ValueError for a name that does not exist; say so of one that changes nothing."""
        for given in changes:
            if given in EVALUATION_CHANGES:
                continue
            if SPELLINGS.get(given, given) not in self._values and given not in IGNORED:
                near = difflib.get_close_matches(given, [*EVALUATION_CHANGES, *self._values, *SPELLINGS], n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(EVALUATION_CHANGES)}"
                raise ValueError(f"{where}: {self._title()} has no {given!r}{hint}")
            logger.info("%s: %r is the same in evaluation as in training", where, given)

    def _merged(self, name: str, value: Any) -> Any:
        """Dictionaries merge key by key; all else is replaced."""
        if name == "exploration_config" and value.get("type", self.exploration_config.get("type")) != (
            self.exploration_config.get("type")
        ):
            return _copied(value)  # another type has other settings
        setting = self._setting(name)
        merges = setting is not None and setting.kind == "dict"
        if merges and isinstance(value, Mapping) and "grid_search" not in value:
            return {**self._values[name], **_copied(value)}
        if name == "policies" and value is not None:
            return plain_policies(value)
        if name == "input_":
            return kept_input(value)
        if name in SPACES:
            return None if value is None else kept_space(value)
        if name == "policy_mapping_fn" and isinstance(value, Mapping):
            return {str(agent): policy for agent, policy in value.items()}
        return _copied(value)

    def _nearest(self, given: str, section: str | None) -> str:
        spelled = [other for other, name in SPELLINGS.items() if name in self._values]
        known = [*self._values, *spelled, *IGNORED]
        own = [name for name in self._values if section is not None and self._section_of(name) == section]
        word = str(given)  # files may have others as keys
        if word in STABLE_BASELINES:
            return f"; Stable-Baselines3's {word} is {STABLE_BASELINES[word]} here"
        near = difflib.get_close_matches(word, own, n=1) or difflib.get_close_matches(word, known, n=1)
        if near:
            return f"; did you mean {near[0]!r}?"
        return f"; .{section}(...) takes {', '.join(own)}" if own else f"; it has {', '.join(self._values)}"


def _tell_unserved(name: str, value: Any, where: str) -> None:
    """Warn of a setting without a counterpart, where it is switched on; raise ValueError where much hangs on it."""
    try:
        sentence = said(name, value)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if sentence is not None:
        logger.warning("%s has no effect: %s", where, sentence)


def _check_minibatch(values: Mapping[str, Any], section: str | None, settings: Mapping[str, Any]) -> None:
    """The one misfit that shows at the call; whatever needs the environments is seen at `build`."""
    minibatch, batch = values["minibatch_size"], values["train_batch_size"]
    if is_search(minibatch) or is_search(batch) or minibatch <= batch:
        return
    given = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    raise ValueError(
        f"{section or 'config'}({given}): minibatch_size={minibatch} does not fit train_batch_size={batch}"
    )


def _plain(value: Any) -> Any:
    """NumPy's and JAX's scalars as Python's numbers, and paths as texts, which files can hold."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def _copied(value: Any) -> Any:
    """A copy of nested containers. What is in them (environments, callbacks, models) stays the same object."""
    if isinstance(value, Mapping):
        return {name: _copied(part) for name, part in value.items()}
    return type(value)(map(_copied, value)) if type(value) in (list, tuple) else value
