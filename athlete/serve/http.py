"""A policy server on the web. The one module that speaks to starlette and uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from athlete.serve.answers import LARGEST_BODY
from athlete.serve.server import PolicyServer, RequestError


def require_package() -> None:
    """Raise ImportError, naming the extra, where what serves is not installed."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ImportError("serving needs two packages: pip install starlette 'uvicorn[standard]'") from error


def make_app(server: PolicyServer, token: str | None = None, watch_s: float | None = 5.0) -> Any:
    """The ASGI application: `POST /` acts, and `/health`, `/metrics`, `DELETE /sessions/{name}`.

    Ready for any ASGI server. `watch_s` is how often a newer checkpoint is looked for, None for never.
    """
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    def refused(request: Request) -> Response | None:
        given = request.headers.get("authorization", "")
        if token is None or hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            return None
        return JSONResponse({"error": "send the token: 'Authorization: Bearer TOKEN'"}, 401)

    async def answer(request: Request) -> Response:
        if (refusal := refused(request)) is not None:
            return refusal
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > LARGEST_BODY:
                return JSONResponse({"error": f"a request has at most {LARGEST_BODY:,} bytes"}, 413)
        try:
            return JSONResponse(await server.act(_parsed(body)))
        except RequestError as error:
            return JSONResponse({"error": str(error)}, 422)

    async def act(request: Request) -> Response:
        start = time.perf_counter()
        status = 500
        try:
            response = await answer(request)
            status = response.status_code
            return response
        finally:
            server.metrics.add_request(status, time.perf_counter() - start)

    async def health(request: Request) -> Response:
        return JSONResponse(server.about())

    async def metrics(request: Request) -> Response:
        return refused(request) or PlainTextResponse(server.metrics.text(len(server.sessions)))

    async def end_session(request: Request) -> Response:
        if (refusal := refused(request)) is not None:
            return refusal
        name = request.path_params["name"]
        if server.sessions.end(name):
            return Response(status_code=204)
        return JSONResponse({"error": f"there is no session {name!r}"}, 404)

    @contextlib.asynccontextmanager
    async def life(app: Any) -> AsyncIterator[None]:
        watching = asyncio.create_task(server.watch(watch_s)) if watch_s else None
        yield
        if watching is not None:
            watching.cancel()
        server.close()

    routes = [
        Route("/", act, methods=["POST", "GET"]),  # RLlib's tutorial sends its observation with GET
        Route("/health", health),
        Route("/metrics", metrics),
        Route("/sessions/{name}", end_session, methods=["DELETE"]),
    ]
    return Starlette(routes=routes, lifespan=life)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is no JSON: {error}") from error


def run(app: Any, host: str, port: int) -> None:
    """Serve until interrupted; requests that are being answered are answered first."""
    import uvicorn

    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False, timeout_graceful_shutdown=30)
