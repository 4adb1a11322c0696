"""Many policies as one agent: whose steps they learn from, and that nothing is lost, doubled or learned from holes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from modes import assert_modes_are_equal
from roster import Roster, interpret

from athlete.algorithms import ALGORITHMS, get_config_class
from athlete.algorithms.catalog import agents_of, learns_from_returns, serves_slates
from athlete.algorithms.fixed import RandomPolicy
from athlete.combine.seating import Seats, together
from athlete.combine.team import Member, Team, _learn
from athlete.core import Run, Spec, Transition
from athlete.env.multi_agent import JointEnv
from athlete.loops.collect import collect, reset_rows, spec_of
from athlete.loops.learn import init_run, phases
from athlete.memory.prioritized import Prioritized
from athlete.memory.replay import Replay
from athlete.models.actor_critic import apply_actor_critic, legal_distribution
from athlete.ops.features import features
from athlete.ops.random import unwrap, wrap

KEY = np.array([0, 7], np.uint32)
SMALL = {
    "PPO": {"num_epochs": 1},
    "PQN": {"num_epochs": 1},
    "DreamerV3": {"model_size": "nano", "batch_size_B": 2, "batch_length_T": 4, "horizon_H": 3},
    "TRPO": {"num_epochs": 1, "conjugate_gradient_steps": 2, "line_search_steps": 2},
}


def agent_of(algorithm: str, spec: Spec, rows: int, length: int, **settings):
    config = get_config_class(algorithm)().rollouts(num_envs_per_worker=rows, rollout_fragment_length=length)
    small = {"model": {"fcnet_hiddens": [8]}, "train_batch_size": rows * length, **SMALL.get(algorithm, {})}
    if "replay_buffer_config" in config:
        small |= {"train_batch_size": 8, "num_steps_sampled_before_learning_starts": 0}
    if "train_batch_size" not in config:
        del small["train_batch_size"]
    return config.update_from_dict({**small, **settings}).make_agent(spec)


def team_of(env: Roster, algorithms: dict[str, str], rows: int, length: int) -> Team:
    """`main` acts for a_0 and a_2, `other` for a_3 and a_1, in that order, `mixed` for both of b."""
    seats = {
        "main": Seats((("a", (0, 2)),)),
        "other": Seats((("a", (3, 1)),)),
        "mixed": Seats((("b", (0, 1)),)),
    }
    members = []
    for name, algorithm in algorithms.items():
        group = env.groups[seats[name].taken[0][0]]
        agent = agent_of(algorithm, Spec(group.obs, group.action), rows * seats[name].agents, length)
        members.append(Member(name, agent, seats[name]))
    return Team(tuple(members)).bind(spec_of(JointEnv(env)))


def collected(team: Team, env: Roster, rows: int, length: int, iterations: int) -> tuple[Transition, dict, Run]:
    """All joint steps, of each policy the valid own steps in each of its rows, and the run after them."""
    joint = JointEnv(env)
    run = jax.jit(init_run, static_argnames=("rows", "length"))(team, joint, rows=rows, key=KEY, length=length)

    @jax.jit
    def iterate(run: Run):
        key, collect_key, learn_key = jax.random.split(wrap(run.key), 3)
        new_rows, trajectory, _ = collect(
            team, joint, team.view(run.state, jnp.zeros(())), run.rows, collect_key, length
        )
        own = {m.name: team.steps(m, run.store[m.name].pending, trajectory)[1] for m in team.members}
        held = run.state, run.store, new_rows.accumulators
        state, store, accumulators, _ = team.learn(*held, trajectory, learn_key, jnp.zeros(()))
        new_rows = new_rows._replace(accumulators=accumulators)
        return Run(state, store, new_rows, unwrap(key), run.iteration, run.timesteps), trajectory, own

    joint_steps, own_steps = [], []
    for _ in range(iterations):
        run, trajectory, own = iterate(run)
        joint_steps.append(jax.device_get(trajectory._replace(carry=(), extras=())))
        own_steps.append(jax.device_get(own))
    whole = jax.tree.map(lambda *parts: np.concatenate(parts), *joint_steps)
    found = {}
    for member in team.members:
        number = rows * member.seats.agents
        found[member.name] = [
            [
                jax.tree.map(lambda leaf, t=t, row=row: leaf[t, row], part[member.name]._replace(carry=(), extras=()))
                for part in own_steps
                for t in range(length)
                if part[member.name].extras["valid"][t, row]
            ]
            for row in range(number)
        ]
    return whole, found, run


def assert_equal_to_interpreter(team: Team, env: Roster, whole: Transition, found: dict, rows: int) -> int:
    column = {("a", i): i for i in range(env.first_size)} | {
        ("b", i): env.first_size + i for i in range(env.second_size)
    }
    total = 0
    for member in team.members:
        seats = [(group, number) for group, numbers in member.seats.taken for number in numbers]
        for row in range(rows):
            for i, (group, number) in enumerate(seats):
                lived = interpret(whole, row, group, number, column[group, number])
                got = found[member.name][row * len(seats) + i]
                assert len(got) == len(lived)
                total += len(lived)
                for wanted, step in zip(lived, got, strict=True):
                    for field in ("obs", "action", "next_obs"):
                        jax.tree.map(np.testing.assert_array_equal, getattr(step, field), getattr(wanted, field))
                    flags = bool(step.first), bool(step.terminated), bool(step.truncated)
                    assert flags == (wanted.first, wanted.terminated, wanted.truncated)
                    assert step.reward == pytest.approx(wanted.reward, abs=1e-4)
    return total


@pytest.mark.parametrize("length", [1, 3, 16, 32])
def test_own_steps_are_those_that_a_plain_interpreter_counts(length):
    env, rows = Roster(), 3
    team = team_of(env, {"main": "PPO", "other": "DQN", "mixed": "SimpleQ"}, rows, length)
    whole, found, run = collected(team, env, rows, length, 96 // length)
    total = assert_equal_to_interpreter(team, env, whole, found, rows)
    assert total > 300
    memory = run.store["other"].memory
    ring = getattr(memory, "ring", memory)
    assert ring.filled.tolist() == [len(steps) for steps in found["other"]], "every step is in memory, once"


FAST = ("PPO", "A2C", "DQN", "PQN", "ApexDQN")
CONFIGS = {name: get_config_class(name) for name in ALGORITHMS}
STEPS = [name for name in ALGORITHMS if not learns_from_returns(name)]
ONLINE = [name for name in STEPS if not CONFIGS[name].agent_class.joint and not CONFIGS[name].offline]
ALL = [name for name in ONLINE if not serves_slates(name) and agents_of(name) == "any"]
CONTINUOUS_ONLY = [name for name in ALL if "discrete" not in get_config_class(name).agent_class.serves]


def poisoned(steps: Transition) -> Transition:
    """The same steps with other numbers in the empty places behind them."""
    valid = steps.extras["valid"]

    def spoil(leaf):
        empty = ~valid.reshape(valid.shape + (1,) * (leaf.ndim - 2))
        other = ~leaf if leaf.dtype == bool else (jnp.ones_like(leaf) if leaf.dtype.kind == "i" else leaf + 3.7)
        return jnp.where(empty, other, leaf)

    extras = {name: jax.tree.map(spoil, part) for name, part in steps.extras.items() if name != "valid"}
    return jax.tree.map(spoil, steps._replace(extras=()))._replace(extras=extras | {"valid": valid})


@pytest.mark.parametrize("bonus", ["RND", "Curiosity", "Counts"])
def test_bonuses_and_normalisers_learn_nothing_from_empty_places(bonus):
    assert_deaf_to_holes("PPO", observation_filter="MeanStdFilter", exploration_config={"type": bonus})


@pytest.mark.parametrize(
    "algorithm", [name if name in FAST else pytest.param(name, marks=pytest.mark.thorough) for name in ALL]
)
def test_numbers_in_empty_places_change_no_bit_of_what_is_learned(algorithm):
    assert_deaf_to_holes(algorithm)


def assert_deaf_to_holes(algorithm: str, **settings) -> None:
    rows, length = 3, 8
    env = Roster(continuous=algorithm in CONTINUOUS_ONLY)
    group, seats = env.groups["a"], Seats((("a", (0, 1, 2, 3)),))
    agent = agent_of(algorithm, Spec(group.obs, group.action), rows * 4, length, **settings)
    rest = env.groups["b"]
    other = Member("rest", RandomPolicy().bind(Spec(rest.obs, rest.action)), Seats((("b", (0, 1)),)), trained=False)
    team = Team((Member("main", agent, seats), other)).bind(spec_of(JointEnv(env)))
    joint = JointEnv(env)
    run = jax.jit(init_run, static_argnames=("rows", "length"))(team, joint, rows=rows, key=KEY, length=length)

    @jax.jit
    def learned(run: Run, key, spoil):
        _, trajectory, _ = collect(team, joint, team.view(run.state, jnp.zeros(())), run.rows, key, length)
        _, steps = team.steps(team.members[0], run.store["main"].pending, trajectory)
        steps = jax.tree.map(lambda a, b: jnp.where(spoil, a, b), poisoned(steps), steps)
        held = run.state["main"], run.store["main"], together(run.rows.accumulators["main"])
        return _learn(agent, *held, steps, key, jnp.zeros(()), True)[:3], steps.extras["valid"]

    for number in range(3):
        key = jax.random.fold_in(wrap(KEY), number)
        (clean, valid), (spoiled, _) = learned(run, key, False), learned(run, key, True)
        assert not valid.all() and valid.any()
        for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(clean), jax.tree.leaves(spoiled), strict=True):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), jax.tree_util.keystr(path)
        state, store, _ = clean
        run = run._replace(state=run.state | {"main": state}, store=run.store | {"main": store})


@pytest.mark.parametrize("length", [1, 7])
def test_a_team_learns_the_same_compiled_and_hosted(length):
    env = Roster()
    team = team_of(env, {"main": "PPO", "other": "DQN", "mixed": "SimpleQ"}, 2, length)
    assert_modes_are_equal(JointEnv(env), team, rows=2, length=length, tolerance=3e-5)


@pytest.mark.parametrize("memory", ["use_lstm", "use_gru"])
def test_what_an_agent_remembers_stands_still_while_it_waits(memory):
    """Log-probabilities recomputed over an agent's own steps are those with which it acted, whatever lay between."""
    rows, length, env = 3, 16, Roster()
    group = env.groups["a"]
    spec = Spec(group.obs, group.action)
    model = {memory: True, "lstm_cell_size": 6, "max_seq_len": 4}
    agent = agent_of("PPO", spec, rows * 4, length, model=model, normalize_rewards=False)
    rest = env.groups["b"]
    other = Member("rest", RandomPolicy().bind(Spec(rest.obs, rest.action)), Seats((("b", (0, 1)),)), trained=False)
    team = Team((Member("main", agent, Seats((("a", (0, 1, 2, 3)),))), other)).bind(spec_of(JointEnv(env)))
    joint = JointEnv(env)
    run = jax.jit(init_run, static_argnames=("rows", "length"))(team, joint, rows=rows, key=KEY, length=length)

    @jax.jit
    def iterate(run: Run, key):
        view = team.view(run.state, jnp.zeros(()))
        new_rows, trajectory, _ = collect(team, joint, view, run.rows, key, length)
        pending, steps = team.steps(team.members[0], run.store["main"].pending, trajectory)
        start = jax.tree.map(lambda leaf: leaf[0], steps.carry)
        obs = features(spec.obs, steps.obs)
        _, outputs, _ = apply_actor_critic(agent.model, view["main"], start, obs, steps.first)
        log_prob = legal_distribution(spec, outputs, None).log_prob(steps.action)
        store = run.store | {"main": run.store["main"]._replace(pending=pending)}
        return run._replace(rows=new_rows, store=store), log_prob, steps

    compared = 0
    for number in range(8):
        run, log_prob, steps = iterate(run, jax.random.fold_in(wrap(KEY), number))
        valid = np.asarray(steps.extras["valid"])
        np.testing.assert_allclose(log_prob[valid], steps.extras["log_prob"][valid], atol=1e-5)
        compared += int(valid.sum())
    assert compared > 200


