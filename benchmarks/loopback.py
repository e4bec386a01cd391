"""The whole stack over real connections: a keep-alive server on loopback in a process of its own.

Bare httpx and httpx with the whole stack take turns, as in overhead. `bare` and `ours` are microseconds
of CPU time per request in the client's thread, `added` and `x bare` as there. `p50` and `p99` are
milliseconds that a request took by the wall clock, and hang on how many were under way at once.
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from . import _server
from ._batches import running
from ._harness import Added, Batch, Effort, Tell, measure, percentile
from ._stacks import WHOLE, stack
from ._table import Table

CONCURRENCY = (1, 8, 64)
COLUMNS = {
    "bare": ".0f",
    "ours": ".0f",
    "added": ".1f",
    "x bare": ".3f",
    "bare p50": ".2f",
    "ours p50": ".2f",
    "bare p99": ".2f",
    "ours p99": ".2f",
}


def at_once(concurrency: int) -> str:
    """The row's name."""
    return f"{concurrency} at once"


def run(effort: Effort, tell: Tell) -> list[Table]:
    """One row for each number of requests that are under way at once."""
    rounds = max(1, effort.rounds // 2)  # a request over sockets takes longer
    rows: dict[str, tuple[float, ...]] = {}
    with _server_process() as url, asyncio.Runner() as runner:
        for part, concurrency in enumerate(CONCURRENCY):
            some = replace(effort, rounds=rounds, batch=max(concurrency, effort.batch // 4))
            bare = Timed(runner, _network(), url, concurrency)
            ours = Timed(runner, stack(_network()), url, concurrency)

            def told(done: int, of: int, part: int = part) -> None:
                tell(part * of + done, len(CONCURRENCY) * of)

            added = measure(bare.batch, {WHOLE: ours.batch}, some, tell=told)
            rows[at_once(concurrency)] = _row(added, bare, ours)
            for client in (bare.client, ours.client):
                runner.run(client.aclose())
    title = "CPU microseconds per request, and milliseconds until it was answered"
    return [Table(name="loopback", title=title, columns=COLUMNS, rows=rows)]


def _network() -> httpx.AsyncHTTPTransport:
    return httpx.AsyncHTTPTransport(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))  # no certificates to load


class Timed:
    """Requests by one client, so many at once, with the time that each took."""

    def __init__(
        self, runner: asyncio.Runner, transport: httpx.AsyncBaseTransport, url: str, concurrency: int
    ) -> None:
        self.milliseconds: list[float] = []
        self.client = httpx.AsyncClient(transport=transport, trust_env=False)
        self._url = url
        self._concurrency = concurrency
        self.batch: Batch = running(runner, self._batch)
        self.batch(concurrency)  # connects
        self.milliseconds.clear()

    async def _batch(self, count: int) -> None:
        async with asyncio.TaskGroup() as group:
            for worker in range(self._concurrency):
                group.create_task(self._requests(len(range(worker, count, self._concurrency))))

    async def _requests(self, count: int) -> None:
        for _ in range(count):
            began = time.perf_counter()
            await self.client.get(self._url)
            self.milliseconds.append((time.perf_counter() - began) * 1e3)


def _row(added: dict[str, Added], bare: Timed, ours: Timed) -> tuple[float, ...]:
    whole = added[WHOLE]
    waits = (percentile(timed.milliseconds, percent) for percent in (50, 99) for timed in (bare, ours))
    return (whole.bare, whole.total, whole.quiet, whole.ratio, *waits)


@contextmanager
def _server_process() -> Iterator[str]:
    """Its URL; the process is gone when the block is left."""
    command = [sys.executable, "-I", str(Path(_server.__file__))]
    # A process group of its own: Ctrl-C reaches the terminal's, and the server ends with its stdin.
    apart: dict[str, Any] = {} if sys.platform == "win32" else {"process_group": 0}
    with subprocess.Popen(  # noqa: S603  # our own server
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **apart
    ) as process:
        assert process.stdin is not None  # noqa: S101  # a pipe was asked for
        assert process.stdout is not None  # noqa: S101  # as above
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/"
            process.stdin.close()  # its sign to go
            process.wait()
        finally:
            process.kill()
