"""`check_env`: silent on good environments, one clear sentence for each way to be wrong."""

import logging
import subprocess
import sys
import traceback

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces as gs
from toy_gymnasium import Counter, HalfMigrated, Old

from athlete import spaces
from athlete.core import Env, Step, hyper
from athlete.env.checks.check import check_env
from athlete.env.checks.check_jax import structure_violation
from athlete.env.registry import EnvContext, register_env

OBS = np.zeros(2, np.float32)
TAXI = next(env_id for env_id in gymnasium.registry if env_id.startswith("Taxi-v"))  # Gymnasium 1.2: v3, 1.4: v4


class Good(gymnasium.Env):
    """Keeps every promise; the environments below break one each."""

    observation_space: gymnasium.Space = gs.Box(-1, 1, (2,), np.float32)
    action_space: gymnasium.Space = gs.Discrete(3)
    closed = False

    def reset(self, *, seed=None, options=None):
        self.count = 0
        return OBS, {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.count += 1
        return OBS, 1.0, self.count == 5, False, {}

    def close(self):
        self.closed = True


def stepping(obs=OBS, reward=1.0, terminated=False, truncated=False, info=None, space=None):
    """A class like Good whose step returns these and whose observation space is `space`."""
    info = {} if info is None else info

    class Stepping(Good):
        observation_space = space or Good.observation_space

        def reset(self, *, seed=None, options=None):
            return sample_of(self.observation_space), {}

        def step(self, action):
            return obs, reward, terminated, truncated, info

    return Stepping


def sample_of(space):
    space.seed(0)
    return space.sample()


def resetting(result, space=None):
    class Resetting(Good):
        observation_space = space or Good.observation_space

        def reset(self, *, seed=None, options=None):
            return result

    return Resetting


def having(**attributes):
    return type("Having", (Good,), attributes)


def raising(*args, **kwargs):
    raise KeyError("the map")


def assert_told(sentence, caught):
    """All pieces of the sentence, divided by ` ... `, stand in the message."""
    assert all(piece in str(caught.value) for piece in sentence.split(" ... ")), str(caught.value)


NESTED = gs.Dict(
    {"pos": gs.Box(-1, 1, (3,), np.float32), "card": gs.Tuple([gs.Discrete(4, start=1), gs.MultiBinary(2)])}
)


def nested(pos=(0, 0, 0), card=2, bits=(0, 1)):
    return {"pos": np.array(pos, np.float32), "card": (card, np.array(bits, np.int8))}


@pytest.mark.parametrize(
    "env",
    ["CartPole-v1", TAXI, "Blackjack-v1", "Pendulum-v1", "FrozenLake-v1", Good, Counter, lambda: Good()],
)
def test_good_environments_pass_in_silence(env, recwarn, capsys):
    assert check_env(env) is None
    assert not list(recwarn) and capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("obs", "space"),
    [
        (nested(), NESTED),
        (3, gs.Discrete(4)),
        (np.int64(3), gs.Discrete(4)),
        (np.zeros(2, np.float32), gs.Box(-1, 1, (2,), np.float64)),  # narrower than declared
        (0.5, gs.Box(0, 1, (), np.float32)),
        (np.array([2, 0]), gs.MultiDiscrete([2, 3], start=[1, 0])),
        (np.array([True, False]), gs.MultiBinary(2)),
    ],
)
def test_all_spaces_of_observations_pass(obs, space):
    check_env(stepping(obs=obs, space=space))


@pytest.mark.parametrize("reward", [1, 1.5, np.float32(2), np.int64(3), np.array(1.0), True])
def test_all_kinds_of_numbers_pass_as_rewards(reward):
    check_env(stepping(reward=reward))


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ({"obs": np.zeros(2)}, "observation has dtype float64; expected a NumPy array of shape (2,) and dtype float32"),
        ({"obs": [0, 1]}, "observation is [0, 1] (list); expected"),
        ({"obs": np.zeros(2, np.int64)}, "observation has dtype int64; expected"),
        ({"obs": nested(card=2.0), "space": NESTED}, "observation['card'][0] is 2.0 (float); expected"),
        ({"reward": np.ones(1)}, None),
        ({"terminated": 1, "truncated": np.array([False])}, None),
    ],
)
def test_numbers_of_other_types_are_converted_before_a_training_with_a_line(answer, line, caplog):
    with pytest.raises(ValueError, match="expected"):
        check_env(stepping(**answer))
    with caplog.at_level(logging.INFO, "athlete"):
        check_env(stepping(**answer), adapt=True)
    lines = [record.getMessage() for record in caplog.records if "it is converted" in record.getMessage()]
    assert len(lines) == (line is not None) and all(line in one for one in lines)


