"""`check_env` of JAX environments with many agents: silent on good ones; others are told agent and step."""

import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

from athlete.cli.main import app
from athlete.core import Group, MultiEnv, MultiStep, hyper
from athlete.env.checks.check import check_env
from athlete.env.multi_agent import JointEnv
from athlete.spaces import Box, Dict, Discrete, MultiBinary

TURNS = jnp.array([True, False])
BOX = Box(-1.0, 1.0, (2,))


class Relay(MultiEnv):
    """Two runners in turn, four steps; what `_wrong` says at a step is what comes back instead."""

    def _wrong(self, steps, step):
        return step

    def _wrong_reset(self, state, obs, acting):
        return state, obs, acting

    @property
    def groups(self):
        return {"runner": Group(2, BOX, Discrete(3))}

    def reset(self, key):
        return self._wrong_reset(jnp.int32(0), {"runner": jnp.zeros((2, 2))}, {"runner": TURNS})

    def step(self, state, action, key):
        steps = state + 1
        over = steps >= 4
        nobody = jnp.zeros(2, bool)
        step = MultiStep(
            obs={"runner": jnp.zeros((2, 2))},
            reward={"runner": jnp.ones(2)},
            all_terminated=over,
            all_truncated=jnp.asarray(False),
            acting={"runner": (TURNS ^ (steps % 2 == 1)) & ~over},
            terminated={"runner": nobody | over},
            truncated={"runner": nobody},
        )
        return steps, self._wrong(steps, step)


def relay(**changes):
    """An instance of a class like Relay with other attributes."""
    return hyper(type("Other", (Relay,), changes))()


def replacing(**fields):
    """One that gives these instead from its third step on."""

    def wrong(self, steps, step):
        late = {
            name: {"runner": jnp.where(steps >= 3, jnp.asarray(other), getattr(step, name)["runner"])}
            for name, other in fields.items()
        }
        return step._replace(**late)

    return relay(_wrong=wrong)


def test_a_good_one_passes_also_as_one_environment_and_as_a_class():
    check_env(relay())
    check_env(JointEnv(relay()))
    check_env(type(relay()))


THIRD = r"Other\.step\(state, action, key\), in step 3 of episode 1,"


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        (replacing(obs=[[0.0, 0.0], [0.0, 2.0]]), THIRD + r" is wrong: the observation of runner_1\[1\] is 2.0, above"),
        (replacing(obs=[[0.0, np.nan], [0.0, 0.0]]), THIRD + r" is wrong: the observation of runner_0\[1\] is nan"),
        (replacing(reward=[1.0, np.inf]), THIRD + r" gave runner_1 the reward inf; expected a finite number"),
        (
            replacing(acting=[True, True], terminated=[True, False]),
            THIRD + r" says that runner_0 is acting, although its life ended with this step",
        ),
        (replacing(acting=[False, True]), "in step 4 of episode 1, says that runner_1 is acting, although the episode"),
    ],
    ids=["outside", "nan", "reward", "acting after its end", "acting after the end"],
)
def test_what_is_wrong_at_a_step_names_the_agent_and_the_step(env, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_env(env)


def test_the_first_observation_is_looked_at_too():
    env = relay(_wrong_reset=lambda self, state, obs, acting: (state, {"runner": obs["runner"] + 3}, acting))
    with pytest.raises(ValueError, match=r"Other\.reset\(key\) is wrong: the observation of runner_0\[0\] is 3.0"):
        check_env(env)


def test_an_episode_in_which_nobody_is_ever_asked_is_noticed():
    def wrong(self, steps, step):
        return step._replace(
            acting={"runner": jnp.zeros(2, bool)},
            terminated={"runner": jnp.zeros(2, bool)},
            all_terminated=jnp.asarray(False),
        )

    with pytest.raises(ValueError, match=r"for 20 steps, up to step \d+ of episode 1, none of runner_0, runner_1 is"):
        check_env(relay(_wrong=wrong))


def test_a_mask_that_leaves_an_acting_agent_nothing_is_noticed():
    masked = {"runner": Group(2, Dict({"observations": BOX, "action_mask": MultiBinary((3,))}), Discrete(3))}

    def show(obs, mask):
        return {"runner": {"observations": obs["runner"], "action_mask": jnp.array(mask, jnp.int8)}}

    env = relay(
        groups=property(lambda self: masked),
        _wrong_reset=lambda self, state, obs, acting: (state, show(obs, [[1, 0, 0], [0, 0, 0]]), acting),
        _wrong=lambda self, steps, step: step._replace(obs=show(step.obs, [[1, 0, 0], [0, 0, 0]])),
    )
    with pytest.raises(ValueError, match="in step 2 of episode 1, runner_1 is acting, and the observation's"):
        check_env(env)


def test_what_tracing_finds():
    def step_with(**fields):
        return relay(_wrong=lambda self, steps, step: step._replace(**fields))

    def refused(env, sentence):
        with pytest.raises(ValueError, match=sentence):
            check_env(env)

    refused(step_with(obs={"runner": jnp.zeros((3, 2))}), r"observations\['runner'\] is float32 of shape \(3, 2\)")
    refused(step_with(obs={"walker": jnp.zeros((2, 2))}), "observations has the structure .*walker")
    refused(step_with(reward={"runner": jnp.zeros(2, jnp.int32)}), r"reward\['runner'\] is int32 of shape \(2,\); exp")
    refused(
        step_with(all_terminated=jnp.zeros(2, bool)),
        r"all_terminated is bool of shape \(2,\); expected bool of",
    )
    refused(step_with(acting=()), "acting is left out although always_acting is False")
    refused(step_with(terminated={"runner": jnp.zeros(2)}), r"terminated\['runner'\] is float32 of shape \(2,\)")
    refused(relay(always_acting=True), "acting is given although always_acting is True; leave it out")
    refused(
        relay(_wrong=lambda self, steps, step: 1.0),
        "a tuple of 2; expected .state, athlete.core.MultiStep",
    )
    refused(
        relay(_wrong_reset=lambda self, *all: all[:2]),
        "a tuple of 2; expected .state, observations, acting",
    )
    refused(relay(groups={}), r"Other\.groups is \{\}; expected a dict")
    refused(relay(groups={"runner": 2}), r"Other\.groups\['runner'\] is 2; expected Group\(size, obs, action\)")
    refused(relay(groups={"runner": Group(0, BOX, BOX)}), r"\['runner'\] has 0 agents; expected at least 1")
    refused(Relay(), "Relay is not known to JAX; decorate the class with @athlete.core.hyper")
    refused(hyper(type("Empty", (MultiEnv,), {}))(), r"Empty\.groups is missing; write a property that returns a dict")
    refused(relay(step=lambda self, state, action, key: 1 / 0), r"key\) raised ZeroDivisionError under jax.jit")


def test_the_command_line_checks_a_game():
    done = CliRunner().invoke(app, ["check", "ConnectFour-v0"])
    assert done.exit_code == 0 and done.output == "ConnectFour-v0: ok\n"
