"""A policy behind HTTP: requests are answered in batches, networks with memory have sessions, newer checkpoints load.

`server.PolicyServer` is all of it but the web; `http` is the web. Simulators that play for a training elsewhere speak
with `PolicyClient` to its `PolicyServerInput`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from athlete.serve.policy_client import PolicyClient as PolicyClient
    from athlete.serve.policy_server_input import PolicyServerInput as PolicyServerInput

_HOMES = {
    "PolicyClient": "athlete.serve.policy_client",
    "PolicyServerInput": "athlete.serve.policy_server_input",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'athlete.serve' has no {name!r}")
