"""From the steps of an environment to those that an agent took itself: turns, deaths and rewards while waiting."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Transition, Tree


class Begun(NamedTuple):
    """A step from where an agent acted: all of its `Transition` that is known before."""

    obs: Tree
    first: Array
    action: Tree
    carry: Tree
    extras: Tree


class Came(NamedTuple):
    """What a step of the environment brought to each agent, `[T, N, ...]`."""

    reward: Array
    next_obs: Tree
    terminated: Array  # of the agent's own life
    truncated: Array
    asked: Array  # bool: it is asked for an action after the step


class Pending(NamedTuple):
    """Of each agent `[N, ...]` the action whose consequence is not known yet; waits from trajectory to trajectory."""

    begun: Begun
    open: Array  # bool: there is one
    reward: Array  # that came since then, where there is one


def transition_of(begun: Begun, came: Came) -> Transition:
    """What began and what came of it, as one."""
    return Transition(
        obs=begun.obs,
        first=begun.first,
        action=begun.action,
        reward=came.reward,
        next_obs=came.next_obs,
        terminated=came.terminated,
        truncated=came.truncated,
        carry=begun.carry,
        extras=begun.extras,
    )


def nothing_pending(begun: Begun) -> Pending:
    """At the start of a run; `begun` `[N, ...]` gives the shapes."""
    number = begun.first.shape[0]
    return Pending(jax.tree.map(jnp.zeros_like, begun), jnp.zeros(number, bool), jnp.zeros(number))


def own_steps(pending: Pending, begun: Begun, acting: Array, came: Came) -> tuple[Pending, Transition]:
    """The transitions of agents `[T, N, ...]` in steps `[T, N, ...]`, in some of which they were not `acting`.

    A transition begins where the agent acts and ends where it is asked again or its life ends; its reward is the sum
    of what came in between. The transitions of each agent are moved to the front, and `extras["valid"]` is False in
    the places behind them. So whoever goes through them forwards, a network with memory or a running return, meets no
    empty place before the end. What is under way at the end is pending and comes with the next trajectory: no step is
    lost and none counts twice.
    """
    length, number = acting.shape
    ends = came.terminated | came.truncated

    def step(held: tuple[Array, Array], inputs: tuple) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        open_, total = held
        acting_t, asked, reward, ends_t = inputs
        open_ = open_ | acting_t
        total = jnp.where(acting_t, 0.0, total) + reward  # of who has nothing under way it is never read
        done = open_ & (asked | ends_t)
        return (open_ & ~done, total), (done, total)

    inputs = (acting, came.asked, came.reward, ends)
    (open_, total), (done, totals) = jax.lax.scan(step, (pending.open, pending.reward), inputs)
    time, agent = jnp.arange(length)[:, None], jnp.arange(number)[None]
    origin = jax.lax.cummax(jnp.where(acting, time + 1, 0), axis=0)  # 0 is what was pending, t + 1 began in step t
    place = jnp.where(done, jnp.cumsum(done, axis=0) - 1, length)
    when = jnp.full(acting.shape, length - 1)
    when = when.at[place, agent].set(jnp.broadcast_to(time, acting.shape), mode="drop")
    all_begun = jax.tree.map(lambda old, new: jnp.concatenate([old[None], new]), pending.begun, begun)

    def at(tree: Tree, index: Array) -> Tree:
        return jax.tree.map(lambda leaf: leaf[index, agent], tree)

    start, end = at(all_begun, at(origin, when)), at(came._replace(reward=totals), when)
    valid = time < jnp.sum(done, axis=0)
    steps = transition_of(start._replace(extras=dict(start.extras or {}) | {"valid": valid}), end)
    latest = jax.tree.map(lambda leaf: leaf[origin[-1], agent[0]], all_begun)
    return Pending(latest, open_, total), steps


def cut_at_the_last(steps: Transition) -> Transition:
    """The last valid step of each agent as the edge of the trajectory that it is: bootstrapped, with nothing behind."""
    valid = steps.extras["valid"]
    followed = jnp.concatenate([valid[1:], jnp.zeros_like(valid[:1])])
    return steps._replace(truncated=steps.truncated | (valid & ~followed & ~steps.terminated))
