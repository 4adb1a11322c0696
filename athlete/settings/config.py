"""Configuration objects under RLlib's names: chainable sections, checked at the call."""

from __future__ import annotations

import dataclasses
import difflib
import math
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from athlete.log import logger
from athlete.settings.checks import SCHEDULE_FORM, is_count, is_number, is_schedule
from athlete.settings.exploration import ExplorationSettings, checked_exploration, make_bonus
from athlete.settings.rllib_names import IGNORED, SECTIONS, SPELLINGS

if typing.TYPE_CHECKING:
    from athlete.algorithm import Algorithm
    from athlete.core import Agent, Spec


class Setting(NamedTuple):
    """A setting that every algorithm has: its section, its default, and which values may be."""

    section: str
    default: Any
    kind: str  # read by _VALUE_CHECKS


SETTINGS: dict[str, Setting] = {
    "env": Setting("environment", None, "any"),
    "env_config": Setting("environment", {}, "dict"),
    "backend": Setting("environment", "auto", "auto|jax|gymnasium|envpool"),
    "disable_env_checking": Setting("environment", False, "bool"),
    "normalize_rewards": Setting("environment", False, "bool"),
    "clip_rewards": Setting("environment", None, "clip or None"),
    "reward_scale": Setting("environment", 1.0, "positive number"),
    "num_rollout_workers": Setting("rollouts", 0, "count"),
    "num_envs_per_worker": Setting("rollouts", 8, "positive count"),
    "rollout_fragment_length": Setting("rollouts", "auto", "positive count or auto"),
    "preprocessor_pref": Setting("rollouts", "deepmind", "deepmind|rllib or None"),
    "observation_filter": Setting("rollouts", "NoFilter", "NoFilter|MeanStdFilter"),
    "observation_fn": Setting("rollouts", None, "observation function or None"),
    "train_batch_size": Setting("training", 2048, "positive count"),
    "model": Setting("training", {}, "dict"),
    "lr_schedule": Setting("training", None, "schedule or None"),
    "entropy_coeff_schedule": Setting("training", None, "schedule or None"),
    "exploration_config": Setting("exploration", {}, "dict"),
    "num_gpus": Setting("resources", 0, "number"),
    "evaluation_interval": Setting("evaluation", None, "count or None"),
    "evaluation_duration": Setting("evaluation", 10, "positive count"),
    "evaluation_duration_unit": Setting("evaluation", "episodes", "episodes|timesteps"),
    "evaluation_num_workers": Setting("evaluation", 0, "count"),
    "evaluation_config": Setting("evaluation", {}, "dict"),
    "seed": Setting("debugging", None, "count or None"),
    "log_level": Setting("debugging", "INFO", "DEBUG|INFO|WARN|WARNING|ERROR"),
    "on_nonfinite": Setting("debugging", "error", "error|warn"),
    "metrics_num_episodes_for_smoothing": Setting("reporting", 100, "positive count"),
    "info_metrics": Setting("reporting", [], "names or bool"),
    "min_time_s_per_iteration": Setting("reporting", None, "number or None"),
    "min_sample_timesteps_per_iteration": Setting("reporting", 0, "count"),
    "callbacks": Setting("callbacks", None, "callbacks or None"),
}

