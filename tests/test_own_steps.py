"""An agent's own steps, worked out by hand: where they begin and end, what is paid for them, and what waits."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from athlete.combine.own_steps import Begun, Came, Pending, cut_at_the_last, nothing_pending, own_steps
from athlete.combine.seating import Seats, by_group, rewards_by_group
from athlete.core import Group
from athlete.spaces import Box, Discrete

LENGTH = 6
NEVER = [0] * LENGTH


def column(values: list) -> jnp.ndarray:
    """One agent's values over time, `[T, 1]`."""
    return jnp.asarray(values)[:, None]


def begun(first: list = NEVER) -> Begun:
    """Observation t and action 10 t in step t."""
    time = column([float(t) for t in range(LENGTH)])
    return Begun(time, column(first) > 0, (10 * time).astype(jnp.int32), (), {"log_prob": -time})


def came(reward: list, asked: list, terminated: list = NEVER, truncated: list = NEVER) -> Came:
    """Step t leads to observation t + 1."""
    shown = column([float(t + 1) for t in range(LENGTH)])
    flags = (column(flag) > 0 for flag in (terminated, truncated, asked))
    return Came(column([float(r) for r in reward]), shown, *flags)


def empty() -> Pending:
    return nothing_pending(
        Begun(jnp.zeros(1), jnp.zeros(1, bool), jnp.zeros(1, jnp.int32), (), {"log_prob": jnp.zeros(1)})
    )


def listed(steps) -> dict[str, list]:
    """The valid steps of the one agent."""
    valid = np.asarray(steps.extras["valid"])[:, 0]
    parts = {
        "obs": steps.obs,
        "action": steps.action,
        "reward": steps.reward,
        "next_obs": steps.next_obs,
        "terminated": steps.terminated,
        "truncated": steps.truncated,
        "log_prob": steps.extras["log_prob"],
    }
    return {name: np.asarray(part)[valid, 0].tolist() for name, part in parts.items()}


def test_a_step_lasts_until_the_agent_is_asked_again_and_is_paid_all_that_came_meanwhile():
    #                     acts in 0, 2 and 5; is asked again after 1 and 4
    acting = column([1, 0, 1, 0, 0, 1]) > 0
    pending, steps = own_steps(empty(), begun(), acting, came([1, 2, 4, 8, 16, 32], asked=[0, 1, 0, 0, 1, 0]))
    found = listed(steps)
    assert found["obs"] == [0, 2] and found["action"] == [0, 20] and found["log_prob"] == [0, -2]
    assert found["reward"] == [1 + 2, 4 + 8 + 16]
    assert found["next_obs"] == [2, 5]
    assert found["terminated"] == found["truncated"] == [False, False]
    assert steps.extras["valid"][:, 0].tolist() == [True, True, False, False, False, False], "at the front"
    assert bool(pending.open[0]) and float(pending.reward[0]) == 32, "the last one waits"
    assert float(pending.begun.obs[0]) == 5 and int(pending.begun.action[0]) == 50


def test_what_waits_comes_first_in_the_next_trajectory_with_its_reward():
    waiting = Begun(jnp.array([7.0]), jnp.array([True]), jnp.array([70]), (), {"log_prob": jnp.array([-7.0])})
    pending = Pending(waiting, jnp.array([True]), jnp.array([100.0]))
    acting = column([0, 0, 1, 0, 0, 0]) > 0
    pending, steps = own_steps(pending, begun(), acting, came([1, 2, 4, 8, 16, 32], asked=[0, 1, 0, 0, 0, 0]))
    found = listed(steps)
    assert found["obs"] == [7] and found["action"] == [70] and found["log_prob"] == [-7]
    assert found["reward"] == [100 + 1 + 2] and found["next_obs"] == [2]
    assert steps.first[0, 0], "whether it was the first of a life goes with it"
    assert float(pending.reward[0]) == 4 + 8 + 16 + 32 and float(pending.begun.obs[0]) == 2


def test_a_death_ends_a_step_and_rewards_after_it_belong_to_nobody():
    acting = column([1, 0, 0, 0, 1, 0]) > 0
    came_ = came(
        [1, 2, 4, 8, 16, 32], asked=[0, 0, 0, 1, 0, 0], terminated=[0, 1, 0, 0, 0, 0], truncated=[0, 0, 0, 0, 0, 1]
    )
    pending, steps = own_steps(empty(), begun(), acting, came_)
    found = listed(steps)
    assert found["reward"] == [1 + 2, 16 + 32], "4 and 8 came to who did not act"
    assert found["terminated"] == [True, False] and found["truncated"] == [False, True]
    assert found["next_obs"] == [2, 6]
    assert not bool(pending.open[0])


def test_rewards_before_the_first_action_are_learned_from_by_nobody():
    acting = column([0, 0, 1, 0, 0, 0]) > 0
    _, steps = own_steps(empty(), begun(), acting, came([1, 2, 4, 8, 16, 32], asked=[0, 1, 1, 0, 0, 0]))
    assert listed(steps)["reward"] == [4]


def test_the_last_step_before_empty_places_is_the_edge_of_the_trajectory():
    acting = column([1, 0, 1, 0, 0, 1]) > 0
    _, steps = own_steps(empty(), begun(), acting, came([0] * 6, asked=[0, 1, 0, 0, 1, 0]))
    assert listed(cut_at_the_last(steps))["truncated"] == [False, True]
    died = came([0] * 6, asked=[0, 1, 0, 0, 0, 0], terminated=[0, 0, 1, 0, 0, 0])
    _, steps = own_steps(empty(), begun(), column([1, 0, 1, 0, 0, 0]) > 0, died)
    found = listed(cut_at_the_last(steps))
    assert found["terminated"] == [False, True] and found["truncated"] == [False, False], "a death is no edge"


# Whose rows ----------------------------------------------------------------------------------------------------------

GROUPS = (("a", Group(3, Box(0.0, 1.0, (1,)), Discrete(2))), ("b", Group(2, Box(0.0, 1.0, (1,)), Discrete(2))))
SIZES = {"a": 3, "b": 2}


def test_a_policys_rows_are_its_agents_environment_by_environment():
    groups = {"a": jnp.array([[0, 1, 2], [10, 11, 12]]), "b": jnp.array([[3, 4], [13, 14]])}
    seats = Seats((("a", (2, 0)), ("b", (1,))))
    assert seats.agents == 3
    assert seats.rows_of(groups, SIZES, 1).tolist() == [2, 0, 4, 12, 10, 14]


def test_actions_go_back_to_the_agents_whose_rows_they_were():
    seats = [Seats((("a", (2, 0)), ("b", (1,)))), Seats((("a", (1,)), ("b", (0,))))]
    rows = [jnp.array([2, 0, 4, 12, 10, 14]), jnp.array([1, 3, 11, 13])]
    found = by_group(list(zip(seats, rows, strict=True)), GROUPS, 2)
    assert found["a"].tolist() == [[0, 1, 2], [10, 11, 12]]
    assert found["b"].tolist() == [[3, 4], [13, 14]]


@pytest.mark.parametrize("leading", [(), (2,), (4, 2)])
def test_rewards_are_those_of_the_groups_in_their_order(leading):
    reward = jnp.broadcast_to(jnp.arange(5.0), (*leading, 5))
    found = rewards_by_group(reward, GROUPS)
    assert found["a"].shape == (*leading, 3) and found["a"].reshape(-1, 3)[0].tolist() == [0, 1, 2]
    assert found["b"].reshape(-1, 2)[0].tolist() == [3, 4]
