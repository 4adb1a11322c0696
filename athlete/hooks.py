"""Where the hooks of a user's callbacks are called: which there are, which cannot be, and what calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from athlete.callbacks import BATCH_HOOKS, HOSTED_HOOKS, Created, DefaultCallbacks, Policies, overridden, unknown_hook
from athlete.core import Agent, Source
from athlete.env.world import World
from athlete.loops.batch_hooks import BatchHooks
from athlete.loops.episodes import WatchedSource
from athlete.policy import Policy
from athlete.settings.config import AlgorithmConfig


class Hooks:
    """The callbacks of an algorithm, wired to what they are told of.

    Raises ValueError for hooks of steps and episodes where these are inside a compiled program.
    """

    def __init__(self, config: AlgorithmConfig, world: World, get_policy: Callable[[], Policy]):
        given = config.get("callbacks") or DefaultCallbacks
        self.callbacks: Any = given() if isinstance(given, type) else given
        if wrong := unknown_hook(self.callbacks):  # which a class gives its instances
            raise ValueError(f"callbacks: {wrong}")
        self._config = config
        self._policies = Policies(get_policy)
        self.hosted = overridden(self.callbacks) & HOSTED_HOOKS  # called where environments step
        if self.hosted and world.env is not None:
            self._refuse_compiled(world)

    @property
    def created(self) -> Created | None:
        """What tells of each environment that is made, where a hook wants to know."""
        return Created(self.callbacks) if "on_sub_environment_created" in self.hosted else None

    def of_batches(self, agent: Agent) -> BatchHooks | None:
        """What shows the hooks the batches that `agent` learns from. Raises ValueError where these are out of reach."""
        hooks = self.hosted & BATCH_HOOKS
        if hooks and agent.memory.keeps:
            raise ValueError(
                f"callbacks({type(self.callbacks).__name__}): {self._config.algorithm_name} draws its batches from a "
                f"memory inside a compiled program, where {', '.join(sorted(hooks))} cannot be called; on_episode_step "
                "and on_sample_end see what is collected, and a wrapper around the environment can change it"
            )
        return BatchHooks(self.callbacks, hooks, self._policies) if hooks else None

    def watch_training(self, source: Source, length: int) -> Source:
        """`source`, telling hooks and results of its episodes and samples of `length` steps, where any want to know."""
        return self._watching(source, self.hosted - {"on_sub_environment_created"}, length)

    def watch_evaluation(self, source: Source) -> Source:
        """The same for each row's first episode after a reset, and without samples."""
        hooks = self.hosted - BATCH_HOOKS - {"on_sub_environment_created", "on_sample_end"}
        return self._watching(source, hooks, first_only=True)

    def _watching(self, source: Source, hooks: frozenset[str], length: int = 0, first_only: bool = False) -> Source:
        told = self._config.info_metrics
        if not hooks and not told:
            return source
        return WatchedSource(source, self.callbacks, hooks, self._policies, told, length, first_only)

    def _refuse_compiled(self, world: World) -> None:
        way_out = "environment(..., backend='gymnasium') steps it from Python"
        if not world.is_twin:
            way_out = "only an environment of Gymnasium is stepped from Python"
        raise ValueError(
            f"callbacks({type(self.callbacks).__name__}): {world.name} runs compiled, where "
            f"{', '.join(sorted(self.hosted))} cannot be called; {way_out}. Entries of info are reported compiled "
            "too: reporting(info_metrics=[...])"
        )
