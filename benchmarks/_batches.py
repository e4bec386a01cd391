"""Batches of requests for the harness, by each of the ways that a transport is called."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx

from ._harness import Batch

URL = "http://platform.test/"


def new_request(**extensions: Any) -> httpx.Request:
    """As a client with its default timeouts makes it."""
    timeout = httpx.Timeout(5.0).as_dict()
    return httpx.Request("GET", URL, extensions={"timeout": timeout, **extensions})


async def one_call(transport: Any, request: httpx.Request) -> None:
    """Straight into a transport; the body is read to its end and closed."""
    response = await transport.handle_async_request(request)
    async for _chunk in response.stream:
        pass
    await response.stream.aclose()


def direct(runner: asyncio.Runner, transport: Any, request: httpx.Request | None = None) -> Batch:
    """Calls straight into a transport."""
    request = request or new_request()

    async def batch(count: int) -> None:
        for _ in range(count):
            await one_call(transport, request)

    return running(runner, batch)


def client(runner: asyncio.Runner, transport: Any) -> Batch:
    """Whole requests by an `httpx.AsyncClient`."""
    caller = httpx.AsyncClient(transport=transport, trust_env=False)

    async def batch(count: int) -> None:
        for _ in range(count):
            await caller.get(URL)

    return running(runner, batch)


def blocking_direct(transport: Any) -> Batch:
    """Calls straight into a blocking transport."""
    request = new_request()

    def batch(count: int) -> None:
        for _ in range(count):
            response = transport.handle_request(request)
            for _chunk in response.stream:
                pass
            response.stream.close()

    return batch


def blocking_client(transport: Any) -> Batch:
    """Whole requests by an `httpx.Client`."""
    caller = httpx.Client(transport=transport, trust_env=False)

    def batch(count: int) -> None:
        for _ in range(count):
            caller.get(URL)

    return batch


def running(runner: asyncio.Runner, batch: Callable[[int], Coroutine[Any, Any, None]]) -> Batch:
    """A batch that needs an event loop, in one that all batches share."""
    return lambda count: runner.run(batch(count))
