"""Hindsight experience replay (Andrychowicz et al. 2017, arXiv:1707.01495): what was reached was wanted."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Key, Memory, Transition, hyper
from athlete.core.goals import ACHIEVED_GOAL, DESIRED_GOAL, Goals
from athlete.memory.ring import Ring, ring_add, ring_draw, ring_init, ring_take, slots_of


class HindsightRing(NamedTuple):
    """Transitions, and where their episodes begin and end. Episodes of a row are numbered, modulo its slots: as each
    has a step at least, no two that are in memory have the same number.
    """

    ring: Ring
    number: Array  # int32 [rows], of each row's last episode
    episode: Array  # int32 [slots, rows], the number of the episode of which each slot has a step
    begin: Array  # int32 [slots, rows], of the episode of each number the slot of its first step
    last: Array  # int32 [slots, rows], and that of its last one so far


@hyper
class Hindsight(Memory):
    """Samples windows as `Replay` does, and gives a part of them another goal: one that their episode reached.

    Of each sample the goal is replaced with probability k / (k + 1), k = `n_sampled_goal`, as if k such copies of every
    step were stored beside it (algorithm 1 of the paper, drawn when sampled). The new goal is what was achieved after a
    step of the same episode (section 4.5): with `goal_selection_strategy` "future" the sample's first step or one
    after it, with "final" the last one that is there, with "episode" any. The rewards of the window and its
    terminations are then those that `goals` gives for it.

    Episodes that are not over are sampled too, with what they have reached so far.
    """

    goals: Goals | None = None  # given by who knows the environment; None: nothing can be sampled
    n_sampled_goal: int = 4
    goal_selection_strategy: Literal["future", "final", "episode"] = "future"
    capacity: int = 50_000  # timesteps of all rows together
    batch_size: int = 32
    window: int = 1
    unroll: int = 1  # steps that each row adds at once

    def init(self, example: Transition, rows: int) -> HindsightRing:
        """Raises ValueError where observations have no goals, and for agents that do not act at every step."""
        if not isinstance(example.obs, dict) or not {ACHIEVED_GOAL, DESIRED_GOAL} <= example.obs.keys():
            raise ValueError(f"hindsight: observations have no {ACHIEVED_GOAL!r} and {DESIRED_GOAL!r}")
        if isinstance(example.extras, dict) and "valid" in example.extras:
            raise ValueError("hindsight: it is for agents that act at every step")
        slots = slots_of(self.capacity, rows, self.unroll, self.window)
        ring = ring_init(example._replace(carry=()), slots, rows)
        return HindsightRing(ring, jnp.zeros(rows, jnp.int32), *(jnp.zeros((slots, rows), jnp.int32) for _ in range(3)))

    def add(self, store: HindsightRing, trajectory: Transition) -> HindsightRing:
        first, cursor = trajectory.first, store.ring.cursor
        length, rows = first.shape
        slots, row, time = store.episode.shape[0], jnp.arange(rows), jnp.arange(length, dtype=jnp.int32)[:, None]
        number = (store.number + jnp.cumsum(first, axis=0, dtype=jnp.int32)) % slots
        # The last step of each step's episode within the trajectory: all that write of one episode write the same.
        ends = jnp.concatenate([first[1:], jnp.ones((1, rows), bool)])
        end = jax.lax.cummin(jnp.where(ends, time, length), axis=0, reverse=True)
        begun = jnp.where(first, number, slots)  # behind the last: dropped
        return HindsightRing(
            ring_add(store.ring, trajectory._replace(carry=())),
            number[-1],
            jax.lax.dynamic_update_slice_in_dim(store.episode, number, cursor, axis=0),
            store.begin.at[begun, row].set(jnp.broadcast_to(cursor + time, first.shape), mode="drop"),
            store.last.at[number, row].set(cursor + end),
        )

    def sample(self, store: HindsightRing, trajectory: Transition, key: Key, progress: Array) -> Transition:
        """The key is split in three: for the windows, for which of them get another goal, and for that goal."""
        window_key, which_key, goal_key = jax.random.split(key, 3)
        slot, row = ring_draw(store.ring, window_key, self.batch_size, self.window)
        steps = ring_take(store.ring, slot, row, self.window)
        reached = (slot + self._distance(store, slot, row, goal_key)) % store.episode.shape[0]
        goal = ring_take(store.ring, reached, row, 1).next_obs[ACHIEVED_GOAL][0]
        share = self.n_sampled_goal / (self.n_sampled_goal + 1)
        return self._with_goal(steps, goal, jax.random.bernoulli(which_key, share, slot.shape))

    def ready(self, store: HindsightRing) -> Array:
        return store.ring.filled >= self.window

    def _distance(self, store: HindsightRing, slot: Array, row: Array, key: Key) -> Array:
        """How many steps after the one in `slot` `[N]` of `row` `[N]` that one is whose achievement is the new goal."""
        slots, ring = store.episode.shape[0], store.ring
        number = store.episode[slot, row]
        after = (store.last[number, row] - slot) % slots
        if self.goal_selection_strategy == "final":
            return after
        before = jnp.zeros_like(after)
        if self.goal_selection_strategy == "episode":
            oldest = (ring.cursor - ring.filled) % slots
            cut = store.episode[oldest, row] == number  # its first steps may be overwritten
            before = (slot - jnp.where(cut, oldest, store.begin[number, row])) % slots
        return jax.random.randint(key, slot.shape, -before, after + 1)

    def _with_goal(self, steps: Transition, goal: Array, replaced: Array) -> Transition:
        """Windows `[T, N, ...]` with the goals `[N, ...]` where they are `replaced` `[N]`."""
        assert self.goals is not None
        mask = replaced.reshape(-1, *(1,) * (goal.ndim - 1))
        obs, next_obs = (
            {**seen, DESIRED_GOAL: jnp.where(mask, goal, seen[DESIRED_GOAL])} for seen in (steps.obs, steps.next_obs)
        )
        achieved, desired, terminated = (
            leaf.reshape(-1, *leaf.shape[2:])
            for leaf in (next_obs[ACHIEVED_GOAL], next_obs[DESIRED_GOAL], steps.terminated)
        )
        reward, terminated = (
            leaf.reshape(steps.reward.shape) for leaf in self.goals.judge(achieved, desired, terminated)
        )
        return steps._replace(
            obs=obs,
            next_obs=next_obs,
            reward=jnp.where(replaced, reward, steps.reward),
            terminated=jnp.where(replaced, terminated, steps.terminated),
        )
