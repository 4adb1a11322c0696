"""What README and documentation say is so: their code runs, their links lead somewhere, their tables are complete.

A fence below `<!-- run -->` is executed; the fences of a page share their variables, in order.
`<!-- run: a => b; c => d -->` replaces texts first, to make budgets small. `<!-- run raises -->` expects an error and
takes its message for the output. A fence below `<!-- prints -->` is the output of the fence before it, with `...` for
whatever varies.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib.util
import io
import json
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from athlete.algorithms import ALGORITHMS, get_config_class

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
SNIPPET = re.compile(r'--8<-- "([^":]+)(?::([\w-]+))?"')


class Fence(NamedTuple):
    mark: str  # of the comment right above: "run", "run raises", "prints", ...
    replacements: dict[str, str]
    language: str
    text: str


def fences(page: Path) -> list[Fence]:
    """The fenced blocks of a page."""
    pattern = r"(?:<!-- ([^\n]*?) -->\n)?^```(\w*)[^\n]*\n(.*?)^```$"
    found = []
    for mark, language, text in re.findall(pattern, page.read_text(encoding="utf-8"), re.M | re.S):
        kind, _, listed = mark.partition(": ")
        pairs = [part.split(" => ", 1) for part in listed.split("; ")] if listed else []
        found.append(Fence(kind, dict(pairs), language, text))
    return found


def is_run(fence: Fence) -> bool:
    return fence.mark in ("run", "run raises")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def run(fence: Fence, variables: dict[str, Any]) -> str:
    """Execute a fence: what it printed, or the message of the error it had to raise."""
    text = fence.text
    for old, new in fence.replacements.items():
        assert old in text, f"{old!r} is not in the block that says it replaces it"
        text = text.replace(old, new)
    code = compile(text, "block", "exec", dont_inherit=True)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        if fence.mark == "run":
            exec(code, variables)
            return printed.getvalue()
        with pytest.raises(Exception) as raised:
            exec(code, variables)
    return f"{type(raised.value).__name__}: {raised.value}\n"


@pytest.mark.thorough
@pytest.mark.parametrize("page", [page for page in PAGES if any(map(is_run, fences(page)))], ids=name_of)
def test_the_code_of_a_page_runs_and_prints_what_it_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATHLETE_RESULTS_DIR", str(tmp_path / "athlete_results"))
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    variables: dict[str, Any] = {"__name__": "__main__"}
    printed = ""
    for fence in fences(page):
        if is_run(fence):
            printed = run(fence, variables)
        elif fence.mark == "prints":
            checker = doctest.OutputChecker()
            flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            assert checker.check_output(fence.text, printed, flags), f"the page says\n{fence.text}\nit was\n{printed}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_marks_are_spelled_right_and_python_blocks_are_python(page: Path) -> None:
    for fence in fences(page):
        assert fence.mark in ("", "run", "run raises", "prints") or fence.mark.startswith("figure"), fence.mark
        if fence.language == "python" and not SNIPPET.search(fence.text):
            ast.parse(fence.text)


# Links


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_fits_its_column(page: Path) -> None:
    """At 1300 pixels a line of the site's column has 84 characters. What a program printed is as it is."""
    lines = [line for fence in fences(page) if fence.language != "text" for line in fence.text.splitlines()]
    assert not [line for line in lines if len(line) > 84]


def prose(page: Path) -> str:
    """A page without its fences and equations, where brackets mean something else."""
    return re.sub(r"^```.*?^```$|\\\[.*?\\\]|\\\(.*?\\\)", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def slug(heading: str) -> str:
    """The anchor that mkdocs gives a heading."""
    plain = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
    return re.sub(r"[\s-]+", "-", plain)


def anchors(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", prose(page), re.M)}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_snippets_lead_to_what_exists(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target
    for path, section in SNIPPET.findall(page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), path
        assert not section or f"[start:{section}]" in (ROOT / path).read_text(encoding="utf-8"), section


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "reference").glob("*.md")), ids=name_of)
def test_the_reference_names_what_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"^::: ([\w.]+)", text, re.M):
        assert pkgutil.resolve_name(path) is not None
    for path, members in re.findall(r"^::: ([\w.]+)\n    options:\n      members: \[(.*)\]", text, re.M):
        module = pkgutil.resolve_name(path)
        assert not [name for name in members.split(", ") if not hasattr(module, name)], path


