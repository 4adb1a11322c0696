"""What happens with a trajectory that was just collected, written once for every loop: memory, observing, updates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from athlete.core.contracts import Agent, Array, Key, Transition, Tree


def rated(agent: Agent, view: Tree, trajectory: Transition) -> Transition:
    """A trajectory with the TD errors of its windows, by what acted in it."""
    errors = agent.td_errors(view, trajectory._replace(carry=(), extras={}))
    return trajectory._replace(extras={**trajectory.extras, "td_error": errors})


def take_in(
    agent: Agent, state: Tree, store: Tree, accumulators: Tree, trajectory: Transition
) -> tuple[Tree, Tree, Tree]:
    """State, store and accumulators after a trajectory, or a piece of one, that was just collected."""
    if agent.memory.rated and "td_error" not in trajectory.extras:  # workers may have found them
        trajectory = rated(agent, agent.view(state, 0.0), trajectory)
    store = agent.memory.add(store, trajectory)
    if not agent.memory.keeps or trajectory.first.shape[0] == 1:
        state, accumulators = agent.observe(state, accumulators, trajectory)
        return state, store, accumulators

    def one_step(held: tuple[Tree, Tree], step: Transition) -> tuple[tuple[Tree, Tree], None]:
        return agent.observe(*held, jax.tree.map(lambda leaf: leaf[None], step)), None

    # As the hosted loop does, which has no more than a step at a time.
    state, accumulators = jax.lax.scan(one_step, (state, accumulators), trajectory)[0]
    return state, store, accumulators


def update(
    agent: Agent, state: Tree, store: Tree, trajectory: Transition, key: Key, progress: Array
) -> tuple[Tree, Tree, dict]:
    """The agent's `updates` on samples of its memory, which `trajectory` was added to: state, store, mean metrics."""

    def one_update(carried, key):
        state, store = carried
        sample_key, update_key = jax.random.split(key)
        batch = agent.memory.sample(store, trajectory, sample_key, progress)
        state, metrics = agent.update(state, batch, update_key, progress)
        store = agent.memory.feedback(store, batch, metrics)
        return (state, store), {name: value for name, value in metrics.items() if jnp.ndim(value) == 0}

    if agent.updates == 1:
        (state, store), metrics = one_update((state, store), key)
        return state, store, metrics
    (state, store), metrics = jax.lax.scan(one_update, (state, store), jax.random.split(key, agent.updates))
    return state, store, {name: jnp.mean(value, axis=0) for name, value in metrics.items()}


def learn(
    agent: Agent,
    state: Tree,
    store: Tree,
    accumulators: Tree,
    trajectory: Transition,
    key: Key,
    progress: Array,
    sample_async: bool = False,
) -> tuple[Tree, Tree, Tree, dict]:
    """Put a trajectory into memory and make the agent's `updates` on samples of it: what `take_in` returns, and mean
    metrics.

    With `sample_async` the updates come first: they see what was there while the trajectory was collected.
    """
    if sample_async:
        state, store, metrics = update(agent, state, store, trajectory, key, progress)
        return *take_in(agent, state, store, accumulators, trajectory), metrics
    state, store, accumulators = take_in(agent, state, store, accumulators, trajectory)
    state, store, metrics = update(agent, state, store, trajectory, key, progress)
    return state, store, accumulators, metrics
