"""Bodies that we read before, or instead of, the caller: and give back as if nobody had.

A failed answer is drained and closed before the wait that follows it, so that its connection can be used
again; a small body is read to judge an answer whose status does not tell.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aragora_transport._call import Call
    from aragora_transport._flavor import Flavor

SMALL = 65_536  # bytes
BRIEFLY = 1.0  # seconds that draining a failed answer may take: its body may stall as well


class _Reader:
    """What was read of a stream so far, and the rest of it; a stream again for the caller."""

    def __init__(self, inner: Any, blocking: bool) -> None:
        self.inner = inner
        self.blocking = blocking
        self.chunks: list[bytes] = []
        self.size = 0
        self.complete = False
        self.error: Exception | None = None
        self._rest: Any = None

    async def read(self, limit: int) -> None:
        """Read on until the end or until more than `limit` bytes are held."""
        if self._rest is None:
            self._rest = iter(self.inner) if self.blocking else aiter(self.inner)
        while self.size <= limit:
            try:
                chunk = next(self._rest) if self.blocking else await anext(self._rest)
            except (StopIteration, StopAsyncIteration):
                self.complete = True
                return
            self.chunks.append(chunk)
            self.size += len(chunk)


class _AsyncReader(_Reader):
    async def __aiter__(self) -> Any:
        for chunk in self.chunks:
            yield chunk
        if self.error is not None:
            raise self.error
        if not self.complete and self._rest is not None:
            async for chunk in self._rest:
                yield chunk

    async def aclose(self) -> None:
        await self.inner.aclose()


class _BlockingReader(_Reader):
    def __iter__(self) -> Any:
        yield from self.chunks
        if self.error is not None:
            raise self.error
        if not self.complete and self._rest is not None:
            yield from self._rest

    def close(self) -> None:
        self.inner.close()


@functools.cache
def _reader_class(flavor: Flavor, blocking: bool) -> type[Any]:
    base = flavor.module.SyncByteStream if blocking else flavor.module.AsyncByteStream
    return type("Reader", (_BlockingReader if blocking else _AsyncReader, base), {})


def _reader(response: Any, call: Call, flavor: Flavor) -> Any:
    return _reader_class(flavor, call.blocking)(response.stream, call.blocking)


async def close(response: Any, call: Call) -> None:
    """Close a response's stream, whichever kind of client it belongs to."""
    if call.blocking:
        response.stream.close()
    else:
        await response.stream.aclose()


async def read_small(response: Any, call: Call, flavor: Flavor) -> bytes | None:
    """The decoded body if it has at most 64 KiB, else `None`; the caller reads it again as usual."""
    reader = _reader(response, call, flavor)
    response.stream = reader
    await reader.read(SMALL)
    if not reader.complete:
        return None
    raw = b"".join(reader.chunks)
    if "content-encoding" not in response.headers:
        return raw
    try:
        content: bytes = flavor.module.Response(200, headers=response.headers, content=raw).content
    except flavor.module.DecodingError:
        return None  # the caller will meet it, where it belongs
    return content if len(content) <= SMALL else None


async def park(response: Any, request: Any, call: Call, flavor: Flavor) -> None:
    """Drain a failed answer, at most 64 KiB and for at most a second, and close it.

    Its body can be read afterwards all the same; where not all of it was drained, reading it ends in
    the flavour's `ReadError` after what was.
    """
    reader = _reader(response, call, flavor)
    response.stream = reader
    try:
        if call.blocking:
            await _read_blocking(reader, request)
        else:
            alarm = call.alarms.start(call.clock.monotonic() + BRIEFLY)
            try:
                await reader.read(SMALL)
            except BaseException as error:
                if not alarm.stop(error):
                    raise
            else:
                alarm.stop()
    except flavor.TransportError as error:
        reader.error = error
    finally:
        try:
            await close(response, call)
        except flavor.TransportError:
            pass  # a connection that cannot even be closed in order is gone anyway
    if not reader.complete and reader.error is None:
        reader.error = flavor.module.ReadError(
            f"the rest of this {response.status_code} answer was dropped to free its connection for a retry",
            request=request,
        )


async def _read_blocking(reader: Any, request: Any) -> None:
    timeouts = request.extensions.get("timeout")
    # A thread can only be bounded by httpx's own read timeout, for each read of the socket.
    request.extensions["timeout"] = {**(timeouts or {}), "read": BRIEFLY}
    try:
        await reader.read(SMALL)
    finally:
        if timeouts is None:
            del request.extensions["timeout"]
        else:
            request.extensions["timeout"] = timeouts
