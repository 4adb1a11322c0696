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

    def observe(self, state: Tree, trajectory: Transition) -> Tree:
        """The state after a trajectory `[T, B, ...]` that was just collected: see `Agent.observe`."""
        return state

    def update(self, state: Tree, batch: Transition) -> tuple[Array, Tree, dict[str, Array]]:
        """Intrinsic rewards `[T, B]` of a batch, the state after learning from it, and metrics.

        The rewards are those before learning: what the batch itself teaches makes it less new only the next time.
        """
        raise NotImplementedError
