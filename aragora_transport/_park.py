"""Bodies that we read before, or instead of, the caller: and give back as if nobody had.

A failed answer is drained and closed before the wait that follows it, so that its connection can be used
again; a small body is read to judge an answer whose status does not tell.
"""

from __future__ import annotations

import asyncio
import functools
import zlib
from typing import TYPE_CHECKING, Any

from aragora_transport._body import finish
from aragora_transport._timeouts import put_back, with_read

if TYPE_CHECKING:
    from collections.abc import Callable

    from aragora_transport._call import Call
    from aragora_transport._flavor import Flavor

SMALL = 65_536  # bytes
_PIECE = 128  # bytes of a compressed body that are unpacked at once
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32  # by its header
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

    async def read(self, limit: int, out_of_time: Callable[[], bool] | None = None) -> None:
        """Read on until the end, until more than `limit` bytes are held, or until the time is over."""
        if self._rest is None:
            self._rest = iter(self.inner) if self.blocking else aiter(self.inner)
        while self.size <= limit and (out_of_time is None or not out_of_time()):
            try:
                chunk = next(self._rest) if self.blocking else await anext(self._rest)
            except (StopIteration, StopAsyncIteration):
                self.complete = True
                return
            self.chunks.append(chunk)
            self.size += len(chunk)

    def lose(self, error: Exception) -> None:
        """The rest will not come: reading ends in `error`, after what was read."""
        # As the caller's own reading would have raised it, and not: from within our frames, which
        # refer to this reader and would keep it alive with the error.
        error.__traceback__ = error.__cause__ = error.__context__ = None
        self.error = error

    def _raise_lost(self) -> None:
        if self.error is None:
            return
        error, self.error, self._rest = self.error, None, None
        try:
            raise error
        finally:
            del error


class _AsyncReader(_Reader):
    async def __aiter__(self) -> Any:
        for chunk in self.chunks:
            yield chunk
        self._raise_lost()
        if not self.complete and self._rest is not None:
            async for chunk in self._rest:
                yield chunk

    async def aclose(self) -> None:
        await self.inner.aclose()
        await finish(self._rest)


class _BlockingReader(_Reader):
    def __iter__(self) -> Any:
        yield from self.chunks
        self._raise_lost()
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
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        await response.stream.aclose()
    else:
        # httpx's httpcore loses a connection for good when a task is cancelled just as it closes an answer.
        await asyncio.shield(asyncio.ensure_future(response.stream.aclose()))


async def begins(response: Any, beginnings: tuple[bytes, ...], call: Call, flavor: Flavor) -> bool:
    """Whether the decoded body begins with one of these, as far as its first chunk tells."""
    reader = response.stream = _reader(response, call, flavor)
    await _read_in_time(reader, 0, call, flavor)
    start = b"".join(reader.chunks)
    if "content-encoding" in response.headers:
        try:
            start = zlib.decompressobj(_GZIP_OR_ZLIB).decompress(start, max(map(len, beginnings)))
        except zlib.error:  # brotli or zstandard, or broken
            return False
    return start.startswith(beginnings)


async def read_small(response: Any, call: Call, flavor: Flavor) -> bytes | None:
    """The decoded body if it has at most 64 KiB, else `None`; the caller reads it again as usual."""
    reader = response.stream
    if not isinstance(reader, _Reader):
        reader = response.stream = _reader(response, call, flavor)
    await _read_in_time(reader, SMALL, call, flavor)
    if not reader.complete:
        return None
    raw = b"".join(reader.chunks)
    if "content-encoding" not in response.headers:
        return raw
    return _decoded(raw, response.headers, flavor)


def _decoded(raw: bytes, headers: Any, flavor: Flavor) -> bytes | None:
    """The body as its headers say that it is compressed, if it has at most 64 KiB then.

    A little after the other, since a small body may unfold to gigabytes.
    """
    pieces = (raw[at : at + _PIECE] for at in range(0, len(raw), _PIECE))
    content = b""
    try:
        for chunk in flavor.module.Response(200, headers=headers, content=pieces).iter_bytes():
            content += chunk
            if len(content) > SMALL:
                return None
    except flavor.module.DecodingError:
        return None  # the caller will meet it, where it belongs
    return content


async def _read_in_time(reader: _Reader, limit: int, call: Call, flavor: Flavor) -> None:
    """Read on, for as long as a body may be silent; a thread is bounded by httpx's read timeout alone."""
    if call.blocking or call.idle is None:
        await reader.read(limit)
        return
    alarm = call.alarms.start(call.clock.monotonic() + call.idle)
    try:
        await reader.read(limit)
    except BaseException as error:
        if alarm.stop(error):
            raise call.too_late(flavor, "body_idle", call.idle) from None
        raise
    alarm.stop()


async def park(response: Any, request: Any, call: Call, flavor: Flavor) -> None:
    """Drain a failed answer, at most 64 KiB and for at most a second, and close it.

    Its body can be read afterwards all the same; where not all of it was drained, reading it ends in
    the flavour's `ReadError` after what was.
    """
    reader = _reader(response, call, flavor)
    response.stream = reader
    try:
        now = call.clock.monotonic()
        brief = BRIEFLY
        if call.deadline is not None:
            # Time must remain to return this answer; of a thread's reads the last one may last as long again.
            brief = min(brief, (call.deadline - now) / 3.0)
        if call.blocking:
            await _read_blocking(reader, request, call, brief)
        else:
            alarm = call.alarms.start(now + brief)
            try:
                await reader.read(SMALL)
            except BaseException as error:
                if not alarm.stop(error):
                    raise
            else:
                alarm.stop()
    except Exception as error:  # noqa: BLE001  # whatever it is, it is for whoever reads this body
        reader.lose(error)
    finally:
        try:
            await close(response, call)  # the reader is its stream by now
        except Exception:  # noqa: BLE001, S110  # a connection that cannot be closed in order is gone anyway
            pass
    if not reader.complete and reader.error is None:
        answer = f"this {response.status_code} answer"
        dropped = f"the rest of {answer} was dropped to free its connection for a retry"
        reader.lose(flavor.module.ReadError(dropped, request=request))


async def _read_blocking(reader: Any, request: Any, call: Call, brief: float) -> None:
    due = call.clock.monotonic() + brief
    timeouts = request.extensions.get("timeout")
    request.extensions["timeout"] = with_read(timeouts, brief) or timeouts  # for each read of the socket
    try:
        await reader.read(SMALL, lambda: call.clock.monotonic() >= due)
    finally:
        put_back(request.extensions, timeouts)
