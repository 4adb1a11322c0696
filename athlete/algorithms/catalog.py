"""What the algorithms declare of themselves, put side by side: who serves which actions, who learns from what."""

from __future__ import annotations

from typing import NamedTuple

from athlete.algorithms import ALGORITHMS, get_config_class
from athlete.core import MetaLearner
from athlete.distributions import output_size
from athlete.settings.families import EvolutionConfig, ReplayConfig
from athlete.spaces import Space, action_kind, require_kind


class Entry(NamedTuple):
    """One algorithm, as `athlete list algorithms` and the documentation show it."""

    name: str
    actions: tuple[str, ...]  # kinds of action spaces, of `athlete.spaces.ACTION_KINDS`; where joint, of each agent
    learns_from: str
    memory: str  # whether its networks may have one
    summary: str
    paper: str


def entries() -> list[Entry]:
    """Every algorithm, in the order of `ALGORITHMS`."""
    found = []
    for name in ALGORITHMS:
        config = get_config_class(name)
        sequences, learns_from = None, "recorded data" if config.offline else "the latest steps"
        if not config.learns:
            learns_from = "nothing"
        if learns_from_returns(name):
            learns_from = "the returns of whole episodes"
        if issubclass(config, ReplayConfig):
            sequences = config.learns_sequences
            learns_from = "sequences of replay" if sequences else "replay"
            if config.offline:
                learns_from = "recorded data, then replay"
        memory = {True: "yes", False: "no", None: "may have"}[sequences]
        if is_joint(name):
            learns_from += ", of all agents together"
        found.append(Entry(name, served_by(name), learns_from, memory, config.summary, config.paper))
    return found


def algorithms_for(space: Space) -> str:
    """Which algorithms serve an action space, as the end of a sentence: "DQN, ... and SAC serve it"."""
    try:
        output_size(space)
    except ValueError as error:
        return f"no algorithm serves it: {error}"
    kind = action_kind(space)
    names = [name for name in ALGORITHMS if kind in served_by(name) and not is_joint(name) and learns_online(name)]
    return f"{', '.join(names[:-1])} and {names[-1]} serve it"


def served_by(name: str) -> tuple[str, ...]:
    """The kinds of action spaces that the algorithm `name` serves, of `athlete.spaces.ACTION_KINDS`."""
    agent_class = get_config_class(name).agent_class
    assert agent_class is not None
    return agent_class.serves


def is_joint(name: str) -> bool:
    """Whether the algorithm `name` learns for all agents of an environment together."""
    agent_class = get_config_class(name).agent_class
    assert agent_class is not None
    return agent_class.joint


def agents_of(name: str) -> str:
    """Of how many agents of an environment the algorithm `name` learns."""
    config = get_config_class(name)
    if is_joint(name):
        return "a team"
    if config.agent_class is not None and config.agent_class.simulates:
        return "1 or 2"  # two take turns
    return "one" if config.offline or learns_from_returns(name) or learns_to_adapt(name) else "any"


def learns_to_adapt(name: str) -> bool:
    """Whether the algorithm `name` acts and adapts in tasks, in a loop of its own."""
    agent_class = get_config_class(name).agent_class
    return agent_class is not None and issubclass(agent_class, MetaLearner)


def serves_slates(name: str) -> bool:
    """Whether the actions of the algorithm `name` are slates of documents that observations show, and nothing else."""
    return served_by(name) == ("slates",)


def learns_from_returns(name: str) -> bool:
    """Whether the algorithm `name` learns from whole episodes of a population, and not from steps."""
    return issubclass(get_config_class(name), EvolutionConfig)


def learns_online(name: str) -> bool:
    """Whether the algorithm `name` can learn in an environment: not from recorded data alone, nor nothing."""
    config = get_config_class(name)
    return config.learns and (not config.offline or issubclass(config, ReplayConfig))


def require_served(name: str, space: Space) -> None:
    """Raise ValueError, naming the algorithms that do, unless the algorithm `name` serves one agent's action space."""
    if is_joint(name):
        raise ValueError(
            f"{name} learns for several agents together, and this is an environment of one; {algorithms_for(space)}"
        )
    if serves_slates(name) and action_kind(space) == "other":
        return  # with the observations it is known whether they are slates
    try:
        require_kind(name, served_by(name), space)
    except ValueError as error:
        raise ValueError(f"{error}; {algorithms_for(space)}") from None
