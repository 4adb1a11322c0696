"""Many policies as one agent: whose steps they learn from, and that nothing is lost, doubled or learned from holes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from roster import Roster, interpret

from athlete.algorithms import get_config_class
from athlete.combine.seating import Seats
from athlete.combine.team import Member, Team
from athlete.core import Run, Spec, Transition
from athlete.env.multi_agent import JointEnv
from athlete.loops.collect import collect, spec_of
from athlete.loops.learn import init_run
from athlete.ops.random import unwrap, wrap

KEY = np.array([0, 7], np.uint32)
SMALL = {
    "PPO": {"num_epochs": 1, "minibatch_size": 32},
    "PQN": {"num_epochs": 1, "minibatch_size": 32},
    "TRPO": {"num_epochs": 1, "conjugate_gradient_steps": 2, "line_search_steps": 2},
}


def agent_of(algorithm: str, spec: Spec, rows: int, length: int, **settings):
    config = get_config_class(algorithm)().rollouts(num_envs_per_worker=rows, rollout_fragment_length=length)
    config.training(model={"fcnet_hiddens": [8]}, **SMALL.get(algorithm, {}), **settings)
    return config.make_agent(spec)


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


@pytest.mark.parametrize("length", [1, 3, 16])
def test_own_steps_are_those_that_a_plain_interpreter_counts(length):
    env, rows = Roster(), 3
    team = team_of(env, {"main": "PPO", "other": "DQN", "mixed": "SimpleQ"}, rows, length)
    whole, found, run = collected(team, env, rows, length, 96 // length)
    total = assert_equal_to_interpreter(team, env, whole, found, rows)
    assert total > 300
    memory = run.store["other"].memory
    ring = getattr(memory, "ring", memory)
    assert ring.filled.tolist() == [len(steps) for steps in found["other"]], "every step is in memory, once"