def test_masks_of_agents_are_honoured_and_random_actions_are_legal():
    rows, length, env = 3, 16, Roster(masked=True)
    group, rest = env.groups["a"], env.groups["b"]
    warm_up = {"type": "EpsilonGreedy", "random_timesteps": 10_000}
    for algorithm, settings, random in (("PPO", {}, False), ("DQN", {"exploration_config": warm_up}, True)):
        agent = agent_of(algorithm, Spec(group.obs, group.action), rows * 4, length, **settings)
        other = Member("rest", RandomPolicy().bind(Spec(rest.obs, rest.action)), Seats((("b", (0, 1)),)), trained=False)
        team = Team((Member("main", agent, Seats((("a", (0, 1, 2, 3)),))), other)).bind(spec_of(JointEnv(env)))
        joint = JointEnv(env)
        run = jax.jit(init_run, static_argnames=("rows", "length"))(team, joint, rows=rows, key=KEY, length=length)
        stage = team.stage(0)
        assert stage.random == (frozenset({"main"}) if random else frozenset())
        view = team.view(run.state, jnp.zeros(()))
        _, trajectory, _ = jax.jit(
            lambda run, view, team=team, joint=joint, stage=stage: collect(
                team, joint, view, run.rows, wrap(KEY), length, stage.random
            )
        )(run, view)
        mask, action = trajectory.obs["obs"]["a"]["action_mask"], trajectory.action["a"]
        assert np.take_along_axis(np.asarray(mask), np.asarray(action)[..., None], axis=-1).all()
        assert len(np.unique(action)) == 3


