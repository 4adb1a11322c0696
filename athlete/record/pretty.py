"""A result for human eyes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def pretty_print(result: Mapping[str, Any]) -> str:
    """The result as indented YAML, without the configuration and the lists of single episodes."""
    import yaml

    shown = {key: _plain(value) for key, value in result.items() if key not in ("config", "hist_stats")}
    return yaml.safe_dump(shown, sort_keys=True, default_flow_style=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items() if key != "hist_stats"}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if hasattr(value, "item"):
        return _plain(value.item())
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return value if isinstance(value, str | int | bool | None) else str(value)