# Inclusive ranges of numbers that every algorithm reads in the same way.
RANGES: dict[str, tuple[float, float]] = {
    "lr": (0.0, math.inf),
    "gamma": (0.0, 1.0),
    "lambda_": (0.0, 1.0),
    "clip_param": (0.0, math.inf),
    "vf_clip_param": (0.0, math.inf),
    "vf_loss_coeff": (0.0, math.inf),
    "entropy_coeff": (-math.inf, math.inf),
    "kl_coeff": (0.0, math.inf),
    "kl_target": (0.0, math.inf),
    "kl_stop": (0.0, math.inf),
    "rpo_alpha": (0.0, math.inf),
    "grad_clip": (0.0, math.inf),
    "minibatch_size": (1, math.inf),
    "num_epochs": (1, math.inf),
    "adam_epsilon": (0.0, math.inf),
    **dict.fromkeys(("conjugate_gradient_steps", "line_search_steps"), (1, math.inf)),
    "damping": (0.0, math.inf),
    "line_search_decay": (0.0, 1.0),
    "n_step": (1, math.inf),
    "num_atoms": (1, math.inf),
    "num_quantiles": (1, math.inf),
    "top_quantiles_to_drop_per_net": (0, math.inf),
    "kappa": (1e-6, math.inf),
    "tau": (0.0, 1.0),
    "sigma0": (0.0, math.inf),
    "h_function_epsilon": (0.0, math.inf),
    "priority_eta": (0.0, 1.0),
    **dict.fromkeys(("actor_lr", "critic_lr", "l2_reg", "target_noise", "target_noise_clip"), (0.0, math.inf)),
    "alpha_lr": (0.0, math.inf),
    "initial_alpha": (1e-6, math.inf),
    **dict.fromkeys(("policy_delay", "num_critics", "num_critics_in_target"), (1, math.inf)),
    "dropout": (0.0, 0.9),
    "adam_beta1": (0.0, 0.999),
    "huber_threshold": (0.0, math.inf),
    "target_network_update_freq": (0.0, math.inf),
    "num_steps_sampled_before_learning_starts": (0, math.inf),
}


EVALUATION_CHANGES = ("explore", "env", "env_config")  # what evaluation_config may change

# Where infinity is a way to say "no limit".
UNLIMITED = ("grad_clip", "clip_param", "vf_clip_param", "kl_stop")


def _is_callbacks(value: Any) -> bool:
    from athlete.callbacks import DefaultCallbacks

    return issubclass(value if isinstance(value, type) else type(value), DefaultCallbacks)


def _is_positive(value: Any) -> bool:
    return is_number(value) and 0 < value < math.inf


def _is_observation_function(value: Any) -> bool:
    if isinstance(value, list | tuple):
        from athlete.spaces import Space

        return len(value) == 2 and callable(value[0]) and isinstance(value[1], Space)
    return callable(value)


_VALUE_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "any": (lambda value: True, "anything"),
    "dict": (lambda value: isinstance(value, Mapping), "a dictionary"),
    "callbacks": (_is_callbacks, "a subclass of athlete.callbacks.DefaultCallbacks or an instance of one"),
    "observation function": (
        _is_observation_function,
        "a function from an observation to what the agent sees, or a pair of it and its athlete.spaces.Space",
    ),
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "names or bool": (
        lambda value: (
            isinstance(value, bool)
            or (isinstance(value, list | tuple) and all(isinstance(name, str) for name in value))
        ),
        "a list of names, True for all or False for none",
    ),
    "clip": (lambda value: isinstance(value, bool) or _is_positive(value), "True, False or a number above 0"),
    "positive number": (_is_positive, "a finite number above 0"),
    "number": (lambda value: is_number(value) and value >= 0, "a number of at least 0"),
    "count": (is_count, "a whole number of at least 0"),
    "positive count": (lambda value: is_count(value) and value > 0, "a whole number of at least 1"),
    "positive count or auto": (
        lambda value: value == "auto" or (is_count(value) and value > 0),
        "a whole number of at least 1, or 'auto'",
    ),
    "schedule": (is_schedule, SCHEDULE_FORM),
}


def check_setting(kind: str, value: Any) -> str | None:
    """None if `value` is of `kind`, else what was expected."""
    if kind.endswith(" or None"):
        if value is None:
            return None
        expected = check_setting(kind.removesuffix(" or None"), value)
        return None if expected is None else f"{expected}, or None"
    if kind in _VALUE_CHECKS:
        test, expected = _VALUE_CHECKS[kind]
        return None if test(value) else expected
    choices = kind.split("|")
    return None if value in choices else f"one of {', '.join(map(repr, choices))}"


