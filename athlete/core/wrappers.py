"""What stands around an environment: whatever a wrapper does not define is that of what it wraps."""

from __future__ import annotations

from typing import Any

from athlete.core.contracts import Array, Env, Group, Health, Key, Source, Step, Tree
from athlete.core.hyper import hyper
from athlete.core.multi_agent import MultiEnv
from athlete.spaces import Space


@hyper
class EnvWrapper(Env):
    """Around a JAX environment. Subclasses define what they change, and `render` for films."""

    env: Env

    @property
    def observation_space(self) -> Space:
        return self.env.observation_space

    @property
    def action_space(self) -> Space:
        return self.env.action_space

    def reset(self, key: Key) -> tuple[Tree, Tree]:
        return self.env.reset(key)

    def step(self, state: Tree, action: Tree, key: Key) -> tuple[Tree, Step]:
        return self.env.step(state, action, key)


@hyper
class MultiEnvWrapper(MultiEnv):
    """Around a JAX environment with many agents. Subclasses define `reset` and `step`, and `render` for films."""

    env: MultiEnv

    @property
    def always_acting(self) -> bool:  # type: ignore[override]
        return self.env.always_acting

    @property
    def info_metrics(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.env.info_metrics

    @property
    def groups(self) -> dict[str, Group]:
        return self.env.groups


class SourceWrapper(Source):
    """Around rows of environments outside JAX. Subclasses define `reset`, `step` and `reset_where`."""

    def __init__(self, source: Source):
        self.source = source
        self.rows, self.spec, self.agent_ids = source.rows, source.spec, source.agent_ids
        self.any_thread, self.here = source.any_thread, source.here

    @property
    def faulty(self) -> Array | None:  # type: ignore[override]
        return self.source.faulty

    @property
    def taken(self) -> Tree | None:  # type: ignore[override]
        return self.source.taken

    @property
    def health(self) -> Health:
        return self.source.health

    def raise_if_hung(self) -> None:
        self.source.raise_if_hung()

    def environments(self) -> list[Any]:
        return self.source.environments()

    def close(self) -> None:
        self.source.close()
