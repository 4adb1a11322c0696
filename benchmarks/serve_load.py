"""Requests a second and their delay of `athlete serve`, over connections that each ask again as soon as answered.

    athlete serve CHECKPOINT --port 8000 &
    python benchmarks/serve_load.py '{"observation": [0.0, 0.0, 0.0, 0.0]}' --requests 100000

The client is plain asyncio. Give the server a core of its own (`taskset -c 0 athlete serve ...`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path

import numpy as np


async def ask_again_and_again(host: str, port: int, body: bytes, left: list[int], delays: list[float]) -> int:
    """Ask over one connection until none of the requests are left; how many answers were no 200."""
    reader, writer = await asyncio.open_connection(host, port)
    request = f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    errors = 0
    while left[0] > 0:
        left[0] -= 1
        start = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        delays.append(time.perf_counter() - start)
        errors += not head.startswith(b"HTTP/1.1 200")
    writer.close()
    return errors


def memory_of(pid: int | None) -> str:
    """The resident memory of a process, where Linux tells it."""
    if pid is None:
        return "not asked"
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("VmRSS"))


async def measure(arguments: argparse.Namespace) -> None:
    json.loads(arguments.body)
    body = arguments.body.encode()
    await asyncio.gather(
        *(ask_again_and_again(arguments.host, arguments.port, body, [200], []) for _ in range(arguments.connections))
    )
    before = memory_of(arguments.pid)
    left, delays = [arguments.requests], list[float]()
    start = time.perf_counter()
    errors = await asyncio.gather(
        *(ask_again_and_again(arguments.host, arguments.port, body, left, delays) for _ in range(arguments.connections))
    )
    seconds = time.perf_counter() - start
    p50, p99, most = np.percentile(delays, [50, 99, 100]) * 1000
    print(
        f"{len(delays):,} requests over {arguments.connections} connections: {len(delays) / seconds:,.0f} a second, "
        f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, slowest {most:.1f} ms, {sum(errors)} errors; "
        f"memory {before} before and {memory_of(arguments.pid)} after"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("body", help="a request as JSON")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--pid", type=int, help="the server's process, to tell its memory")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