@pytest.mark.parametrize("answer", [{"obs": np.full(2, 1.5)}, {"obs": [np.nan, 0]}, {"reward": "1"}, {"truncated": 2}])
def test_what_training_does_not_take_is_refused_before_it_too(answer):
    with pytest.raises(ValueError, match=r"Stepping.step.*expected|above its highest"):
        check_env(stepping(**answer), adapt=True)


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        # Spaces
        (having(observation_space=None), "Having.observation_space is missing; set it in __init__"),
        (having(action_space=None), "Having.action_space is missing"),
        (having(observation_space=(2,)), "Having.observation_space is (2,) (tuple); expected a space"),
        (having(action_space=gs.Text(3)), "Having.action_space is a Text space"),
        (having(observation_space=gs.Dict({"a": gs.Text(3)})), "observation_space['a'] is a Text space"),
        # Observations
        (
            stepping(obs=np.array([0, 1.5], np.float32)),
            "step( ... ), in step 1 of episode 1, ... observation[1] is 1.5, above its highest value 1.0",
        ),
        (stepping(obs=np.array([-2, 0], np.float32)), "observation[0] is -2.0, below its lowest value -1.0"),
        (stepping(obs=np.array([0, np.nan], np.float32)), "observation[1] is nan; expected a finite number"),
        (
            stepping(obs=np.array([np.inf], np.float32), space=gs.Box(-np.inf, np.inf, (1,))),
            "observation[0] is inf; expected a finite",
        ),
        (stepping(obs=np.zeros(3, np.float32)), "observation has shape (3,); expected a NumPy array of shape (2,)"),
        (stepping(obs=np.zeros((1, 2), np.float32)), "observation has shape (1, 2)"),
        (stepping(obs=np.zeros(2)), "observation has dtype float64; expected ... dtype float32"),
        (stepping(obs=[0.0, 0.0]), "observation is [0.0, 0.0] (list); expected a NumPy array"),
        (stepping(obs=None), "observation is None; expected"),
        (
            stepping(obs=nested(pos=(0, 0, 7)), space=NESTED),
            "observation['pos'][2] is 7.0, above its highest value 1.0",
        ),
        (stepping(obs=nested(card=0), space=NESTED), "observation['card'][0] is 0, below its lowest value 1"),
        (stepping(obs=nested(card=5), space=NESTED), "observation['card'][0] is 5, above its highest value 4"),
        (
            stepping(obs=nested(card=2.0), space=NESTED),
            "observation['card'][0] is 2.0 (float); expected an integer from 1 to 4",
        ),
        (stepping(obs=nested(bits=(0, 2)), space=NESTED), "observation['card'][1][1] is 2, above its highest value 1"),
        (
            stepping(obs={"pos": np.zeros(3, np.float32)}, space=NESTED),
            "observation has the keys ['pos']; expected ['card', 'pos']",
        ),
        (stepping(obs=OBS, space=NESTED), "observation is ... ; expected a dict with the keys ['card', 'pos']"),
        (stepping(obs=(1,), space=gs.Tuple([gs.Discrete(2)] * 2)), "observation is a tuple of 1 entries; expected 2"),
        (
            stepping(obs=np.array([0, 3]), space=gs.MultiDiscrete([2, 3])),
            "observation[1] is 3, above its highest value 2",
        ),
        (resetting((np.ones(2, np.float32) * 3, {})), "Resetting.reset(seed=0) is wrong: observation[0] is 3.0"),
        (
            stepping(obs=np.zeros(2), space=gs.MultiDiscrete([2, 3])),
            "has dtype float64; expected a NumPy array of integers",
        ),
        (stepping(obs=True, space=gs.Discrete(2)), "observation is True (bool); expected an integer"),
        # Reward
        (stepping(reward="much"), "the reward is 'much' of type str; expected a number"),
        (stepping(reward=None), "the reward is None of type NoneType"),
        (stepping(reward=np.ones(1)), "the reward is array([1.]) of type ndarray of shape (1,); expected a number"),
        (stepping(reward=float("nan")), "the reward is nan; expected a finite number"),
        (stepping(reward=-np.inf), "the reward is -inf; expected a finite number"),
        # Flags and info
        (stepping(terminated=1), "returned terminated=1 of type int; expected a bool"),
        (stepping(truncated=None), "returned truncated=None of type NoneType; expected a bool"),
        (stepping(info=[1]), "step ... returned an info of type list; expected a dict"),
        (resetting((OBS, [])), "reset(seed=0) returned an info of type list; expected a dict"),
        # Counts of values
        (
            having(step=lambda self, action: (OBS, 1.0, False, {})),
            "returned 4 values; expected five: observation, reward, terminated, ... This is the old Gym API",
        ),
        (having(step=lambda self, action: (OBS, 1.0)), "returned 2 values; expected five"),
        (having(step=lambda self, action: None), "returned a NoneType; expected five"),
        (
            resetting(OBS),
            "reset(seed=0) returned only an observation, without info; ... This is the old Gym API",
        ),
        (resetting((1, 0), gs.Tuple([gs.Discrete(2)] * 2)), "returned only an observation, without info"),
        (
            having(reset=lambda self: OBS),
            "Having.reset() takes no seed; expected reset(self, *, seed=None, options=None)",
        ),
        (Old, "Old.reset() takes no seed; ... (training does so by itself)"),
        # Exceptions
        (having(reset=raising), "reset(seed=0) raised KeyError: 'the map'"),
        (having(step=raising), "step( ... ), in step 1 of episode 1, raised KeyError: 'the map'"),
        (having(__init__=raising), "making ... raised KeyError: 'the map'"),
        # No environment at all
        (type("OnlySteps", (), {"step": None, "observation_space": None})(), "OnlySteps has no reset; expected"),
        (lambda: 3, "gave 3; expected an environment with reset and step"),
        ("CartPoel-v1", "did you mean 'CartPole"),
    ],
)
def test_each_way_to_be_wrong_has_its_sentence(env, sentence):
    with pytest.raises(ValueError) as caught:
        check_env(env)
    assert_told(sentence, caught)


