"""What a policy becomes outside: equal to JAX in every format, small, and without what it is said to do without."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exporting import CASES, RUNNERS, Subject, difference, policy_of
from typer.testing import CliRunner

from athlete.algorithms.ppo import PPO, PPOConfig
from athlete.cli.main import app
from athlete.core import Model, Spec, hyper
from athlete.export.dialects import bare
from athlete.export.folding import fold
from athlete.export.graph import Builder, Form
from athlete.export.trace import trace
from athlete.export.web_page import GAMES, game_of
from athlete.ops.random import wrap
from athlete.policy import Policy
from athlete.spaces import Box, Dict, Discrete

QUICK = (
    "MLP",
    "CNN",
    "LSTM",
    "GRU",
    "attention (GTrXL)",
    "MeanStdFilter of parts",
    "OneOf observations",
    "masked MultiDiscrete",
    "Dict and Tuple actions",
    "DQN, noisy, distributional",
    "SAC",
)
EACH = [pytest.param(case, marks=() if case in QUICK else pytest.mark.thorough) for case in CASES]


@functools.cache
def subject(case):
    made = Subject(case, rows=40)
    return made, made.by_jax()


@pytest.mark.parametrize("name", RUNNERS)
@pytest.mark.parametrize("case", EACH)
def test_every_format_acts_as_jax_does(case, name, tmp_path):
    made, expected = subject(case)
    try:
        found = made.in_format(name, tmp_path)
    except ImportError as error:
        pytest.skip(str(error))
    assert difference(expected, found) < 1e-5


def test_the_comparison_sees_a_difference(tmp_path):
    made, expected = subject("SAC")
    found = made.in_format("numpy", tmp_path)
    found[1][0][0][3] += 1e-3
    assert difference(expected, found) > 5e-4


# The NumPy module -------------------------------------------------------------------------------------------------


def test_the_numpy_module_is_code_that_can_be_read(tmp_path):
    path, weights = policy_of("LSTM").export(tmp_path / "walker.py")
    text = Path(path).read_text()
    assert Path(weights).name == "walker.npz" and "from walker import Policy" in text
    assert 'np.tanh(observation @ w["layers.0.kernel"] + w["layers.0.bias"])' in text
    assert re.search(r"sigmoid\(x\d\[:, 16:32\]\) \* state_policy_cell", text)
    assert "value" not in text.replace("values", ""), "the network of values does not act"
    assert max(map(len, text.splitlines())) < 150


ALONE = """
import json, sys
import numpy as np
before = set(sys.modules)
from policy import Policy
policy = Policy()
action, state, _ = policy.compute_single_action(np.arange(4.0))
again, _, _ = policy.compute_single_action(np.ones(4), state)
more = sorted({name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))
print(json.dumps([[int(action), int(again)], more]))
"""


def test_the_numpy_module_needs_numpy_and_nothing_else(tmp_path):
    policy = policy_of("LSTM")
    policy.export(tmp_path / "policy.py")
    action, state, _ = policy.compute_single_action(np.arange(4.0))
    again, _, _ = policy.compute_single_action(np.ones(4), state)
    done = subprocess.run([sys.executable, "-c", ALONE], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[action, again], ["policy"]]


def test_parts_of_an_observation_are_found_where_the_space_has_them(tmp_path):
    policy_of("Dict of images and tuples").export(tmp_path / "policy.py")
    text = (tmp_path / "policy.py").read_text()
    assert 'observation_pose_0 = np.asarray(observations["pose"][0], np.float32)'.replace('"', "'") in text.replace(
        '"', "'"
    )


# Formats ----------------------------------------------------------------------------------------------------------


def test_a_program_of_stablehlo_takes_any_batch(tmp_path):
    pytest.importorskip("flatbuffers")
    policy = policy_of("GRU")
    (path,) = policy.export(tmp_path / "policy.stablehlo")
    program = jax.export.deserialize(bytearray(Path(path).read_bytes()))
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}
    for rows in (1, 3):
        state = [np.zeros((rows, 16), np.float32)]
        action, after = program.call(np.ones((rows, 4), np.float32), state)
        np.testing.assert_allclose(action, policy.compute_actions(np.ones((rows, 4)))[0], atol=1e-6)
        assert [leaf.shape for leaf in after] == [(rows, 16)]


@pytest.mark.parametrize(
    ("name", "format", "message"),
    [
        ("policy.onx", None, r"no such format; there are onnx, stablehlo, torch, numpy, web"),
        ("policy", "onxx", r"export\('policy', format='onxx'\): no such format; did you mean 'onnx'\?"),
    ],
)
def test_an_unknown_format_is_told(name, format, message):
    with pytest.raises(ValueError, match=message):
        policy_of("MLP").export(name, format)


@hyper
class Sorting(Model):
    """A network with an operation that the graph has no name for."""

    def init(self, key, obs_space, heads):
        return {name: jnp.ones((4, outputs)) for name, (outputs, _) in heads.items()}

    def apply(self, params, carry, obs, first):
        return (), {name: jnp.sort(obs, axis=-1) @ kernel for name, kernel in params.items()}


def test_an_operation_that_a_format_lacks_is_named_and_stablehlo_has_all(tmp_path):
    agent = PPO(model=Sorting()).bind(Spec(Box(-1, 1, (4,)), Discrete(2)))
    params = jax.device_get(jax.jit(lambda: agent.init(wrap(np.zeros(2, np.uint32))).params)())
    policy = Policy(agent, params, seed=0)
    with pytest.raises(NotImplementedError, match="needs the operation 'sort', which cannot be written in NumPy yet"):
        policy.export(tmp_path / "policy.py")
    pytest.importorskip("flatbuffers")
    policy.export(tmp_path / "policy.stablehlo")


# The web page -----------------------------------------------------------------------------------------------------

IDS = {
    "CartPole": "CartPole-v1",
    "MountainCar": "MountainCar-v0",
    "MountainCarContinuous": "MountainCarContinuous-v0",
    "Acrobot": "Acrobot-v1",
    "Pendulum": "Pendulum-v1",
}


def policy_for(game):
    high, action, _ = GAMES[game]
    high = np.array(high, np.float32)
    agent = PPO().bind(Spec(Box(-high, high), action))
    params = jax.device_get(jax.jit(lambda: agent.init(wrap(np.zeros(2, np.uint32))).params)())
    return Policy(agent, params, seed=0)


def test_a_page_is_one_file_that_loads_nothing(tmp_path):
    (path,) = policy_for("CartPole").export(tmp_path / "policy.html")
    text = Path(path).read_text(encoding="utf-8")
    assert "{{" not in text.replace("() => ({{", "")
    assert "A trained policy plays CartPole" in text
    assert not re.findall(r"https?:|src=|@import|url\(|<link(?![^>]*data:)", text)
    assert list(tmp_path.iterdir()) == [Path(path)]


@pytest.mark.parametrize("game", GAMES)
def test_the_page_knows_its_game_by_the_spaces_of_gymnasium(game):
    from athlete.env.adapters.conversion import to_space

    env = gymnasium.make(IDS[game])
    assert game_of(to_space(env.observation_space), to_space(env.action_space)) == game


def test_a_policy_for_no_game_of_the_page_is_told_which_there_are(tmp_path):
    with pytest.raises(ValueError, match=r"the page plays CartPole, MountainCar, .* and this policy sees Box"):
        policy_of("MLP").export(tmp_path / "policy.html")


def in_chromium(page, more=()):
    """What a page holds after two seconds of its time, and what it has to say to the console."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("chromium is not installed")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=2000"]
    command = [browser, *flags, *more, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.thorough
@pytest.mark.parametrize("game", GAMES)
def test_the_page_plays_in_a_browser(game, tmp_path):
    (path,) = policy_for(game).export(tmp_path / "policy.html")
    text, said = in_chromium(Path(path))
    assert not said
    steps, episodes = (int(re.search(rf'id="{name}">(\d+)<', text).group(1)) for name in ("step", "episodes"))
    assert steps + 10 * episodes > 10
    choices = GAMES[game][1].n if isinstance(GAMES[game][1], Discrete) else 0
    assert len(re.findall('class="choice', text)) == choices


def in_node(script):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    done = subprocess.run([node, "-"], input=script, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("game", GAMES)
def test_the_games_of_the_page_are_gymnasiums(game):
    """The same steps from the same state, to where the first episode ends."""
    env = gymnasium.make(IDS[game]).unwrapped
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    start = np.asarray(env.state, float).tolist()
    discrete = isinstance(env.action_space, gymnasium.spaces.Discrete)
    actions = [int(rng.integers(env.action_space.n)) if discrete else drawn(env, rng) for _ in range(60)]
    games = resources.files("athlete.export").joinpath("games.js").read_text(encoding="utf-8")
    steps = in_node(
        f"{games}\nlet state = {json.dumps(start)}; const found = [];\n"
        f"for (const action of {json.dumps(actions)}) {{\n"
        f"  const [next, reward, done] = games.{game}.step(state, action); state = next;\n"
        f"  found.push([games.{game}.observe(state), reward, done]); if (done) break;\n"
        "}\nconsole.log(JSON.stringify(found));"
    )
    for action, (seen, reward, done) in zip(actions, steps, strict=False):
        given = action if discrete else np.array([action], np.float32)
        obs, expected, terminated, _, _ = env.step(given)
        np.testing.assert_allclose(seen, obs, atol=2e-5)
        np.testing.assert_allclose(reward, expected, atol=1e-4)
        assert done == terminated
    assert done or len(steps) == len(actions)


def drawn(env, rng):
    """An action of one number within its bounds."""
    return float(rng.uniform(env.action_space.low[0], env.action_space.high[0]))


# The command ------------------------------------------------------------------------------------------------------


def test_the_command_writes_what_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with PPOConfig().environment("CartPole-v1").training(model={"fcnet_hiddens": [8]}).build() as algorithm:
        algorithm.save("checkpoint_1")
    done = CliRunner().invoke(app, "export checkpoint_1 --to web")
    assert done.exit_code == 0 and done.output.startswith("policy.html  "), done.output
    done = CliRunner().invoke(app, "export checkpoint_1 --to numpy --out there/mine.py")
    assert done.exit_code == 0 and (tmp_path / "there" / "mine.npz").is_file(), done.output
    done = CliRunner().invoke(app, "export nowhere --to numpy")
    assert done.exit_code == 1 and "Error: " in done.output


# The graph --------------------------------------------------------------------------------------------------------


def test_a_graph_leaves_out_what_changes_nothing():
    builder = Builder(fold)
    x = builder.input("x", Form((-1, 4), "float32"))
    assert builder.add("reshape", [x], Form((-1, 4), "float32")) == x
    assert builder.add("transpose", [x], Form((-1, 4), "float32"), permutation=(0, 1)) == x
    assert builder.add("add", [x, builder.constant(np.float32(0))], Form((-1, 4), "float32")) == x
    there = builder.add("reshape", [x], Form((-1, 2, 2), "float32"))
    assert builder.add("reshape", [there], Form((-1, 4), "float32")) == x
    assert not builder.graph({"y": x}).operations


def test_a_graph_computes_constants_and_does_nothing_twice():
    builder = Builder(fold)
    two = builder.add("add", [builder.constant(np.float32(1))] * 2, Form((), "float32"))
    assert builder.constants[two] == 2
    x = builder.input("x", Form((-1, 4), "float32"))
    assert builder.add("tanh", [x], Form((-1, 4), "float32")) == builder.add("tanh", [x], Form((-1, 4), "float32"))
    never = builder.add("expand", [builder.constant(np.zeros((1, 1), bool))], Form((-1, 4), "bool"))
    zeros = builder.add("expand", [builder.constant(np.zeros((1, 1), np.float32))], Form((-1, 4), "float32"))
    assert builder.add("where", [never, zeros, x], Form((-1, 4), "float32")) == x
    always = builder.add("expand", [builder.constant(np.ones((1, 1), bool))], Form((-1, 4), "bool"))
    assert builder.add("where", [always, x, zeros], Form((-1, 4), "float32")) == x
    nothing, one = (builder.constant(np.float32(number)) for number in (0, 1))
    assert builder.add("mul", [x, one], Form((-1, 4), "float32")) == x
    assert builder.add("mul", [x, nothing], Form((-1, 4), "float32")) != x


def test_parameters_that_are_equal_stay_apart():
    builder = Builder(fold)
    names = [builder.parameter(np.zeros(3, np.float32), f"layers.{i}.bias") for i in range(2)]
    x = builder.input("x", Form((-1, 3), "float32"))
    for name in names:
        x = builder.add("tanh", [builder.add("add", [x, name], Form((-1, 3), "float32"))], Form((-1, 3), "float32"))
    assert sorted(builder.graph({"y": x}).constants) == ["0.bias", "1.bias"]


def test_a_parameter_of_one_number_stays_an_array_that_can_be_learned():
    builder = Builder(fold)
    x, bias = builder.input("x", Form((-1, 1), "float32")), builder.parameter(np.zeros(1, np.float32), "bias")
    spread = builder.add("reshape", [bias], Form((1, 1), "float32"))
    y = builder.add("add", [x, spread], Form((-1, 1), "float32"))
    assert builder.operations[y].inputs == (x, bias)


def test_two_inputs_of_the_same_path_have_names_of_their_own():
    space = Dict({"a.b": Box(-1, 1, (1,)), "a": Dict({"b": Box(-1, 1, (2,))})})
    agent = PPO().bind(Spec(space, Discrete(2)))
    params = jax.device_get(jax.jit(lambda: agent.init(wrap(np.zeros(2, np.uint32))).params)())
    traced = trace(agent, params, agent.start(params, 1, None))
    names = jax.tree.leaves(traced.observation)
    assert len(set(names)) == 2 and {traced.graph.inputs[name].shape for name in names} == {(-1, 1), (-1, 2)}


@pytest.mark.parametrize(("text", "expected"), [("(a + b)", "a + b"), ("(a) + (b)", "(a) + (b)"), ("a", "a")])
def test_parentheses_around_all_are_dropped(text, expected):
    assert bare(text) == expected
