"""The memory of a request, in bytes of Python's own allocators (`tracemalloc`), on the null network.

`in flight`: 10,000 requests are under way at once, and what they take is divided among them; `bare` is the
same without layers, its tasks and frames. First all of them wait for their headers, then they have got
them and wait for their bodies. `left behind` is what a thousand finished requests left, each.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import httpx

from ._batches import new_request, one_call
from ._harness import FULL, Effort, Tell
from ._null import NullStream, NullTransport
from ._stacks import stack
from ._table import Table

FINISHED = 1_000
HEADERS, BODY, LEFT = "in flight, before headers", "in flight, in the body", "left behind"
COLUMNS = {"bare": ".0f", "ours": ".0f", "added": ".0f"}


def run(effort: Effort, tell: Tell) -> list[Table]:
    """One table."""
    seen: list[list[float]] = []
    arounds: tuple[Callable[[Any], Any], ...] = (lambda network: network, stack)
    for done, around in enumerate(arounds):
        seen.append(
            [
                *asyncio.run(_in_flight(around, effort.in_flight)),
                asyncio.run(_left_behind(around(NullTransport()))),
            ]
        )
        tell(done + 1, 2)
    rows = {
        name: (bare, ours, ours - bare) for name, bare, ours in zip((HEADERS, BODY, LEFT), *seen, strict=True)
    }
    notes = (
        () if effort.in_flight == FULL.in_flight else (f"in flight: {effort.in_flight} requests, for a look",)
    )
    return [Table(name="memory", title="bytes per request", columns=COLUMNS, rows=rows, notes=notes)]


class Parked(httpx.AsyncBaseTransport):
    """A network that answers when it is told to: first with headers, then with bodies."""

    def __init__(self) -> None:
        self.headers = asyncio.Event()
        self.body = asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await self.headers.wait()
        return httpx.Response(200, stream=ParkedStream(self.body))


class ParkedStream(NullStream):
    """A body that waits, then ends."""

    def __init__(self, body: asyncio.Event) -> None:
        self._body = body

    async def __aiter__(self) -> Any:
        await self._body.wait()
        yield b"{}"


async def _in_flight(around: Any, count: int) -> tuple[float, float]:
    network = Parked()
    transport = around(network)
    requests = [new_request() for _ in range(count)]
    tracemalloc.start()
    try:
        before = _bytes()
        tasks = [asyncio.create_task(one_call(transport, request)) for request in requests]
        await _settle()
        for_headers = _bytes() - before
        network.headers.set()
        await _settle()
        for_bodies = _bytes() - before
    finally:
        tracemalloc.stop()
    network.body.set()
    await asyncio.gather(*tasks)
    return for_headers / count, for_bodies / count


async def _left_behind(transport: Any) -> float:
    request = new_request()

    async def calls() -> None:
        for _ in range(FINISHED):
            await one_call(transport, request)

    await calls()  # warm up
    tracemalloc.start()
    try:
        await calls()  # what is kept of the last few requests, whatever their number
        before = _bytes()
        await calls()
        return (_bytes() - before) / FINISHED
    finally:
        tracemalloc.stop()


async def _settle() -> None:
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


def _bytes() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
