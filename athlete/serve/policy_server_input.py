"""The side of a training whose environments are elsewhere: RLlib's `PolicyServerInput` over HTTP."""

from __future__ import annotations

import hmac
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from athlete.log import logger
from athlete.serve.answers import LARGEST_BODY, as_json, require_token
from athlete.serve.external import CommandError, Exchange, ExternalEnv

COMMANDS = {
    "start_episode": ("episode_id",),
    "get_action": ("episode_id", "observation"),
    "log_action": ("episode_id", "observation", "action"),
    "log_returns": ("episode_id", "reward"),
    "end_episode": ("episode_id", "observation", "truncated"),
}


class PolicyServerInput:
    """An environment that clients play over the network: `.environment(PolicyServerInput(...))`.

    Listens from when it is made. A training takes one episode into each of its `num_envs_per_worker` rows, from
    `build()` on, and steps them together: let at least as many clients play as there are rows, or it waits.

    Args:
        observation_space: of Gymnasium, since there is no environment to ask.
        action_space: of Gymnasium too.
        address: where to listen, by default for this machine only.
        port: where to listen; 0 takes a free one, which the attribute `port` says.
        token: what clients have to bring; needed beyond this machine.
        idle_timeout_s: an episode whose client says nothing for so long is cut off.
    """

    external = True  # nobody plays it before there is a training: it is not tried out

    def __init__(
        self,
        observation_space: Any,
        action_space: Any,
        address: str = "127.0.0.1",
        port: int = 9900,
        *,
        token: str | None = None,
        idle_timeout_s: float = 300.0,
    ):
        require_token(address, token)
        self.__qualname__ = type(self).__name__  # how checkpoints call it
        self.exchange = Exchange(observation_space, action_space, idle_timeout_s)
        self._server = ThreadingHTTPServer((address, port), _handler(self.exchange, token))
        self._server.daemon_threads = True
        self.address, self.port = address, self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="policy server", daemon=True).start()
        logger.info("waiting for clients at http://%s:%d", address, self.port)

    def __call__(self, env_config: Mapping[str, Any]) -> ExternalEnv:
        """One row."""
        return ExternalEnv(self.exchange)

    def close(self) -> None:
        """Stop listening; clients that wait for an action are told so."""
        self.exchange.closed.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> PolicyServerInput:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _handler(exchange: Exchange, token: str | None) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            status, answer = self._answer()
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _answer(self) -> tuple[int, dict[str, Any]]:
            length = self.headers.get("Content-Length") or "0"
            if not length.isdecimal() or len(length) > 9 or int(length) > LARGEST_BODY:
                self.close_connection = True
                return 413, {"error": f"Content-Length: expected a whole number of at most {LARGEST_BODY:,} bytes"}
            body = self.rfile.read(int(length))
            given = self.headers.get("Authorization") or ""
            if token is not None and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
                return 401, {"error": "send the token: PolicyClient(address, token=...)"}
            try:
                return 200, {"result": as_json(_done(exchange, self.path.strip("/"), body))}
            except CommandError as error:
                return 422, {"error": str(error)}

        def log_message(self, format: str, *arguments: Any) -> None:
            logger.debug(format, *arguments)

    return Handler


def _done(exchange: Exchange, command: str, body: bytes) -> Any:
    """What a command gives."""
    if command not in COMMANDS:
        raise CommandError(f"there is no command {command!r}; there are {', '.join(COMMANDS)}")
    try:
        arguments = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"the body is no JSON: {error}") from error
    if not isinstance(arguments, dict) or not set(arguments) <= set(COMMANDS[command]):
        raise CommandError(f"{command} takes {', '.join(COMMANDS[command])}")
    try:
        return getattr(exchange, command)(**arguments)
    except TypeError as error:
        raise CommandError(f"{command} takes {', '.join(COMMANDS[command])}: {error}") from error
