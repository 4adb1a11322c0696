"""Your own code at the turning points of a training: RLlib's callbacks."""

from __future__ import annotations

from typing import Any


class DefaultCallbacks:
    """Override what you need and give the class to `.callbacks(MyCallbacks)`."""

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
