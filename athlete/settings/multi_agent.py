"""Which policies act for which agents: what `.multi_agent(...)` takes, and what it means for the agents there are."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from athlete.settings.checks import is_count, is_number
from athlete.spaces import Space

RLLIBS_MAPPING = "ray.rllib.examples.multi_agent_and_self_play.policy_mapping_fn.PolicyMappingFn"  # in its files
ENTRIES = ("algorithm", "config", "observation_space", "action_space")  # of a policy, as it is kept and as files say it
# Policies that do not learn and have a name: ours, RLlib's.
HEURISTICS = ("random", "RandomPolicy", "AlwaysSameHeuristic", "BeatLastHeuristic")


@dataclasses.dataclass(frozen=True)
class PolicySpec:
    """A policy: RLlib's `PolicySpec`.

    Args:
        policy_class: a heuristic, or None. It is a function `(observations [B, ...], key) -> actions [B, ...]` in JAX;
            one that remembers is a class, a `@hyper` subclass of `athlete.algorithms.fixed.Fixed` with `start` and
            `act`. RLlib's `"AlwaysSameHeuristic"`, `"BeatLastHeuristic"` and `"RandomPolicy"` are known by name.
        observation_space, action_space: what its agents must have; None takes theirs.
        config: settings that differ from those of the whole, as a dictionary or a configuration of its algorithm.
        algorithm: the name of its algorithm, `"random"` for uniformly random actions; None is that of the whole.
    """

    policy_class: Any = None
    observation_space: Any = None
    action_space: Any = None
    config: Any = None
    algorithm: str | None = None


@dataclasses.dataclass(frozen=True)
class Past:
    """Past selves of the policy `of`: opponents that it has beaten, so that it does not forget how.

    Args:
        of: the policy whose snapshots these are.
        size: how many are kept.
        every: trajectories between two snapshots. They are spread over all of the training: where there is no room
            left, every second one is dropped and the distance doubles.
        present: the share of environments in which the present self plays instead.

    Raises:
        ValueError: fewer than 2 snapshots or 1 trajectory, or a share that is none.
    """

    of: str
    size: int = 16
    every: int = 10
    present: float = 0.5

    def __post_init__(self) -> None:
        for name, is_right, expected in (
            ("size", is_count(self.size) and self.size > 1, "a whole number of at least 2"),
            ("every", is_count(self.every) and self.every > 0, "a whole number of at least 1"),
            ("present", is_number(self.present) and 0 <= self.present <= 1, "a number between 0 and 1"),
        ):
            if not is_right:
                raise ValueError(f"Past({self.of!r}, {name}={getattr(self, name)!r}): expected {expected}")


def plain_policies(policies: Any) -> dict[str, dict[str, Any]]:
    """Policies in any form that users know, as a dictionary by name of dictionaries with `ENTRIES`.

    Raises ValueError for what is none of these.
    """
    if not isinstance(policies, Mapping):
        if isinstance(policies, str) or not all(isinstance(name, str) for name in policies):
            raise ValueError(f"policies={policies!r}: expected names, or a dictionary from names to PolicySpecs")
        # A set has another order in every process, and the order of policies is that of their random numbers.
        policies = dict.fromkeys(sorted(policies) if isinstance(policies, set | frozenset) else policies)
    for name in policies:
        if not isinstance(name, str) or not name or "/" in name:
            raise ValueError(f"policies: {name!r} is no name for a policy; expected a text without '/'")
    if not policies:
        raise ValueError("policies={}: there has to be a policy")
    return {name: _plain(name, given) for name, given in policies.items()}


def _plain(name: str, given: Any) -> dict[str, Any]:
    if isinstance(given, tuple | list) and len(given) == 4:  # RLlib's (class, observation space, action space, config)
        given = PolicySpec(*given)
    if isinstance(given, PolicySpec):
        config, algorithm = given.config, given.algorithm or given.policy_class
        given = {
            "algorithm": algorithm,
            "config": config,
            "observation_space": given.observation_space,
            "action_space": given.action_space,
        }
    elif isinstance(given, Past):
        given = {"algorithm": "past", "config": dataclasses.asdict(given)}
    elif given is None or isinstance(given, str) or callable(given):
        given = {"algorithm": given}
    if not isinstance(given, Mapping):
        raise ValueError(
            f"policies[{name!r}] is {given!r}; expected a PolicySpec, None, 'random', the name of an algorithm, "
            "Past(...) or a heuristic"
        )
    if "policy_class" in given:  # as RLlib's files have it
        rest = {entry: value for entry, value in given.items() if entry != "policy_class"}
        given = {**rest, "algorithm": rest.get("algorithm") or given["policy_class"]}
    for entry in given:
        if entry not in ENTRIES:
            near = difflib.get_close_matches(str(entry), ENTRIES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(ENTRIES)}"
            raise ValueError(f"policies[{name!r}] has no entry {entry!r}; {hint}")
    found = {entry: given.get(entry) for entry in ENTRIES}
    if isinstance(found["algorithm"], str) and (last := found["algorithm"].rpartition(".")[2]) in HEURISTICS:
        found["algorithm"] = last  # RLlib's path of the class
    config = found["config"]
    if config is not None and not isinstance(config, Mapping):
        if not hasattr(config, "chosen"):
            raise ValueError(f"policies[{name!r}]: config is {config!r}; expected a dictionary or a configuration")
        found["algorithm"] = found["algorithm"] or config.algorithm_name or None
        config = config.chosen()
    return found | {"config": dict(config or {})}


def never_learns(policy: Mapping[str, Any]) -> bool:
    """Whether a policy, as `plain_policies` gives it, has no algorithm: a heuristic, a random one, past selves."""
    algorithm = policy.get("algorithm")
    return callable(algorithm) or algorithm == "past" or algorithm in HEURISTICS


def is_mapping_of_agents(value: Any) -> bool:
    """Whether `value` can say which policy an agent has."""
    return callable(value) or isinstance(value, Mapping)


def mapping_of(
    given: Callable[..., str] | Mapping[Any, str] | None, ids: Sequence[Any], policies: Sequence[str]
) -> dict[Any, str]:
    """Which policy acts for each of the agents `ids`.

    A function is asked twice, as RLlib's, with `(agent_id, episode, worker)`, both None. In a dictionary the name of
    a group stands for all of its agents: `player` for `player_0` and `player_1`.

    Raises:
        ValueError: an agent without a policy, a policy that there is not, a function that answers differently when
            it is asked again.
    """
    if given is None:
        if len(policies) == 1:
            return dict.fromkeys(ids, policies[0])
        given = {policy: policy for policy in policies}
    found: dict[Any, str] = {}
    for agent in ids:
        policy = _ask(given, agent)
        if policy is None:
            raise ValueError(
                f"multi_agent(policy_mapping_fn=...): no policy for the agent {agent!r}; the agents are "
                f"{', '.join(map(str, ids))}, and the policies {', '.join(policies)}"
            )
        if policy not in policies:
            near = difflib.get_close_matches(str(policy), policies, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(policies)}"
            raise ValueError(
                f"multi_agent(policy_mapping_fn=...): agent {agent!r} is mapped to {policy!r}, which is no policy{hint}"
            )
        found[agent] = policy
    if callable(given):
        for agent, policy in found.items():
            again = _ask(given, agent)
            if again != policy:
                raise ValueError(
                    f"multi_agent(policy_mapping_fn=...): it maps agent {agent!r} to {policy!r} and, asked again, to "
                    f"{again!r}. It is asked when the algorithm is built, not in every episode: draw who sits where "
                    "with multi_agent(shuffle_seats=True), and play against past selves with Past(...)"
                )
    return found


def _ask(given: Callable[..., str] | Mapping[Any, str], agent: Any) -> str | None:
    if isinstance(given, Mapping):
        group, _, number = str(agent).rpartition("_")
        if given.get("type") == RLLIBS_MAPPING:
            return f"p{number}"
        return next((given[name] for name in (agent, str(agent), group) if name in given), None)
    parameters = inspect.signature(given).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    named = {p.name: None for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty}
    return given(agent, *[None] * (sum(p.default is p.empty for p in positional) - 1), **named)


def require_space(policy: str, name: str, wanted: Space | None, agents: Mapping[str, Space]) -> Space:
    """The one space of a policy's agents. Raises ValueError where they differ, or are not what was `wanted`."""
    first, space = next(iter(agents.items()))
    for agent, other in agents.items():
        if other != space:
            raise ValueError(
                f"multi_agent: policy {policy!r} acts for {first!r} and {agent!r}, whose {name} spaces differ: {space} "
                f"and {other}; give them policies of their own"
            )
    if wanted is not None and wanted != space:
        raise ValueError(
            f"multi_agent: policy {policy!r} has the {name} space {wanted}, and its agent {first!r} has {space}"
        )
    return space
