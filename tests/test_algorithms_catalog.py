"""What the algorithms declare of themselves: who serves which actions, as errors, lists and pages say it."""

from __future__ import annotations

import re

import numpy as np
import pytest

from athlete.algorithms import ALGORITHMS, get_config_class
from athlete.algorithms.catalog import agents_of, algorithms_for, entries, is_joint, require_served, serves_slates
from athlete.core import Spec
from athlete.spaces import Box, Discrete, MultiDiscrete, Tuple, action_kind

EVERYTHING = "PPO, A2C, PG, TRPO, IMPALA, APPO, DDPPO, MAML, ES, ARS, CMAES and PGPE serve it"
SPACES = {
    "discrete": Discrete(3),
    "continuous": Box(-2.0, 2.0, (2,)),
    "other": MultiDiscrete((2, 2)),
}


@pytest.mark.parametrize(
    ("space", "kind"),
    [
        (Discrete(1), "discrete"),
        (Box(-1.0, 1.0, ()), "continuous"),
        (Box(-np.inf, 1.0, (1,)), "other"),
        (Box(0, 9, (2,), np.int32), "other"),
        (Tuple((Discrete(2),)), "other"),
    ],
    ids=str,
)
def test_the_kind_of_an_action_space(space, kind):
    assert action_kind(space) == kind


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
@pytest.mark.parametrize("kind", SPACES)
def test_what_is_declared_is_what_binding_takes(entry, kind):
    """An agent with its defaults binds to the kinds that it serves, and refuses the others with both in the message."""
    config, space = get_config_class(entry.name)(), SPACES[kind]
    if is_joint(entry.name):
        pytest.skip("its spaces are those of several agents: tests/test_joint.py")
    if serves_slates(entry.name):
        pytest.skip("what slates are is known with the observations: tests/test_slateq.py")
    if kind in entry.actions:
        config.make_agent(Spec(Box(-1.0, 1.0, (3,)), space))
        require_served(entry.name, space)
        return
    with pytest.raises(ValueError, match=rf"serves .*, and this one is {re.escape(str(space))}"):
        config.make_agent(Spec(Box(-1.0, 1.0, (3,)), space))
    with pytest.raises(ValueError, match=rf"^{entry.name} serves .* and this one is .*; .* serve it$"):
        require_served(entry.name, space)


def test_who_serves_a_space():
    """Of one agent: algorithms that learn for several together serve none."""
    assert algorithms_for(SPACES["other"]) == EVERYTHING
    assert algorithms_for(Box(-np.inf, np.inf, (2,))) == EVERYTHING
    discrete = algorithms_for(SPACES["discrete"])
    assert "DQN" in discrete and "SAC" in discrete and "TD3" not in discrete
    assert "QMIX" not in discrete
    with pytest.raises(ValueError, match=r"QMIX learns for several agents together, and this is an .* of one; PPO, "):
        require_served("QMIX", SPACES["discrete"])
    with pytest.raises(ValueError, match=r"SlateQ serves slates of documents, .* this one is Discrete\(.*; PPO, "):
        require_served("SlateQ", SPACES["discrete"])
    continuous = algorithms_for(SPACES["continuous"])
    assert "TD3" in continuous and "DroQ" in continuous and "DQN" not in continuous
    assert algorithms_for(Box(0, 10**6, (2,), np.int32)).startswith("no algorithm serves it: actions of Box")


def test_those_that_learn_for_one_agent_say_so_and_refuse_more():
    for name in ("ES", "ARS", "CMAES", "PGPE", "MAML", "IQL", "AlphaZero"):
        assert agents_of(name) == ("1 or 2" if name == "AlphaZero" else "one")
        config = get_config_class(name)().environment("MultiAgentCartPole-v1", env_config={"num_agents": 2})
        if name != "IQL":  # of whose data an environment says nothing
            with pytest.raises(ValueError, match=r"learns for one agent|plays games of two"):
                config.build()
    assert (agents_of("QMIX"), agents_of("PPO"), agents_of("MuZero")) == ("a team", "any", "any")


def test_every_algorithm_says_what_it_is_and_where_it_comes_from():
    for entry in entries():
        assert entry.summary and re.search(r"\b(19|20)\d\d\b", entry.paper), entry
    assert [entry.name for entry in entries()] == list(ALGORITHMS)