# When policies learn --------------------------------------------------------------------------------------------------


def lone_member(algorithm: str, rows: int, length: int, **settings) -> tuple[Team, Roster]:
    """`main` acts for all of group a and learns; what acts for b does not."""
    env = Roster()
    group, rest = env.groups["a"], env.groups["b"]
    agent = agent_of(algorithm, Spec(group.obs, group.action), rows * 4, length, **settings)
    other = Member("rest", RandomPolicy().bind(Spec(rest.obs, rest.action)), Seats((("b", (0, 1)),)), trained=False)
    return Team((Member("main", agent, Seats((("a", (0, 1, 2, 3)),))), other)).bind(spec_of(JointEnv(env))), env


def begun_run(team: Team, env: Roster, rows: int, length: int) -> Run:
    begin = jax.jit(init_run, static_argnames=("rows", "length"))
    return begin(team, JointEnv(env), rows=rows, key=KEY, length=length)


def learned_from(team: Team, env: Roster, run: Run, number: int, length: int, valid=None):
    """State, store, accumulators of `main` after a trajectory, and its steps; `valid` in the place of their own."""

    @jax.jit
    def learn(run: Run, key):
        view = team.view(run.state, jnp.zeros(()))
        _, trajectory, _ = collect(team, JointEnv(env), view, run.rows, key, length)
        _, steps = team.steps(team.members[0], run.store["main"].pending, trajectory)
        if valid is not None:
            steps = steps._replace(extras=steps.extras | {"valid": jnp.asarray(valid)})
        held = run.state["main"], run.store["main"], together(run.rows.accumulators["main"])
        return *_learn(team.members[0].agent, *held, steps, key, jnp.zeros(()), True)[:3], steps

    return learn(run, jax.random.fold_in(wrap(KEY), number))