# Tables: every first cell that is code, with the cells after it


def rows(page: str) -> list[tuple[list[str], list[str]]]:
    """The rows of all tables of a page: the code in the first cell, and all cells."""
    return rows_of((ROOT / "docs" / page).read_text(encoding="utf-8"))


def rows_of(text: str) -> list[tuple[list[str], list[str]]]:
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and (names := re.findall(r"`([^`]+)`", cells[0])):
            found.append((names, cells))
    return found


def section(page: str, heading: str) -> str:
    """What stands under a heading, up to the next one that is not below it."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.search(rf"^(#+) {re.escape(heading)}$\n", text, re.M)
    assert found is not None, f"{page} has no heading {heading!r}"
    rest = text[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.M)
    return rest[: end.start()] if end else rest


def defaults(page: str, heading: str) -> dict[str, str]:
    """Setting -> its cell of defaults, for the tables under a heading."""
    found = {}
    for names, cells in rows_of(section(page, heading)):
        if len(cells) == 3 and len(names) == 1:
            assert names[0] not in found, f"{names[0]} stands twice under {heading!r}"
            found[names[0]] = cells[1]
    return found


def as_cells(values: dict[str, Any]) -> dict[str, str]:
    return {name: f"`{value!r}`" for name, value in values.items()}


def test_the_configuration_page_has_every_common_setting_with_its_default() -> None:
    from athlete.models.catalog import MODEL_DEFAULTS
    from athlete.settings.table import SETTINGS

    common = {name: setting.default for name, setting in SETTINGS.items()}
    assert defaults("configuration.md", "Settings that every algorithm has") == as_cells(common)
    assert defaults("configuration.md", "The network") == as_cells(MODEL_DEFAULTS)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_configuration_page_has_every_algorithms_settings_and_where_its_defaults_differ(algorithm: str) -> None:
    from athlete.settings.table import SETTINGS

    config = get_config_class(algorithm)
    common = {name: setting.default for name, setting in (SETTINGS | config.more_settings).items()}
    expected = {}
    for name, value in config().to_dict().items():
        if name not in common or value != common[name]:
            expected[name] = value
    assert defaults("configuration.md", algorithm) == as_cells(expected)


def test_the_configuration_page_has_the_settings_of_learning_from_replay() -> None:
    from athlete.settings.families import EvolutionConfig
    from athlete.settings.table import SETTINGS

    shared: dict[str, Any] = {}
    for algorithm in ALGORITHMS:
        config = get_config_class(algorithm)
        if issubclass(config, EvolutionConfig) or algorithm == "MAML":  # what they share or have is in their sections
            continue
        shared |= {name: setting.default for name, setting in config.more_settings.items() if name not in SETTINGS}
    introduction = section("configuration.md", "Algorithms that learn from replay").partition("\n### ")[0]
    assert {names[0]: cells[1] for names, cells in rows_of(introduction)} == as_cells(shared)


def test_the_configuration_page_has_the_settings_of_learning_without_gradients() -> None:
    from athlete.settings.families import EvolutionConfig

    shared = {name: setting.default for name, setting in EvolutionConfig.more_settings.items()}
    introduction = section("configuration.md", "Without gradients").partition("\n### ")[0]
    assert {names[0]: cells[1] for names, cells in rows_of(introduction)} == as_cells(shared)


def test_the_replay_page_has_every_key_of_the_memory_and_of_exploration() -> None:
    from athlete.settings.exploration import EXPLORATIONS
    from athlete.settings.memory import MEMORY_SETTINGS

    assert defaults("replay.md", "The memory") == as_cells(MEMORY_SETTINGS)
    assert keys_of_types(section("replay.md", "Exploration")) == as_keys(EXPLORATIONS)


def test_the_page_of_exploration_bonuses_has_every_key_and_metric() -> None:
    import jax
    import numpy as np

    from athlete.core import Spec, Transition
    from athlete.ops.random import wrap
    from athlete.settings.assemble import make_bonus
    from athlete.settings.exploration import BONUSES
    from athlete.spaces import Discrete

    number, flag = np.zeros((1, 1), np.float32), np.zeros((1, 1), bool)
    step = Transition(flag + 0, flag, flag + 0, number, flag + 0, flag, flag, (), {})

    page = (ROOT / "docs" / "exploration-bonuses.md").read_text(encoding="utf-8")
    introduction = page.partition("\n## ")[0]
    assert keys_of_types(introduction) == as_keys(BONUSES)
    metrics = {names[0]: cells[1] for names, cells in rows_of(section("exploration-bonuses.md", "Metrics"))}
    expected = {"intrinsic_reward_mean": "all"}
    for kind, settings in BONUSES.items():
        bonus = make_bonus({"type": kind, **settings}, Discrete(2)).bind(Spec(Discrete(2), Discrete(2)))
        key = wrap(np.zeros(2, np.uint32))
        given = jax.eval_shape(lambda bonus, key=key: bonus.update(bonus.init(key), step, key)[1], bonus)
        expected |= dict.fromkeys(given, f"`{kind}`")
    assert metrics == expected


def keys_of_types(text: str) -> dict[str, list[str]]:
    """Type -> its keys with their defaults, of a table with three columns."""
    return {names[0]: re.findall(r"`([^`]+)`", cells[1]) for names, cells in rows_of(text) if len(cells) == 3}


def as_keys(types: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    return {kind: [f"{name}={value!r}" for name, value in settings.items()] for kind, settings in types.items()}


def test_the_replay_page_has_every_algorithms_exploration_types() -> None:
    types = {}
    for names, cells in rows_of(section("replay.md", "Exploration")):
        if len(cells) == 2:
            types |= dict.fromkeys(names, tuple(re.findall(r"`([^`]+)`", cells[1])))
    expected = {name: getattr(get_config_class(name), "exploration_types", ()) for name in ALGORITHMS}
    assert types == {name: found for name, found in expected.items() if found}


def test_computed_tables_are_as_they_are_computed() -> None:
    tables = load(ROOT / "docs" / "make_tables.py")
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert tables.with_tables(text) == text, f"run `python docs/make_tables.py`: {page.name} is out of date"
    index = (ROOT / "docs" / "algorithms" / "index.md").read_text(encoding="utf-8")
    assert all(f"[`{name}`](" in index for name in ALGORITHMS)


def test_the_replay_page_chooses_among_all_that_learn_from_replay() -> None:
    from athlete.settings.families import ReplayConfig

    chosen = {
        name
        for _, cells in rows_of(section("replay.md", "Which algorithm"))
        for name in re.findall(r"`(\w+)`", cells[1])
    }
    configs = {name: get_config_class(name) for name in ALGORITHMS}
    assert chosen == {
        name for name, config in configs.items() if issubclass(config, ReplayConfig) and not config.offline
    }


def test_what_the_ppo_page_calls_off_by_default_is_off() -> None:
    from athlete.algorithms.ppo import PPOConfig

    page = (ROOT / "docs" / "algorithms" / "ppo.md").read_text(encoding="utf-8")
    off = re.findall(r"\(`(\w+)`, off by default\)", page)
    assert set(off) == {"vf_clip_param", "kl_stop"}
    assert [PPOConfig()[name] for name in [*off, "kl_coeff"]] == [None] * 3


def test_the_configuration_page_puts_settings_under_their_sections() -> None:
    from athlete.settings.table import SETTINGS

    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for part in re.split(r"^### ", text, flags=re.M)[1:]:
        heading, _, table = part.partition("\n")
        sections = re.findall(r"`\.(\w+)\(", heading)
        for name in re.findall(r"^\| `(\w+)` \|", table.partition("\n## ")[0], re.M) if sections else []:
            assert SETTINGS[name].section in sections, name


def test_the_rllib_page_has_every_other_spelling_and_every_setting_without_effect() -> None:
    from athlete.settings.rllib_names import IGNORED, REFUSED, SECTIONS, SPELLINGS, UNSERVED

    spelled = {}
    told = {**IGNORED, **UNSERVED, **REFUSED}
    found = {}
    for names, cells in rows("coming-from-rllib.md"):
        if len(cells) == 2 and re.fullmatch(r"`[\w.()]+`", cells[1]):
            spelled |= dict.fromkeys(names, cells[1].strip("`"))
        elif len(cells) == 2 and cells[1] in told.values():
            found |= dict.fromkeys(names, cells[1])
    sections = {f".{old}(...)": f".{new}(...)" for old, new in SECTIONS.items()}
    assert spelled == SPELLINGS | sections
    assert found == told


LEARNER = "info/learner/default_policy/learner_stats/"


def test_the_results_page_has_every_key_and_no_other() -> None:
    from athlete.record.results import REPEATED, flatten, without_repeated

    small = {"env": "CartPole-v1", "evaluation_interval": 1, "evaluation_duration": 1}
    hosted = {**small, "backend": "gymnasium", "train_batch_size": 16}
    replay = {**hosted, "min_sample_timesteps_per_iteration": 4, "num_steps_sampled_before_learning_starts": 16}
    lagged = {**hosted, "num_rollout_workers": 1, "sample_async": "lagged", "evaluation_num_workers": 1}
    keys: set[str] = set()
    for algorithm, settings in [("PPO", small), ("PPO", hosted), ("DQN", replay), ("IMPALA", lagged)]:
        with get_config_class(algorithm).from_dict(settings).build() as algo:
            found = flatten(without_repeated(algo.train())).keys() | set(REPEATED)
        keys |= {key for key in found if algorithm == "PPO" or not key.startswith(LEARNER)}
    documented = {names[0] for names, cells in rows("results.md") if len(cells) == 2}
    assert documented == keys


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "PPO"])
def test_the_results_page_has_what_an_algorithm_tells_of_its_learning(algorithm: str) -> None:
    table = [(names[0], cells[1].split(", ")) for names, cells in rows("results.md") if len(cells) == 3]
    assert {name for name, algorithms in table if algorithm in algorithms} == metrics_of(algorithm)


def spec_for(algorithm: str, obs: Any, action: Any) -> Any:
    """The spaces of an agent, or of two where the algorithm learns for several together."""
    from athlete.algorithms.catalog import is_joint
    from athlete.core import Group, Spec
    from athlete.env.multi_agent import joint_spec
    from athlete.env.wrappers.previous import previous_of

    obs = previous_of(get_config_class(algorithm)()).spec(Spec(obs, action)).obs
    return joint_spec({"agent": Group(2, obs, action)}, True) if is_joint(algorithm) else Spec(obs, action)


def metrics_of(algorithm: str) -> set[str]:
    """The names of the scalars that an update gives. Computes nothing."""
    import jax
    import jax.numpy as jnp

    from athlete import spaces
    from athlete.combine.wrapper import with_simulator
    from athlete.core import Agent, Evolution
    from athlete.env.games.multi_agent.tic_tac_toe import TicTacToe
    from athlete.env.games.recommenders.interest_evolution import InterestEvolution
    from athlete.env.wrappers.turns import Turns
    from athlete.loops.collect import spec_of
    from athlete.loops.learn import transition_shapes
    from athlete.ops.random import wrap

    config = get_config_class(algorithm)()

    def one_update(agent: Agent) -> dict:
        key, shapes = wrap(jnp.zeros(2, jnp.uint32)), transition_shapes(agent)
        lead = (config.fragment_length(), config.rows())
        if algorithm == "AlphaStar":  # its learners learn apart
            return metrics_of_learning(agent, *lead)
        if isinstance(agent, Evolution):
            return metrics_of_a_generation(agent)
        if agent.learns_returns:
            shapes = shapes._replace(extras={"discount": shapes.reward, "time": jax.ShapeDtypeStruct((), jnp.int32)})
        trajectory = jax.tree.map(lambda leaf: jnp.zeros((*lead, *leaf.shape), leaf.dtype), shapes)
        store = agent.memory.init(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes), config.rows())
        batch = agent.memory.sample(store, trajectory, key, jnp.zeros(()))
        return agent.update(agent.init(key), batch, key, jnp.zeros(()))[1]

    box, slates = spaces.Box(-1.0, 1.0, (3,)), InterestEvolution(num_candidates=4)
    pairs = (
        (box, spaces.Discrete(2)),
        (box, spaces.Box(-1.0, 1.0, (2,))),
        (slates.observation_space, slates.action_space),
    )
    for obs, action in pairs:
        with contextlib.suppress(ValueError):
            agent = config.make_agent(spec_for(algorithm, obs, action))
            break
    if agent.searches:
        pytest.importorskip("mctx")
    if agent.simulates:
        env = Turns(TicTacToe())
        agent = with_simulator(config.make_agent(spec_of(env)), env)
    found = jax.eval_shape(lambda: one_update(agent))
    return {name for name, metric in found.items() if metric.shape == ()}


def metrics_of_a_generation(agent: Any) -> dict:
    """The metrics of an agent that learns from whole episodes."""
    import jax.numpy as jnp

    from athlete.core import Played
    from athlete.ops.random import wrap

    key = wrap(jnp.zeros(2, jnp.uint32))
    state = agent.init(key)
    population, drawn = agent.ask(state, key, jnp.zeros(()))
    number = len(population)
    carry = agent.start(agent.members(state, population), number, key)
    played = Played(jnp.zeros(number), jnp.zeros(number, jnp.int32), carry)
    return agent.tell(state, drawn, played, jnp.zeros(()))[1]


def metrics_of_learning(agent: Any, length: int, rows: int) -> dict:
    """The metrics of an agent that does more than update."""
    import jax
    import jax.numpy as jnp

    from athlete.loops.learn import transition_shapes
    from athlete.ops.random import wrap

    key = wrap(jnp.zeros(2, jnp.uint32))
    example = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), transition_shapes(agent))
    trajectory = jax.tree.map(lambda leaf: jnp.zeros((length, rows, *leaf.shape)).astype(leaf.dtype), example)
    held = agent.init(key), agent.memory.init(example, rows), agent.accumulators(rows)
    return agent.learn(*held, trajectory, key, jnp.zeros(()))[3]


def test_commands_in_the_documentation_exist_with_their_options() -> None:
    import typer

    from athlete.cli.main import app

    commands: Any = typer.main.get_command(app)
    for page in PAGES:
        for fence in fences(page):
            whole = fence.text.replace("\\\n", " ")
            for line in whole.splitlines() if fence.language == "bash" else []:
                words = shlex.split(line, comments=True)
                if words[:1] != ["athlete"]:
                    continue
                command, rest = commands, words[1:]
                while hasattr(command, "commands") and rest[0] in command.commands:
                    command = command.commands[rest.pop(0)]
                known = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
                assert known.issuperset(word for word in rest if word.startswith("-")), line


# The example and the notebook


def load(path: Path) -> ModuleType:
    """The module of a file, as `import` would give it."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where annotations are resolved
    spec.loader.exec_module(module)
    return module


