"""Your own code at the turning points of a training: RLlib's callbacks."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

# Hooks that need environments stepped from Python.
HOSTED_HOOKS = frozenset(
    (
        "on_episode_start",
        "on_episode_step",
        "on_episode_end",
        "on_sample_end",
        "on_learn_on_batch",
        "on_postprocess_trajectory",
        "on_sub_environment_created",
    )
)
# Of these, what sees and changes the batch that is learned from.
BATCH_HOOKS = frozenset(("on_learn_on_batch", "on_postprocess_trajectory"))


class DefaultCallbacks:
    """Override what you need and give the class to `.callbacks(MyCallbacks)`.

    Hooks of episodes, samples and batches run where environments are stepped from Python; where they cannot, `build`
    says so. `worker.env` is the first row's environment and `base_env.get_sub_environments()` has those of all rows,
    where they live in this process. `policies["default_policy"]` is the policy as it was when it was first asked for in
    this `train()`.
    """

    def on_algorithm_init(self, *, algorithm: Any) -> None:
        """After `build()`."""

    def on_train_result(self, *, algorithm: Any, result: dict) -> None:
        """After each `train()`; changes to `result` are seen by everyone after."""

    def on_evaluate_start(self, *, algorithm: Any) -> None:
        """Before each evaluation."""

    def on_evaluate_end(self, *, algorithm: Any, evaluation_metrics: dict) -> None:
        """After each evaluation; `evaluation_metrics` is `{"evaluation": {...}}`."""

    def on_checkpoint_loaded(self, *, algorithm: Any) -> None:
        """After `restore()`."""

    def on_sub_environment_created(
        self, *, worker: Any, sub_environment: Any, env_context: Any, env_index: int, **kwargs: Any
    ) -> None:
        """After each row's environment was made, in the process where it lives; `worker` is None there."""

    def on_episode_start(
        self, *, worker: Any, base_env: Any, policies: Any, episode: Any, env_index: int, **kwargs: Any
    ) -> None:
        """After a row's reset: put what you follow into `episode.user_data`."""

    def on_episode_step(
        self, *, worker: Any, base_env: Any, policies: Any, episode: Any, env_index: int, **kwargs: Any
    ) -> None:
        """After each step of a row: `episode.last_info_for()`, `last_observation_for()`, `last_action_for()`."""

    def on_episode_end(
        self, *, worker: Any, base_env: Any, policies: Any, episode: Any, env_index: int, **kwargs: Any
    ) -> None:
        """After a row's last step: put numbers into `episode.custom_metrics` and lists into `episode.hist_data`."""

    def on_sample_end(self, *, worker: Any, samples: dict, **kwargs: Any) -> None:
        """After each trajectory of all rows: `samples` has arrays `[T, B, ...]` under RLlib's names, to look at."""

    def on_postprocess_trajectory(
        self,
        *,
        worker: Any,
        episode: Any,
        agent_id: Any,
        policy_id: str,
        policies: Any,
        postprocessed_batch: dict,
        original_batches: dict,
        **kwargs: Any,
    ) -> None:
        """For each episode's part of a trajectory, `[t, ...]`; changes to `postprocessed_batch` are learned from."""

    def on_learn_on_batch(self, *, policy: Any, train_batch: dict, result: dict, **kwargs: Any) -> None:
        """Before learning from `[T, B, ...]`; changes to `train_batch` count, and numbers in `result` are reported."""


KNOWN_HOOKS = frozenset(name for name in vars(DefaultCallbacks) if name.startswith("on_"))


def overridden(callbacks: Any) -> frozenset[str]:
    """The hooks that `callbacks`, a class or an instance, has of its own; instances may get some in `__init__`."""
    own, attributes = _parts(callbacks)
    return frozenset(
        name
        for name in KNOWN_HOOKS
        if name in attributes or getattr(own, name, None) is not vars(DefaultCallbacks)[name]
    )


def unknown_hook(callbacks: Any) -> str | None:
    """A sentence about a method that looks like a hook and is none, which would never be called; None if all are."""
    own, attributes = _parts(callbacks)
    names = {name for name in (*dir(own), *attributes) if name.startswith("on_")}
    for name in sorted(names - KNOWN_HOOKS):
        near = difflib.get_close_matches(name, KNOWN_HOOKS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(KNOWN_HOOKS))}"
        return f"{own.__name__}.{name} is no callback and would never be called; {hint}"
    return None


def _parts(callbacks: Any) -> tuple[type, Mapping[str, Any]]:
    """The class of callbacks, and what an instance has beside it."""
    return (callbacks, {}) if isinstance(callbacks, type) else (type(callbacks), getattr(callbacks, "__dict__", {}))


class Created:
    """Tells callbacks of an environment that was made, here or in a worker process, which gets a copy of them."""

    def __init__(self, callbacks: DefaultCallbacks):
        self.callbacks = callbacks

    def __call__(self, env: Any, env_context: Any, row: int) -> None:
        self.callbacks.on_sub_environment_created(
            worker=None, sub_environment=env, env_context=env_context, env_index=row
        )


class Policies(Mapping):
    """RLlib's map of policies, of which there is one; it is made when it is asked for."""

    def __init__(self, get_policy: Callable[[], Any]):
        self._get_policy = get_policy

    def __getitem__(self, name: str) -> Any:
        if name != "default_policy":
            raise KeyError(name)
        return self._get_policy()

    def __iter__(self) -> Iterator[str]:
        return iter(("default_policy",))

    def __len__(self) -> int:
        return 1