def test_what_was_under_way_is_dropped_in_new_environments():
    rows, length = 3, 8
    team, env = lone_member("PPO", rows, length)
    joint, run = JointEnv(env), begun_run(team, env, rows, length)
    collected_steps = jax.jit(lambda run, key: collect(team, joint, team.view(run.state, 0.0), run.rows, key, length))
    new_rows, trajectory, _ = collected_steps(run, wrap(KEY))
    pending, _ = team.steps(team.members[0], run.store["main"].pending, trajectory)
    assert pending.open.any(), "the case must have something under way"
    fresh = jax.jit(lambda key: reset_rows(joint, team, team.view(run.state, 0.0), rows, key))(wrap(KEY))
    _, trajectory, _ = collected_steps(run._replace(rows=fresh._replace(carry=new_rows.carry)), wrap(KEY + 1))
    _, steps = team.steps(team.members[0], pending, trajectory)
    whole, steps = jax.device_get((trajectory._replace(carry=(), extras=()), steps))
    for row in range(rows):
        for number in range(4):
            lived = interpret(whole, row, "a", number, number)  # knows nothing of what was before
            own = row * 4 + number
            assert int(steps.extras["valid"][:, own].sum()) == len(lived)
            got = steps.reward[: len(lived), own].tolist()
            assert got == pytest.approx([step.reward for step in lived], abs=1e-4)


def test_a_policy_with_a_replay_memory_makes_as_many_updates_as_its_share_of_steps():
    rows, length = 3, 8
    team, env = lone_member("SimpleQ", rows, length, training_intensity=8 * 4)
    updates, run, owed = team.members[0].agent.updates, begun_run(team, env, rows, length), 0.0
    assert updates == 32 * 12 * 8 // 8
    for number in range(3):
        state, store, _, steps = learned_from(team, env, run, number, length)
        owed += updates * float(np.mean(steps.extras["valid"]))
        run = run._replace(state=run.state | {"main": state}, store=run.store | {"main": store})
        count = int(next(leaf for leaf in jax.tree.leaves(state) if leaf.dtype == jnp.int32 and leaf.ndim == 0))
        assert count == int(owed + 1e-3), "whole updates; the rest waits"


