"""From settings to an agent: its fields, its memory and its exploration, and what goes around it.

The one module that knows all parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from athlete import exploration
from athlete.bonuses.bonus import Bonus
from athlete.bonuses.counts import Counts
from athlete.bonuses.curiosity import Curiosity
from athlete.bonuses.rnd import RND
from athlete.combine.curious import Curious
from athlete.combine.normalize import Normalize
from athlete.combine.observations import Observations, require_space, space_of
from athlete.combine.rewards import Rewards
from athlete.core import Agent, Memory, Model, Spec
from athlete.log import logger
from athlete.memory.hindsight import Hindsight
from athlete.memory.prioritized import Prioritized
from athlete.memory.replay import Replay
from athlete.models.catalog import (
    check_custom_model,
    make_model,
    with_convolutions,
    with_layer_of_pictures,
    with_space,
)
from athlete.ops.features import feature_size, pictures_of_other_axes
from athlete.ops.masks import check_mask
from athlete.ops.schedule import from_timesteps
from athlete.settings.checks import is_schedule
from athlete.settings.exploration import BONUSES, bonus_networks
from athlete.settings.memory import MEMORIES
from athlete.spaces import Box, Space

if TYPE_CHECKING:
    from athlete.settings.config import AlgorithmConfig


def make_agent(config: AlgorithmConfig, spec: Spec) -> Agent:
    """The algorithm's agent with the settings of `config`, bound to the spaces of an environment.

    Raises ValueError for spaces and settings that do not go together.
    """
    assert config.agent_class is not None
    seen = spec_seen(config.observation_fn, spec)
    model = with_space(with_layer_of_pictures(config.model, seen.obs), seen.obs)
    if model != config.model:
        return make_agent(config.copy().training(model=model), spec)
    fields = {**config.hyperparameters(), **config.agent_parts()}
    networks = [name for name, part in fields.items() if isinstance(part, Model)]
    for name in networks:
        fields[name] = with_convolutions(fields[name], config.model, seen.obs)
    if config.model.get("conv_filters") is None and config.model.get("custom_model") is None:
        _tell_of_flattened_boards(seen.obs)
    if config.model.get("custom_model") is not None:
        check_custom_model(fields[networks[0]], seen)  # the one that acts
    check_mask(seen)
    _refuse_empty_spaces(seen)
    random = config.exploration_settings().exploration["random_timesteps"]
    if random and not config.takes_random_timesteps:
        raise ValueError(
            f"{config.algorithm_name}: exploration_config has random_timesteps={random}, and it learns from its first "
            "step on; leave it out"
        )
    return surrounded(config, config.agent_class(**fields), seen).bind(spec)


def spec_seen(observation_fn: Any, spec: Spec) -> Spec:
    """The spaces as the agent sees them: of what `observation_fn` makes of observations, where there is one."""
    if observation_fn is None:
        return spec
    if callable(observation_fn):
        return spec._replace(obs=space_of(observation_fn, spec.obs))
    function, space = observation_fn
    require_space(function, spec.obs, space)
    return spec._replace(obs=space)


def surrounded(config: AlgorithmConfig, agent: Agent, seen: Spec) -> Agent:
    """The agent inside all that the settings put around it, of which the last is the first to see a batch.

    Raises ValueError for what a joint method cannot have around it.
    """
    if agent.joint:
        _refuse_around_joint(config)
    standardize = config.observation_filter == "MeanStdFilter" and not agent.filters
    if standardize or config.normalize_rewards:
        gamma = float(config.get("gamma", 0.99))
        agent = Normalize(agent, gamma, observations=standardize, rewards=config.normalize_rewards)
    bonus = config.exploration_settings().bonus
    if bonus is not None:
        # Around the normalisation: it sees the observations themselves, and its reward is scaled with the others.
        agent = Curious(agent, make_bonus(bonus, seen.obs))
    if config.clip_rewards or config.reward_scale != 1.0:
        sign = config.clip_rewards is True
        clip = None if sign or not config.clip_rewards else float(config.clip_rewards)
        agent = Rewards(agent, float(config.reward_scale), clip, sign)
    if config.observation_fn is not None:
        function = config.observation_fn if callable(config.observation_fn) else config.observation_fn[0]
        agent = Observations(agent, function, seen.obs)
    return agent


def _refuse_around_joint(config: AlgorithmConfig) -> None:
    bonus = config.exploration_settings().bonus
    given = "normalize_rewards=True" if config.normalize_rewards else f"the bonus {bonus['type']!r}" if bonus else None
    given = given or ("observation_fn" if config.observation_fn is not None else None)
    if given is not None:
        raise ValueError(
            f"{config.algorithm_name}: {given} is for one agent's observations and reward, and it learns from those of "
            "all together; leave it out"
        )


def _tell_of_flattened_boards(obs_space: Space) -> None:
    for name, shape in pictures_of_other_axes(obs_space):
        logger.info(
            "%s, bytes of shape %s, is flattened: an image has three axes, [height, width, channels]; "
            "gymnasium.wrappers.ReshapeObservation adds one for convolutions",
            name,
            list(shape),
        )


def make_bonus(settings: Mapping[str, Any], obs_space: Space) -> Bonus:
    """The bonus with these settings. Images are looked at by convolutions, as the agent looks at them."""
    kind = settings["type"]
    numbers = {name: settings[name] for name, default in BONUSES[kind].items() if isinstance(default, int | float)}
    if kind == "Counts":
        return Counts(**numbers)
    networks = {name: {**network, "vf_share_layers": True} for name, network in bonus_networks(settings).items()}
    features = networks.pop("feature_net_config")
    features_model = with_convolutions(make_model(features), features, obs_space)
    if kind == "RND":
        return RND(**numbers, model=features_model)
    inverse, forward = (make_model(networks[name]) for name in ("inverse_net", "forward_net"))
    return Curiosity(**numbers, features_model=features_model, inverse_model=inverse, forward_model=forward)


def level_points(settings: Mapping[str, Any]) -> list[list[float]] | None:
    """The schedule of an exploration's rate, in timesteps; None where it stays."""
    if settings["type"] in ("EpsilonGreedy", "SlateEpsilonGreedy"):
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


