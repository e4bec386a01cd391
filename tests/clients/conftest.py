"""What the tests with real clients share: no proxies from outside, and a look into httpcore's pools."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

import anyio.lowlevel
import anyio.to_thread
import pytest


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers are on loopback; some clients here cannot be told trust_env=False."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest, anyio_backend: str) -> str:
    """Trio for a client of that `kind`; a blocking one blocks asyncio's loop."""
    trio = "kind" in request.fixturenames and request.getfixturevalue("kind") == "trio"
    return "trio" if trio else anyio_backend


class Tools:
    """What a test with a real client on a real socket asks for."""

    @staticmethod
    async def result(value: Any) -> Any:
        """What a call of an SDK returned: itself from a blocking one, else what the coroutine returns."""
        return await value if inspect.isawaitable(value) else value

    @staticmethod
    async def items(stream: Any) -> list[Any]:
        """All of an SDK's stream."""
        return [item async for item in stream] if hasattr(stream, "__aiter__") else list(stream)

    @staticmethod
    def taken(transport: Any) -> list[Any]:
        """The requests and connections that hold or wait for a place in a real transport's pool."""
        pool = transport._pool
        busy = [one for one in pool.connections if not (one.is_idle() or one.is_closed())]
        return [*pool._requests, *busy]

    @staticmethod
    async def until(condition: Callable[[], bool]) -> None:
        """Let the other tasks run until the condition holds."""
        with anyio.fail_after(10):
            while not condition():
                await anyio.lowlevel.checkpoint()

    @staticmethod
    async def arrived(server: Any, count: int) -> None:
        """Wait, without holding up the event loop, until the server has so many requests."""
        await anyio.to_thread.run_sync(server.wait_for_requests, count)


@pytest.fixture
def tools() -> type[Tools]:
    return Tools