def _check_field(name: str, hint: Any, value: Any) -> str | None:
    """None if `value` fits an agent's field of annotation `hint`, else what was expected."""
    parts, names = typing.get_args(hint), _type_names(hint)
    if value is None:
        return None if "NoneType" in names else "a value, not None"
    low, high = RANGES.get(name, (-math.inf, math.inf))
    bounds = _describe_range(low, high)
    if "Schedule" in names and is_schedule(value):
        return None if all(low <= number <= high for _, number in value) else f"values {bounds}"
    if "float" in names:
        scheduled = f" or a schedule {SCHEDULE_FORM}" if "Schedule" in names else ""
        fits = is_number(value) and low <= value <= high and (math.isfinite(value) or name in UNLIMITED)
        return None if fits else f"a number {bounds}{scheduled}"
    if "bool" in names:
        return None if isinstance(value, bool) else "True or False"
    if choices := [part for part in parts if isinstance(part, str)]:  # of a Literal
        return None if value in choices else f"one of {', '.join(map(repr, choices))}"
    if "int" in names:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return None if whole and low <= value <= high else f"a whole number {bounds}"
    return None


def _type_names(hint: Any) -> set[str]:
    """What an annotation names: `float | None` is float and NoneType."""
    return {getattr(part, "__name__", str(part)) for part in typing.get_args(hint) or (hint,)}


def _describe_range(low: float, high: float) -> str:
    if math.isinf(low) and math.isinf(high):
        return "that is finite"
    return f"of at least {low:g}" if math.isinf(high) else f"between {low:g} and {high:g}"