def make_exploration(settings: Mapping[str, Any], horizon: float) -> exploration.Exploration:
    """The exploration with these settings, its schedule as shares of `horizon` timesteps."""
    points = level_points(settings)
    rate: Any = from_timesteps(points, horizon) if points is not None else settings.get("temperature")
    match settings["type"]:
        case "EpsilonGreedy" | "SlateEpsilonGreedy":
            return exploration.EpsilonGreedy(rate)
        case "PerWorkerEpsilonGreedy":
            return exploration.PerWorkerEpsilonGreedy(settings["epsilon"], settings["exponent"])
        case "SoftQ":
            return exploration.SoftQ(rate)
        case "StochasticSampling":
            return exploration.StochasticSampling()
        case "GaussianNoise":
            return exploration.GaussianNoise(settings["stddev"], rate)
        case "PerWorkerGaussianNoise":
            return exploration.PerWorkerGaussianNoise(settings["stddev"], settings["scale"], settings["exponent"])
        case "OrnsteinUhlenbeckNoise":
            return exploration.OrnsteinUhlenbeckNoise(
                settings["ou_theta"], settings["ou_sigma"], settings["ou_base_scale"], rate
            )
        case "PerWorkerOrnsteinUhlenbeckNoise":
            drift = settings["ou_theta"], settings["ou_sigma"], settings["ou_base_scale"]
            return exploration.PerWorkerOrnsteinUhlenbeckNoise(*drift, settings["scale"], settings["exponent"])
    return exploration.ParameterNoise(settings["initial_stddev"], settings["target"])


def make_memory(settings: Mapping[str, Any], horizon: float, **shape: Any) -> Memory:
    """The replay memory of `replay_buffer_config`; `shape` holds the fields of `Replay` that other settings decide."""
    shape |= {"capacity": settings["capacity"], "stack_axis": settings["stack_axis"]}
    kind = MEMORIES[settings["type"]]
    if kind == "hindsight":
        fields = ("batch_size", "window", "unroll", "capacity")
        return Hindsight(
            n_sampled_goal=settings["n_sampled_goal"],
            goal_selection_strategy=settings["goal_selection_strategy"],
            **{name: shape[name] for name in fields},
        )
    if kind == "uniform":
        return Replay(**shape)
    beta = settings["prioritized_replay_beta"]
    return Prioritized(
        alpha=settings["prioritized_replay_alpha"],
        beta=from_timesteps(beta, horizon) if is_schedule(beta) else beta,
        epsilon=settings["prioritized_replay_eps"],
        rated=settings["worker_side_prioritization"],
        **shape,
    )


def _refuse_empty_spaces(spec: Spec) -> None:
    """Raise ValueError where there is nothing to see or nothing to do: a network needs a number on either side."""
    if feature_size(spec.obs) == 0:
        raise ValueError(f"observation_space {spec.obs} has no entry; where there is nothing to see, use Discrete(1)")
    if isinstance(spec.action, Box) and 0 in spec.action.shape:
        raise ValueError(f"action_space {spec.action} has no entry: there is nothing to learn")