def test_there_is_no_update_where_there_is_nothing_to_sample():
    rows, length = 3, 8
    team, env = lone_member("DQN", rows, length, training_intensity=8 * 64, n_step=3)
    run = begun_run(team, env, rows, length)
    valid = np.zeros((length, rows * 4), bool)
    valid[0] = True  # a step of each: no window of three
    state, store, *_ = learned_from(team, env, run, 0, length, valid)
    assert store.owed >= 1
    for a, b in zip(jax.tree.leaves(run.state["main"]), jax.tree.leaves(state), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_a_policy_that_was_asked_for_nothing_stays_as_it_is():
    rows, length = 3, 8
    team, env = lone_member("PPO", rows, length, normalize_rewards=False)
    run = begun_run(team, env, rows, length)
    state, store, *_ = learned_from(team, env, run, 0, length)
    run = run._replace(state=run.state | {"main": state}, store=run.store | {"main": store})  # Adam has momentum now
    after, *_ = learned_from(team, env, run, 1, length, np.zeros((length, rows * 4), bool))
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_each_policy_has_a_stage_of_its_own():
    team = team_of(Roster(), {"main": "DQN", "other": "PPO", "mixed": "SimpleQ"}, 2, 4)
    dqn = dataclasses.replace(team.members[0].agent, random_timesteps=10, num_steps_sampled_before_learning_starts=20)
    simple_q = dataclasses.replace(team.members[2].agent, num_steps_sampled_before_learning_starts=50)
    agents = (dqn, team.members[1].agent, simple_q)
    members = [dataclasses.replace(member, agent=agent) for member, agent in zip(team.members, agents, strict=True)]
    team = dataclasses.replace(team, members=tuple(members))
    assert set(team.milestones) == {0, 10, 20, 50}
    stages = {timesteps: team.stage(timesteps) for timesteps in (0, 9, 10, 20, 49, 50)}
    assert [sorted(stage.random) for stage in stages.values()] == [["main"], ["main"], [], [], [], []]
    learning = [sorted(stage.learning) for stage in stages.values()]
    assert learning == [
        ["other"],
        ["other"],
        ["other"],
        ["main", "other"],
        ["main", "other"],
        ["main", "mixed", "other"],
    ]
    assert [phase.iterations for phase in phases(team, 10, 0, 3)] == [1, 1, 3, 3]


# Memories whose rows fill at paces of their own ---------------------------------------------------------------------


@pytest.mark.parametrize("memory", [Replay, Prioritized])
def test_windows_are_consecutive_steps_of_one_row_whatever_its_pace(memory):
    rows, length, window = 3, 4, 2
    store_of = memory(capacity=24, batch_size=256, window=window, unroll=length)
    flag, number = np.zeros((), bool), np.zeros((), np.float32)
    example = Transition(number, flag, np.int32(0), number, number, flag, flag, (), {"valid": flag})
    store, taken = store_of.init(example, rows), [[] for _ in range(rows)]
    add = jax.jit(store_of.add)
    for time in range(9):
        valid = np.arange(length)[:, None] < [(1, 2, 0)[time % 3], 4, time % 2]
        obs = 1000.0 * np.arange(rows) + np.cumsum(valid, axis=0) - valid + [len(row) for row in taken]
        obs = np.where(valid, obs, -1.0).astype(np.float32)
        flags = np.zeros_like(valid)
        steps = Transition(obs, flags, obs.astype(np.int32), obs, obs, flags, flags, (), {"valid": valid})
        store = add(store, steps)
        for row in range(rows):
            taken[row] += obs[valid[:, row], row].tolist()
    if memory is Prioritized:  # unlike priorities, so that one that is out of place would be drawn
        store = store._replace(largest=jnp.float32(4.0))
    batch = jax.jit(store_of.sample)(store, steps, wrap(KEY), jnp.zeros(()))
    kept = [row[-24 // rows :] for row in taken]
    there = {tuple(row[i : i + window]) for row in kept for i in range(len(row) - window + 1)}
    drawn = {tuple(pair) for pair in np.asarray(batch.obs).T.tolist()}
    assert drawn <= there
    assert len(drawn) > 0.9 * len(there), "every window may be drawn"
    assert "valid" not in batch.extras