class AlgorithmConfig:
    """What an algorithm is to do, in sections that chain and merge: RLlib's names and meanings.

    Subclasses name their agent. `config.lr` and `config["lr"]` read a setting; sections write. Every value is checked
    at the call. After `build()` the algorithm's own copy is frozen.
    """

    algorithm_name: str = ""
    agent_class: type[Agent] | None = None
    defaults: typing.ClassVar[dict[str, Any]] = {}  # where they differ from those of SETTINGS and of the agent
    more_settings: typing.ClassVar[dict[str, Setting]] = {}  # that not every algorithm has
    exploration_types: typing.ClassVar[tuple[str, ...]] = ("StochasticSampling",)  # that fit, the default first
    fields_set_elsewhere: tuple[str, ...] = ("model", "memory", "updates", "spec")

    def __init__(self, algo_class: Any = None):
        settings = {**SETTINGS, **self.more_settings}
        self._values: dict[str, Any] = {name: _copied(setting.default) for name, setting in settings.items()}
        self._values.update({**self._agent_defaults(), **_copied(self.defaults)})
        self._chosen: set[str] = set()  # set by the user, not by default
        self._frozen = False

    # Sections -----------------------------------------------------------------------------------------------------

    def environment(self, env: Any = None, **settings: Any) -> typing.Self:
        """`env` (id, class, factory, registered name or JAX environment), `env_config`, `backend` ("auto": compiled
        where there is a JAX twin; "jax": only so; "gymnasium": never; "envpool": in its batch),
        `disable_env_checking`, `clip_rewards` (True: the sign; a number: within plus and minus it), `reward_scale`,
        `normalize_rewards`.
        """
        if env is not None:
            settings["env"] = env
        return self._set("environment", settings)

    def rollouts(self, **settings: Any) -> typing.Self:
        """`num_rollout_workers` (processes; 0 is this process), `num_envs_per_worker`, `rollout_fragment_length`,
        `observation_filter` ("NoFilter" or "MeanStdFilter"), `observation_fn` (what the agent sees of an observation),
        `preprocessor_pref` ("deepmind": Atari's pictures shrunk and stacked; "rllib" or None: as they are).
        """
        return self._set("rollouts", settings)

    def training(self, **settings: Any) -> typing.Self:
        """`train_batch_size`, `model`, `lr_schedule`, `entropy_coeff_schedule` and the fields of the agent: its
        docstring has them. Numbers that may be scheduled also take `[[timestep, value], ...]`.
        """
        return self._set("training", settings)

    def resources(self, **settings: Any) -> typing.Self:
        """`num_gpus`: the JAX that is installed decides; more than there are is an error at `build`."""
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
        "timesteps"), `evaluation_num_workers`, `evaluation_config` (settings that differ, such as `explore`).
        """
        return self._set("evaluation", settings)

    def debugging(self, **settings: Any) -> typing.Self:
        """`seed` (None: a new one each time, which the results name), `log_level`, and `on_nonfinite` ("error" or
        "warn" where learning makes NaN or infinity).
        """
        return self._set("debugging", settings)

    def reporting(self, **settings: Any) -> typing.Self:
        """`metrics_num_episodes_for_smoothing`, `min_time_s_per_iteration`, `min_sample_timesteps_per_iteration`,
        `info_metrics` (entries of `info` that become custom metrics at the end of an episode; True: all its numbers).
        """
        return self._set("reporting", settings)

    def callbacks(self, callbacks: Any = None) -> typing.Self:
        """A subclass of `athlete.callbacks.DefaultCallbacks`, or an instance of one.

        Raises ValueError for a method `on_...` that is no callback and would never be called.
        """
        if callbacks is not None:
            from athlete.callbacks import unknown_hook

            if (sentence := unknown_hook(callbacks)) is not None:
                raise ValueError(f"callbacks(...): {sentence}")
        return self._set("callbacks", {"callbacks": callbacks})

    def fault_tolerance(self, **settings: Any) -> typing.Self:
        """Accepted for RLlib's users."""
        return self._set("fault_tolerance", settings)

    def api_stack(self, **settings: Any) -> typing.Self:
        """Accepted for RLlib's users."""
        return self._set("api_stack", settings)

    def learners(self, **settings: Any) -> typing.Self:
        """Accepted for RLlib's users."""
        return self._set("learners", settings)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in SECTIONS:
            return getattr(self, SECTIONS[name])
        values = self.__dict__.get("_values", {})
        name = SPELLINGS.get(name, name)
        if name in values:
            return values[name]
        near = difflib.get_close_matches(name, [*values, *_section_names()], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise AttributeError(f"{self._title()} has no {name!r}{hint}")

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

    def chosen(self) -> dict[str, Any]:
        """Only what was set, not the defaults."""
        return {name: _copied(self._values[name]) for name in sorted(self._chosen)}

    def copy(self, copy_frozen: bool = False) -> typing.Self:
        """An independent copy, open to changes unless `copy_frozen` keeps the seal."""
        new = type(self)()
        new._values = self.to_dict()
        new._chosen = set(self._chosen)
        new._frozen = self._frozen and copy_frozen
        return new

    def freeze(self) -> None:
        """Refuse changes from now on."""
        self._frozen = True

    def get(self, name: str, default: Any = None) -> Any:
        return self._values.get(SPELLINGS.get(name, name), default)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and SPELLINGS.get(name, name) in self.__dict__.get("_values", {}):
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

        if self.agent_class is None:
            raise ValueError("AlgorithmConfig has no algorithm to build; take an algorithm's own, such as PPOConfig()")
        config = self.copy()
        if env is not None:
            settings["env"] = env
        config._set(None, settings)
        config.validate()
        config.freeze()
        return Algorithm(config)

    def validate(self) -> None:
        """Raise ValueError where settings do not fit one another."""
        for name, value in self._values.items():
            if is_search(value):
                raise ValueError(f"{self._title()}: {name}={value!r} is a search space; give the config to tune.run")
        if self.env is None:
            raise ValueError(
                f"{self._title()}: no environment; say .environment('CartPole-v1') or .build(env='CartPole-v1')"
            )
        rows, length = self.rows(), self.fragment_length()
        minibatch = self.get("minibatch_size")
        if minibatch is not None and "minibatch_size" in self._chosen and minibatch > rows * length:
            raise ValueError(
                f"{self._title()}: minibatch_size={minibatch} does not fit a batch of {rows * length} timesteps "
                f"({rows} environments x {length} steps); make it smaller or train_batch_size larger"
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

    def sequence_length(self) -> int:
        """Over how many steps gradients flow: 1 for a network without memory."""
        from athlete.models.catalog import MEMORIES, MODEL_DEFAULTS, is_recurrent, make_model

        if self.model.get("custom_model") is None and not any(self.model.get(name) for name in MEMORIES):
            return 1  # known without a model, which takes time to ask
        model = {**MODEL_DEFAULTS, **self.model}
        return model["max_seq_len"] if is_recurrent(make_model(self.model)) else 1

    def horizon(self) -> float:
        """The timesteps at which progress is 1: the last point of any schedule."""
        return max((float(points[-1][0]) for points in self.all_schedules()), default=1.0) or 1.0

    def all_schedules(self) -> list[Any]:
        """`[[timestep, value], ...]` of everything that changes with the training's timesteps."""
        return list(self._schedules().values())

    def agent_parts(self) -> dict[str, Any]:
        """The agent's fields that are made of several settings: its network."""
        from athlete.models.catalog import make_model

        return {"model": make_model(self.model)}

    def make_agent(self, spec: Spec) -> Agent:
        """The algorithm's agent with these settings, bound to the spaces of an environment."""
        from athlete.core import Model
        from athlete.models.catalog import check_custom_model, with_convolutions, with_layer_of_pictures
        from athlete.ops.masks import check_mask
        from athlete.ops.schedule import from_timesteps

        assert self.agent_class is not None
        seen = self._seen(spec)
        model = with_layer_of_pictures(self.model, seen.obs)
        if model != self.model:
            return self.copy().training(model=model).make_agent(spec)
        names = self._agent_defaults()
        fields = {name: self._values[name] for name in names}
        for name, points in self._schedules().items():
            fields[name] = from_timesteps(points, self.horizon())
        fields |= self.agent_parts()
        for name, part in fields.items():
            if isinstance(part, Model):
                fields[name] = with_convolutions(part, self.model, seen.obs)
        for name in ("model", "policy_model"):
            if name in fields and self.model.get("custom_model") is not None:
                check_custom_model(fields[name], seen)
        if "minibatch_size" in fields:
            fields["minibatch_size"] = min(fields["minibatch_size"], self.rows() * self.fragment_length())
        of_agent = {field.name for field in dataclasses.fields(self.agent_class)}  # type: ignore[arg-type]
        if "max_seq_len" in of_agent:
            fields["max_seq_len"] = self.sequence_length()
        if "free_log_std" in of_agent:
            fields["free_log_std"] = self.model.get("free_log_std", True)
        check_mask(seen)
        _refuse_empty_spaces(seen)
        agent = self.agent_class(**fields)
        exploration = self._exploration().exploration
        if exploration["random_timesteps"] and "random_timesteps" not in of_agent:
            raise ValueError(
                f"{self._title()}: exploration_config has random_timesteps={exploration['random_timesteps']}, and it "
                "learns from its first step on; leave it out"
            )
        return self._combined(agent, seen).bind(spec)

    def _seen(self, spec: Spec) -> Spec:
        """The spaces as the agent sees them: of what `observation_fn` makes of observations."""
        if self.observation_fn is None:
            return spec
        from athlete.combine.observations import require_space, space_of

        if callable(self.observation_fn):
            return spec._replace(obs=space_of(self.observation_fn, spec.obs))
        function, space = self.observation_fn
        require_space(function, spec.obs, space)
        return spec._replace(obs=space)

    def _combined(self, agent: Agent, seen: Spec) -> Agent:
        """The agent inside all that the settings put around it, of which the last is the first to see a batch."""
        standardize = self.observation_filter == "MeanStdFilter"
        if standardize or self.normalize_rewards:
            from athlete.combine.normalize import Normalize

            gamma = float(getattr(agent, "gamma", 0.99))
            agent = Normalize(agent, gamma, observations=standardize, rewards=self.normalize_rewards)
        bonus = self._exploration().bonus
        if bonus is not None:
            from athlete.combine.curious import Curious

            # Around the normalisation: it sees the observations themselves, and its reward is scaled with the others.
            agent = Curious(agent, make_bonus(bonus, seen.obs))
        if self.clip_rewards or self.reward_scale != 1.0:
            from athlete.combine.rewards import Rewards

            sign = self.clip_rewards is True
            clip = None if sign or not self.clip_rewards else float(self.clip_rewards)
            agent = Rewards(agent, float(self.reward_scale), clip, sign)
        if self.observation_fn is not None:
            from athlete.combine.observations import Observations

            function = self.observation_fn if callable(self.observation_fn) else self.observation_fn[0]
            agent = Observations(agent, function, seen.obs)
        return agent

    def _exploration(self) -> ExplorationSettings:
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
        special = (*cls.fields_set_elsewhere, "max_seq_len", "free_log_std")
        return {field.name: field.default for field in fields if field.name not in special}

    @classmethod
    def _setting(cls, name: str) -> Setting | None:
        """What is known of a setting; None for the agent's own fields."""
        return SETTINGS.get(name) or cls.more_settings.get(name)

    @classmethod
    def _section_of(cls, name: str) -> str:
        """The section that a setting belongs to; an agent's fields are `training`'s."""
        setting = cls._setting(name)
        return setting.section if setting is not None else "training"

    @classmethod
    def _agent_hints(cls) -> dict[str, Any]:
        return typing.get_type_hints(cls.agent_class) if cls.agent_class is not None else {}

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
        for given, value in settings.items():
            name, value = SPELLINGS.get(given, given), _plain(value)
            where = f"{section}({given}={value!r})" if section else f"{given}={value!r}"
            if name in IGNORED and name not in self._values:
                if not (name == "framework" and value == "jax"):
                    logger.info("%s: %s", where, IGNORED[name])
                continue
            self._check(name, given, value, section, where, hints)
            values[name] = self._merged(name, value)
            chosen.add(name)
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
        scheduled = name.removesuffix("_schedule")
        if scheduled != name and hints and scheduled not in hints and value is not None:
            own = ", ".join(
                field for field in hints if field in self._values and "Schedule" in _type_names(hints[field])
            )
            raise ValueError(f"{where}: {self._title()} has no {scheduled!r}; of its own, {own} may be schedules")
        setting = self._setting(name)
        if setting is None:
            expected = _check_field(name, hints[name], value)
        elif scheduled != name and scheduled in hints and is_schedule(value):
            expected = _check_field(scheduled, hints[scheduled], value)
        else:
            expected = check_setting(setting.kind, value)
        if expected is not None:
            raise ValueError(f"{where}: expected {expected}, got {type(value).__name__} {value!r}")
        if name == "model":
            from athlete.models.catalog import check_model

            check_model(value)
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
        return _copied(value)

    def _nearest(self, given: str, section: str | None) -> str:
        known = [*self._values, *SPELLINGS, *IGNORED]
        own = [name for name in self._values if section is not None and self._section_of(name) == section]
        near = difflib.get_close_matches(given, own, n=1) or difflib.get_close_matches(given, known, n=1)
        if near:
            return f"; did you mean {near[0]!r}?"
        return f"; .{section}(...) takes {', '.join(own)}" if own else f"; it has {', '.join(self._values)}"


def _refuse_empty_spaces(spec: Spec) -> None:
    """Raise ValueError where there is nothing to see or nothing to do: a network needs a number on either side."""
    from athlete.ops.features import feature_size
    from athlete.spaces import Box

    if feature_size(spec.obs) == 0:
        raise ValueError(f"observation_space {spec.obs} has no entry; where there is nothing to see, use Discrete(1)")
    if isinstance(spec.action, Box) and 0 in spec.action.shape:
        raise ValueError(f"action_space {spec.action} has no entry: there is nothing to learn")


def _check_minibatch(values: Mapping[str, Any], section: str | None, settings: Mapping[str, Any]) -> None:
    """The one misfit that shows at the call; whatever needs the environments is seen at `build`."""
    minibatch, batch = values["minibatch_size"], values["train_batch_size"]
    if is_search(minibatch) or is_search(batch) or minibatch <= batch:
        return
    given = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    raise ValueError(
        f"{section or 'config'}({given}): minibatch_size={minibatch} does not fit train_batch_size={batch}"
    )


def is_search(value: Any) -> bool:
    """Whether `value` is or holds a place of a search, which `tune.run` fills in: `tune.uniform(0, 1)`, a grid."""
    if isinstance(value, Mapping):
        return set(value) == {"grid_search"} or any(is_search(part) for part in value.values())
    if isinstance(value, list | tuple):
        return any(is_search(part) for part in value)
    return type(value).__module__ == "athlete.tune.space"


def _plain(value: Any) -> Any:
    """NumPy's and JAX's scalars as Python's numbers, which files can hold."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def _copied(value: Any) -> Any:
    """A copy of nested containers. What is in them (environments, callbacks, models) stays the same object."""
    if isinstance(value, Mapping):
        return {name: _copied(part) for name, part in value.items()}
    return type(value)(map(_copied, value)) if type(value) in (list, tuple) else value


def _section_names() -> list[str]:
    return sorted({setting.section for setting in SETTINGS.values()})
