"""What servers share: who may ask, how much, and how answers are written."""

from __future__ import annotations

import ipaddress
from typing import Any

import numpy as np

from athlete.core import Tree

LARGEST_BODY = 16 * 2**20  # bytes of a request


def require_token(host: str, token: str | None) -> None:
    """Raise ValueError where others than this machine could ask without a token."""
    if token is not None and len(token) < 8:
        raise ValueError("a token has at least 8 letters")
    try:
        is_local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = False
    if not is_local and token is None:
        raise ValueError(
            f"{host}: beyond this machine requests need a token; give one (--token or ATHLETE_TOKEN for athlete "
            "serve), and let clients send it as 'Authorization: Bearer TOKEN'"
        )


def as_json(action: Tree) -> Any:
    """An action as JSON: numbers, lists and dictionaries."""
    if isinstance(action, dict):
        return {name: as_json(part) for name, part in action.items()}
    if isinstance(action, tuple):
        return [as_json(part) for part in action]
    return action.tolist() if isinstance(action, np.ndarray | np.generic) else action
