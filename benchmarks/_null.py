"""A network that answers at once: what remains is the cost of the layers above it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx


class NullStream(httpx.AsyncByteStream, httpx.SyncByteStream):
    """A body that is read like one from a socket: chunk by chunk, then closed."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"{}"

    def __iter__(self) -> Iterator[bytes]:
        yield b"{}"


class NullTransport(httpx.AsyncBaseTransport):
    """Answers 200 with a short body."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=NullStream())


class BlockingNullTransport(httpx.BaseTransport):
    """The same for a blocking client."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=NullStream())


class Nested(httpx.AsyncBaseTransport):
    """The least that a layer can be: the unit that other layers are measured in."""

    def __init__(self, below: httpx.AsyncBaseTransport) -> None:
        self._below = below

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._below.handle_async_request(request)
