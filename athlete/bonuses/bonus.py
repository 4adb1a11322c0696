"""What every exploration bonus is. `combine/curious.py` gives its reward to an agent."""

from __future__ import annotations

from athlete.core import Array, Key, Spec, Transition, Tree


class Bonus:
    """The contract. Subclasses are `@hyper` classes; their state is a pytree of arrays."""

    __hyper__ = True

    def bind(self, spec: Spec) -> Bonus:
        """The same bonus, knowing its spaces. Raises ValueError on spaces that it cannot serve."""
        raise NotImplementedError

    def init(self, key: Key) -> Tree:
        """The state before anything was seen."""
        raise NotImplementedError

    def accumulators(self, rows: int) -> Tree:
        """What `observe` carries along each row, at the start of a run: see `Agent.accumulators`."""
        return ()

    def observe(self, state: Tree, accumulators: Tree, trajectory: Transition) -> tuple[Tree, Tree]:
        """State and accumulators after a trajectory `[T, B, ...]` that was just collected: see `Agent.observe`."""
        return state, accumulators

    def reward(self, state: Tree, batch: Transition) -> Array:
        """Intrinsic rewards `[T, B]` of a batch, as new as it is now."""
        raise NotImplementedError

    def update(self, state: Tree, batch: Transition) -> tuple[Tree, dict[str, Array]]:
        """The state after learning from a batch, and metrics."""
        return state, {}