def test_an_exception_inside_is_chained_with_its_own_traceback():
    with pytest.raises(ValueError) as caught:
        check_env(having(step=raising))
    assert isinstance(caught.value.__cause__, KeyError)
    assert 'raise KeyError("the map")' in "".join(traceback.format_exception(caught.value))


def test_a_fault_in_a_later_episode_is_found():
    class Later(Good):
        episodes = 0

        def reset(self, *, seed=None, options=None):
            self.episodes += 1
            return super().reset()

        def step(self, action):
            obs, reward, *rest = super().step(action)
            return obs, None if self.episodes == 3 and self.count == 5 else reward, *rest

    with pytest.raises(ValueError, match="in step 5 of episode 3"):
        check_env(Later)


def test_an_environment_that_never_ends_is_checked_too():
    check_env(stepping())


def test_what_was_given_is_left_reset_and_open_and_what_was_made_is_closed():
    given = Good()
    check_env(given)
    assert given.count == 0 and not given.closed
    made = []
    check_env(lambda: made.append(Good()) or made[0])
    assert made[0].closed
    made.clear()
    with pytest.raises(ValueError, match="raised KeyError"):
        check_env(lambda: made.append(having(step=raising)()) or made[0])
    assert made[0].closed


def test_an_env_config_reaches_the_environment():
    check_env("FrozenLake-v1", {"is_slippery": False})
    register_env("check-me", lambda env_config: Counter(EnvContext(env_config)))
    check_env("check-me", {"length": 2})
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        check_env("check-me", {"trouble": {0: 2}})
    with pytest.raises(ValueError, match="it has no 'lenght'"):
        check_env("CartPole-v1", {"lenght": 2})


@pytest.mark.parametrize("env", [Old, HalfMigrated, Old(), Good])
def test_an_old_environment_passes_as_training_sees_it(env):
    check_env(env, adapt=True)


def test_faults_behind_the_adapter_are_still_found():
    class OldAndWrong(Old):
        def step(self, action):
            return np.ones(2), "much", False, {}

    with pytest.raises(ValueError, match="the reward is 'much'"):
        check_env(OldAndWrong, adapt=True)


# JAX environments