@pytest.mark.thorough
def test_the_example_of_a_jax_environment_runs_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["my_jax_env.py", "--timesteps", "2048", "--folder", str(tmp_path)])
    load(ROOT / "examples" / "my_jax_env.py").main()
    *_, first, second = capsys.readouterr().out.splitlines()
    compiled = [line.split()[-1] for line in (first, second)]
    assert compiled[0] == compiled[1], "the second gravity compiled something"
    assert (tmp_path / "episode_000.mp4").exists()


@pytest.mark.thorough
def test_the_example_of_a_multi_agent_environment_runs_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["my_multi_agent_env.py", "--timesteps", "4096", "--folder", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    load(ROOT / "examples" / "my_multi_agent_env.py").main()
    printed = capsys.readouterr().out
    assert "trained to {'catchers': " in printed and (tmp_path / "episode_000.mp4").exists()


@pytest.mark.thorough
def test_the_example_of_learning_from_replay_runs_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = load(ROOT / "examples" / "replay.py")
    make_config = example.make_config
    small = {"model": {"fcnet_hiddens": [8]}, "train_batch_size": 8, "min_sample_timesteps_per_iteration": 200}
    small |= {"num_steps_sampled_before_learning_starts": 200, "exploration_config": {"random_timesteps": 100}}
    small["evaluation_duration"] = 2
    monkeypatch.setattr(example, "make_config", lambda: make_config().update_from_dict(small))
    monkeypatch.setattr("sys.argv", ["replay.py", "--timesteps", "800", "--folder", str(tmp_path)])
    example.main()
    printed = capsys.readouterr().out
    assert re.findall(r"^ *(\d+) steps", printed, re.M) == ["400", "600", "800"]
    assert (tmp_path / "checkpoint_000001" / "manifest.json").exists()
    assert (tmp_path / "episode_000.mp4").exists()


@pytest.mark.thorough
@pytest.mark.parametrize("memory", ["lstm", "gtrxl"])
def test_the_example_of_memory_runs_whole(
    memory: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = load(ROOT / "examples" / "memory.py")
    make_config = example.make_config
    small = {"train_batch_size": 128, "num_epochs": 1, "evaluation_duration": 2}
    monkeypatch.setattr(example, "make_config", lambda memory: make_config(memory).update_from_dict(small))
    monkeypatch.setattr("sys.argv", ["memory.py", "--memory", memory, "--timesteps", "1280"])
    example.main()
    printed = capsys.readouterr().out
    assert re.findall(r"^ *(\d+) steps", printed, re.M) == [str(128 * i) for i in range(1, 11)]
    assert float(re.findall(r"^by hand: (.*)$", printed, re.M)[0]) >= 8


@pytest.mark.thorough
def test_the_example_of_a_search_runs_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = load(ROOT / "examples" / "search.py")
    monkeypatch.setattr(
        "sys.argv", ["search.py", "--trials", "4", "--iterations", "3", "--folder", str(tmp_path / "results")]
    )
    example.main()
    printed = capsys.readouterr().out
    assert re.findall(r"^iteration (\d+): ", printed, re.M)[:4] == ["1", "1", "2", "2"]
    assert len(list(tmp_path.glob("results/*/curves.svg"))) == 1


@pytest.mark.thorough
def test_the_example_of_turns_finds_the_winning_moves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = load(ROOT / "examples" / "nim.py")
    monkeypatch.setattr("sys.argv", ["nim.py", "--timesteps", "40960"])
    example.main()
    assert "16 of 16 winning moves found" in capsys.readouterr().out


@pytest.mark.thorough
def test_the_example_of_rock_paper_scissors_runs_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = load(ROOT / "examples" / "rock_paper_scissors.py")
    monkeypatch.setattr("sys.argv", ["rock_paper_scissors.py", "--timesteps", "30720"])
    example.main()
    assert float(re.findall(r"episodes: (.*) of 10", capsys.readouterr().out)[0]) >= 6.5, "RLlib's own target"


@pytest.mark.thorough
@pytest.mark.parametrize("bonus", ["RND", "Counts"])
def test_the_example_of_exploration_runs_whole(
    bonus: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = load(ROOT / "examples" / "exploration.py")
    arguments = ["exploration.py", "--bonus", bonus, "--size", "4", "--timesteps", "4000"]
    monkeypatch.setattr("sys.argv", arguments)
    example.main()
    printed = capsys.readouterr().out
    assert re.findall(r"^(.*): (.*) greedily", printed, re.M)[0] == (bonus, "0.99")
    assert "no bonus: " in printed


@pytest.mark.thorough
def test_the_example_of_devices_runs_whole() -> None:
    """In a process of its own: how many devices a CPU is, is said before JAX starts."""
    command = [sys.executable, "examples/devices.py", "--devices", "2", "--iterations", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 devices: 512 timesteps" in done.stdout
    assert float(re.findall(r"of a number: (.*)", done.stdout)[0]) < 1e-5


@pytest.mark.parametrize("notebook", sorted((ROOT / "examples" / "notebooks").glob("*.ipynb")), ids=name_of)
def test_notebooks_are_kept_without_outputs_and_their_contents_lead_somewhere(notebook: Path) -> None:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    for cell in code:
        ast.parse("".join(cell["source"]))
    prose = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert re.findall(r"\]\(#(\w+)\)", prose) == re.findall(r'<a id="(\w+)">', prose)


# What is said of algorithms and of packages


def test_the_home_page_and_the_readme_name_every_algorithm() -> None:
    hook = load(ROOT / "docs" / "site_hooks.py")

    class Page:
        class file:
            src_uri = "index.md"

    home = hook.on_page_markdown((ROOT / "docs" / "index.md").read_text(encoding="utf-8"), Page)
    assert f"{len(ALGORITHMS)} [algorithms](algorithms/index.md): {', '.join(ALGORITHMS)}." in home
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("-", "")
    assert [name for name in ALGORITHMS if not re.search(rf"\b{name}\b", readme)] == []


def test_the_home_page_lists_every_guide_with_its_first_sentence() -> None:
    hook = load(ROOT / "docs" / "site_hooks.py")
    guides = [{"Guides": [{"Workers": "workers.md"}, {"Checkpoints": "checkpoints.md"}]}, {"Reference": []}]
    rows = hook.pages(guides, "Guides", "").splitlines()[2:]
    assert rows[0] == "| [Workers](workers.md) | Environments outside JAX can live in worker processes. |"
    assert rows[1].startswith("| [Checkpoints](checkpoints.md) | A checkpoint is a folder of arrays and JSON")
    assert "<!-- pages: Guides -->" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")


def test_the_brackets_of_equations_come_in_pairs_where_they_can() -> None:
    paired = load(ROOT / "docs" / "site_hooks.py").paired
    assert paired(r"\big(x - \Big[y\Big]\big)^2") == r"\left(x - \left[y\right]\right)^2"
    assert paired(r"\big\|x\big\|^2 + \big|y\big|") == r"\left\|x\right\|^2 + \left|y\right|"
    assert paired(r"\nabla Q \big|_{a = 1}") == r"\nabla Q \big|_{a = 1}"


def test_the_gallery_shows_every_film_that_there_is_and_they_are_small() -> None:
    films = sorted((ROOT / "docs" / "assets" / "films").glob("*"))
    shown = re.findall(r"assets/films/([\w-]+\.webp)", (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8"))
    assert sorted(shown) == [film.name for film in films]
    assert sum(film.stat().st_size for film in films) < 3_000_000


def test_what_is_said_to_be_missing_is_missing() -> None:
    lines = (ROOT / "docs" / "coming-from-rllib.md").read_text(encoding="utf-8").splitlines()
    missing = [name for line in lines if "| not yet" in line for name in re.findall(r"\w+", line.split("|")[1])]
    assert "MBMPO" in missing
    assert set(missing).isdisjoint(ALGORITHMS)


def test_the_notebook_counts_algorithms_by_asking() -> None:
    text = (ROOT / "examples" / "notebooks" / "01_introduction.ipynb").read_text(encoding="utf-8")
    assert "ALGORITHMS" in text
    assert not re.search(r"(that is one|there is PPO alone|only algorithm)", text)


def test_nobody_is_told_to_install_this_package_from_an_index() -> None:
    """It is on none. Its dependencies are, and a clone installs extras as `'.[atari]'`."""
    ours = (path for kind in ("*.py", "*.ipynb", "*.yaml") for path in (ROOT / "examples").rglob(kind))
    told = [*PAGES, *(ROOT / "athlete").rglob("*.py"), *ours]  # results that an example left there are not
    pattern = re.compile(r"athlete\[\w+\]|pip install athlete\b")
    assert [name_of(file) for file in told if pattern.search(file.read_text(encoding="utf-8", errors="ignore"))] == []


# What draws and shows the learning curves


MANIFEST = {
    "algorithm": "PPO",
    "environment": "CartPole-v1",
    "command": "python benchmarks/learning.py cartpole-ppo --seeds 2",
    "evaluation_episodes": 20,
    "figures": {"mean": 40.0, "interval_95": [30.0, 50.0], "worst": 30.0},
    "curves": [
        {
            "seed": 1000,
            "commit": "0123456789abcdef",
            "timesteps": [10, 20, 30],
            "episode_reward_mean": [None, 0.0, 10.0],
        },
        {
            "seed": 1001,
            "commit": "0123456789abcdef",
            "timesteps": [10, 20, 40],
            "episode_reward_mean": [10.0, 20.0, 40.0],
        },
    ],
}


def test_curves_are_read_where_every_seed_has_them() -> None:
    grid, rewards = load(ROOT / "docs" / "make_figures.py").curves_on_grid(MANIFEST["curves"])
    assert (grid[0], grid[-1]) == (20, 30)
    assert rewards[:, [0, -1]].tolist() == [[0, 10], [20, 30]]


def test_a_figure_appears_on_its_page_once_it_has_been_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures, hook = load(ROOT / "docs" / "make_figures.py"), load(ROOT / "docs" / "site_hooks.py")
    for module, name, value in [
        (figures, "DOCS", tmp_path),
        (figures, "RESULTS", tmp_path),
        (figures, "ASSETS", tmp_path / "assets"),
        (hook, "ASSETS", tmp_path / "assets"),
    ]:
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr("sys.argv", ["make_figures.py"])

    class Page:
        class file:
            src_uri = "algorithms/ppo.md"

    marked = "before\n\n<!-- figure: cartpole-ppo -->\n\nafter"
    (tmp_path / "page.md").write_text(marked)
    assert hook.on_page_markdown(marked, Page) == "before\n\n\n\nafter"
    (tmp_path / "learning-cartpole-ppo.json").write_text(json.dumps(MANIFEST))
    figures.main()
    shown = hook.on_page_markdown(marked, Page)
    assert "](../assets/cartpole-ppo.svg)" in shown
    assert "mean 40 (95%: 30 to 50), worst seed 30" in shown
    assert "interquartile" not in shown and "Commit 0123456789;" in shown
    picture = tmp_path / "assets" / "cartpole-ppo.svg"
    assert picture.read_text().startswith("<?xml")
    picture.write_text("drawn")
    figures.main()
    assert picture.read_text() == "drawn"  # nothing has changed
    (tmp_path / "learning-cartpole-ppo.json").unlink()
    figures.main()
    assert not picture.exists()


def test_captions_are_those_of_the_manifests() -> None:
    figures = load(ROOT / "docs" / "make_figures.py")
    for name, manifest in figures.manifests().items():
        caption = figures.ASSETS / f"{name}.txt"
        if caption.exists():
            assert caption.read_text(encoding="utf-8") == figures.caption_of(manifest), (
                "run python docs/make_figures.py"
            )
