"""A policy that answers requests, without the web around it."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from athlete.log import logger
from athlete.policy import Policy
from athlete.record.checkpoint import MANIFEST_FILE
from athlete.serve.answers import as_json
from athlete.serve.batching import Batcher
from athlete.serve.metrics import Metrics
from athlete.serve.sessions import Session, Sessions
from athlete.spaces import zeros

KNOWN = ("observation", "session", "explore", "first", "prev_action", "prev_reward", "info")


class RequestError(ValueError):
    """A request that cannot be answered; the message says what to change."""


class PolicyServer:
    """Answers `{"observation": ...}` with `{"action": ...}`, many at a time.

    `find` says which checkpoint to serve, `policy_id` which of several policies in it. `watch` asks `find` again and
    again, and takes over what is newer. `sessions_file` keeps sessions from `close` to the next start.
    """

    def __init__(
        self,
        find: Callable[[], Path],
        policy_id: str = "default_policy",
        *,
        max_batch_size: int = 64,
        max_sessions: int = 10_000,
        session_timeout_s: float = 3600.0,
        sessions_file: Path | None = None,
    ):
        self.metrics = Metrics()
        self.sessions = Sessions(max_sessions, session_timeout_s)
        self._find, self._policy_id = find, policy_id
        self._sizes = [1 << i for i in range((max_batch_size - 1).bit_length() + 1)]
        self.checkpoint, self._stamp = Path(), b""
        self.policy = self._load(*self._newest())
        self._sessions_file = sessions_file
        self._read_sessions()
        self._batcher = Batcher(lambda: self.policy, max_batch_size, self.metrics.add_batch)

    async def act(self, request: Any) -> dict[str, Any]:
        """The answer to one request, as JSON.

        Entries of a request: `observation`; `session`, the name of an episode, where the network has memory; `first`
        begins that episode anew; `explore`; `prev_reward`, for networks that see it; `info`, where the mask of actions
        stands in it. Raises RequestError.
        """
        if not isinstance(request, Mapping) or "observation" not in request:
            raise RequestError('expected a JSON object with an "observation", such as {"observation": [0.1, 0.2]}')
        unknown = [name for name in request if name not in KNOWN]
        if unknown:
            raise RequestError(f"there is no entry {unknown[0]!r}; a request has {', '.join(KNOWN)}")
        name = request.get("session")
        if name is None:
            if self.policy.is_recurrent():
                raise RequestError("this network has memory: give session, a name of your own for each episode")
            return {"action": await self._act(request, Session())}
        if not isinstance(name, str) or not 0 < len(name) <= 200:
            raise RequestError(f"session: expected a text of at most 200 letters, got {name!r}")
        session = self.sessions.get(name)
        async with session.lock:
            if request.get("first"):
                session.state, session.action, session.steps = None, None, 0
            action = await self._act(request, session)
            return {"action": action, "session": name, "step": session.steps}

    async def _act(self, request: Mapping[str, Any], session: Session) -> Any:
        before = request.get("prev_action", session.action)
        try:
            row = self.policy.row(
                request["observation"], session.state, before, request.get("prev_reward"), request.get("info")
            )
        except (ValueError, TypeError, KeyError) as error:
            raise RequestError(str(error)) from error
        action, session.state = await self._batcher.act(row, session.state, bool(request.get("explore", False)))
        session.action, session.steps = action, session.steps + 1
        return as_json(action)

    def about(self) -> dict[str, Any]:
        """What is served."""
        return {
            "status": "ok",
            "checkpoint": str(self.checkpoint),
            "observation_space": repr(self.policy.observation_space),
            "action_space": repr(self.policy.action_space),
            "has_memory": self.policy.is_recurrent(),
            "sessions": len(self.sessions),
            "uptime_s": round(time.time() - self.metrics.started, 1),
        }

    # Newer checkpoints --------------------------------------------------------------------------------------------

    async def watch(self, interval_s: float) -> None:
        """Look for a newer checkpoint every `interval_s` seconds, until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            await self.reload()

    async def reload(self) -> bool:
        """Take over a newer checkpoint, if there is one; requests are answered meanwhile. Whether there was one.

        One that cannot be read is passed over with a warning. Sessions go on where the new network remembers in the
        same shapes, else they begin anew.
        """
        try:
            path, stamp = self._newest()
            if stamp == self._stamp:
                return False
            policy = await asyncio.to_thread(self._load, path, stamp)
        except Exception as error:
            self.metrics.failed_reloads += 1
            logger.warning("a newer checkpoint was not taken over: %s", error)
            return False
        if _shapes(policy) != _shapes(self.policy):
            self.sessions.clear()
        self.policy = policy
        self.metrics.reloads += 1
        logger.info("serving %s", path)
        return True

    def _newest(self) -> tuple[Path, bytes]:
        """The checkpoint to serve and what tells it from others in its place."""
        path = self._find()
        try:
            manifest = (path / MANIFEST_FILE).read_bytes()
        except OSError:
            manifest = b""  # which `Policy.from_checkpoint` will explain
        return path, str(path).encode() + manifest

    def _load(self, path: Path, stamp: bytes) -> Policy:
        """The policy of a checkpoint, its programs compiled for all sizes of batches."""
        policy = Policy.from_checkpoint(path, self._policy_id)
        row = zeros(policy.observation_space, (1,))
        for size in self._sizes:
            policy.act_each([row] * size, [None] * size)
        gc.unfreeze()  # what a policy before this one left
        gc.collect()
        gc.freeze()  # what is there stays: to look through all of JAX holds requests up for 70 ms, again and again
        self.checkpoint, self._stamp = path, stamp
        return policy

    def _read_sessions(self) -> None:
        if self._sessions_file is None or not self._sessions_file.exists():
            return
        try:
            self.sessions.read(self._sessions_file, jax.device_get(self.policy.get_initial_state()))
        except (ValueError, KeyError, TypeError, OSError) as error:
            self.sessions.clear()
            logger.warning("sessions begin anew: %s", error)

    def close(self) -> None:
        """Keep the sessions, where there is a file for them."""
        self._batcher.close()
        if self._sessions_file is not None:
            self.sessions.write(self._sessions_file)


def _shapes(policy: Policy) -> list[Any]:
    return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(policy.get_initial_state())]