@hyper
class Walk(Env):
    """A walk on a line from -1 to 1; the entries of `wrong` replace parts of what `reset` and `step` give."""

    stride: float = 0.25
    wrong: str = ""

    @property
    def observation_space(self):
        if self.wrong == "space":
            return gs.Box(-1, 1, (1,))
        return spaces.Dict({"x": spaces.Box(-1.0, 1.0, (1,))})

    @property
    def action_space(self):
        return spaces.Discrete(2)

    def reset(self, key):
        if self.wrong == "reset is no pair":
            return {"x": jnp.zeros(1)}
        x = jnp.zeros(1, jnp.int32 if self.wrong == "reset dtype" else jnp.float32)
        return x, {"x": x}

    def step(self, state, action, key):
        if self.wrong == "if" and action > 0:
            return state
        x = state + self.stride * (2 * action - 1)
        done = (jnp.abs(x) >= 1.0)[0]
        obs = {
            "x": jnp.concatenate([x, x]) if self.wrong == "shape" else x if self.wrong == "bounds" else x.clip(-1, 1)
        }
        reward = x if self.wrong == "reward" else jnp.log(x[0] - 9) if self.wrong == "nan" else x[0]
        if self.wrong == "step is no Step":
            return x, (obs, reward, done, done, {})
        next_state = (x, x) if self.wrong == "state structure" else x[0] if self.wrong == "state shape" else x
        return next_state, Step(obs, reward, done + 0 if self.wrong == "flag" else done, jnp.bool_(False), {})


@pytest.mark.parametrize("env", [Walk(), Walk, Walk(0.5), lambda: Walk()])
def test_good_jax_environments_pass(env):
    check_env(env)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("space", "Walk.observation_space is ... expected a space of athlete.spaces"),
        ("reset is no pair", "Walk.reset(key) returned a dict; expected (state, observation)"),
        ("reset dtype", "Walk.reset(key) is wrong: observation['x'] is int32 of shape (1,); expected float32"),
        ("if", "Walk.step(state, action, key) raised TracerBoolConversionError under jax.jit"),
        ("shape", "observation['x'] is float32 of shape (2,); expected float32 of shape (1,)"),
        ("bounds", "Walk.step(state, action, key) at step ... is wrong: observation['x'][0] is ... est value"),
        ("reward", "reward is float32 of shape (1,); expected float32 of shape ()"),
        ("nan", "at step 1 gave the reward nan; expected a finite number"),
        ("step is no Step", "returned a tuple of 2; expected (state, athlete.core.Step)"),
        ("state structure", "state has the structure ... ; expected"),
        ("state shape", "state is float32 of shape (); expected float32 of shape (1,)"),
        ("flag", "terminated is int32 of shape (); expected bool of shape ()"),
    ],
)
def test_each_way_a_jax_environment_can_be_wrong_has_its_sentence(wrong, sentence):
    with pytest.raises(ValueError) as caught:
        check_env(Walk(stride=0.7 if wrong == "bounds" else 0.25, wrong=wrong))
    assert_told(sentence, caught)


def test_a_jax_environment_without_spaces_or_decorator_is_refused():
    class Plain(Env):
        observation_space = action_space = spaces.Discrete(2)

    with pytest.raises(ValueError, match=r"Env.observation_space is missing"):
        check_env(Env())
    with pytest.raises(ValueError, match=r"decorate the class with @athlete.core.hyper"):
        check_env(Plain())


def test_checking_a_jax_environment_does_not_import_gymnasium():
    code = """
import sys, jax.numpy as jnp
from athlete import spaces
from athlete.core import Env, Step, hyper
from athlete.env.checks.check import check_env
from athlete.env.checks.check_jax import structure_violation
@hyper
class Still(Env):
    observation_space = action_space = spaces.Discrete(2)
    def reset(self, key): return jnp.int32(0), jnp.int32(0)
    def step(self, state, action, key): return state, Step(state, 0.0, True, False, {})
check_env(Still())
print("gymnasium" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


class Named:
    """Static data of a state that is equal to any other and prints its address, as MuJoCo's arrays do."""

    def __eq__(self, other):
        return isinstance(other, Named)

    def __hash__(self):
        return 0


@jax.tree_util.register_pytree_node_class
class Boxed:
    def __init__(self, value):
        self.value = value

    def tree_flatten(self):
        return (self.value,), Named()  # a new one each time

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


def test_states_whose_structures_are_equal_may_print_differently():
    assert structure_violation(Boxed(jnp.zeros(2)), Boxed(jnp.ones(2)), "state") == ""
    assert "has the structure" in structure_violation(Boxed(jnp.zeros(2)), (jnp.zeros(2),), "state")
