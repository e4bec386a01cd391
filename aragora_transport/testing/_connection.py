"""One client's connection to a `FaultServer`: requests are read from it, bytes are sent over it.

The sockets are driven directly, not by asyncio's streams: a stream reads ahead, and then nothing can be left
unread, nor the exact byte be chosen at which reading stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

if TYPE_CHECKING:
    from _hashlib import HASH

_RECEIVE_BYTES = 64 * 1024
_MAX_LINE_BYTES = 256 * 1024


class BadRequestError(Exception):
    """The client sent something that is not an HTTP/1.1 request."""


@dataclass(kw_only=True, eq=False)
class ReceivedRequest:
    """One request as a `FaultServer` got it; the server goes on filling it in until `finished`."""

    method: str
    target: str
    """As sent: `/path?query`, or a whole URL from a client that takes the server for a proxy."""
    headers: httpx.Headers
    connection: int
    """The number of the TCP connection that it came over; the server's first is 1."""
    arrived: float
    """`time.monotonic()` when its headers had been read."""
    keep_body: int
    """The size in bytes up to which the body is kept."""

    body_size: int = 0
    """Bytes of the body read so far."""
    complete: bool = False
    """The whole body was read."""
    finished: bool = False
    """The server is done with it: answered, or given up."""
    client_closed_early: bool = False
    """The client went away before the server had read the request and sent all that it wanted to send."""

    _kept: bytearray = field(default_factory=bytearray, repr=False)
    _hash: HASH = field(default_factory=hashlib.sha256, repr=False)

    @property
    def path(self) -> str:
        """The path alone, for either form of the target."""
        return self._split_target()[0]

    @property
    def query(self) -> str:
        """What follows the `?`, without it."""
        return self._split_target()[1]

    @property
    def body(self) -> bytes:
        """What was read of the body; ValueError when it was longer than `keep_body`."""
        if self.body_size > self.keep_body:
            raise ValueError(
                f"a body of {self.body_size} bytes was not kept, longer than keep_body={self.keep_body}; "
                "body_size and body_sha256 tell of it"
            )
        return bytes(self._kept)

    @property
    def body_sha256(self) -> str:
        """SHA-256 in hex of what was read of the body, however long."""
        return self._hash.hexdigest()

    def feed(self, piece: bytes) -> None:
        """Add the next piece of the body; called by the server."""
        self.body_size += len(piece)
        self._hash.update(piece)
        if self.body_size > self.keep_body:
            self._kept.clear()
        else:
            self._kept += piece

    def _split_target(self) -> tuple[str, str]:
        if self.target.startswith("/"):  # urlsplit would take `//x` for a host
            path, _, query = self.target.partition("?")
            return path, query
        url = urlsplit(self.target)
        return url.path, url.query


class Connection:
    """A non-blocking socket to one client; what waits raises ConnectionError when the client goes away."""

    def __init__(self, sock: socket.socket, *, number: int, loop: asyncio.AbstractEventLoop) -> None:
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._number = number
        self._loop = loop
        self._buffer = bytearray()

    async def readable(self) -> bool:
        """Wait for bytes from the client without taking them; False if it closes in good order instead."""
        if self._buffer:
            return True
        ready = asyncio.Event()
        self._loop.add_reader(self._sock, ready.set)
        try:
            await ready.wait()
        finally:
            self._loop.remove_reader(self._sock)
        return bool(self._sock.recv(1, socket.MSG_PEEK))

    async def pause(self, seconds: float | None) -> None:
        """Wait, for ever if None, but no longer than the client stays."""
        if seconds == 0:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                if await self.readable():
                    # Bytes that nobody asked for yet hide whether the client closes behind them.
                    await self._loop.create_future()
                raise ConnectionAbortedError

    async def read_head(self, *, keep_body: int) -> ReceivedRequest:
        """Read a request up to its body."""
        head = await self._read_until(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        match first.split(b" "):
            case [method, target, b"HTTP/1.1" | b"HTTP/1.0"]:
                pass
            case _:
                raise BadRequestError(f"not an HTTP/1.1 request: {first!r}")
        pairs = (line.partition(b":") for line in lines)
        return ReceivedRequest(
            method=method.decode("latin-1"),
            target=target.decode("latin-1"),
            headers=httpx.Headers([(name, value.strip()) for name, _, value in pairs]),
            connection=self._number,
            arrived=time.monotonic(),
            keep_body=keep_body,
        )

    async def read_body(self, headers: httpx.Headers, feed: Callable[[bytes], None], *, at_most: int) -> bool:
        """Feed the body piece by piece, up to the given number of bytes; True when that was all of it."""
        if "transfer-encoding" not in headers:
            length = _length(headers.get("content-length", "0"), base=10)
            await self._take(min(length, at_most), feed)
            return length <= at_most
        while at_most > 0:
            size = _length((await self._read_until(b"\r\n")).partition(b";")[0], base=16)
            if size == 0:
                while await self._read_until(b"\r\n"):
                    pass  # trailers
                return True
            await self._take(min(size, at_most), feed)
            at_most -= size
            if at_most > 0:
                await self._read_until(b"\r\n")
        return False

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        await self._loop.sock_sendall(self._sock, data)

    def reset(self) -> None:
        """Close with a TCP reset."""
        # Lingering for no time at all makes the kernel drop what is unsent and send RST in place of FIN.
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Close; with a FIN, unless bytes of the client's lie unread."""
        self._sock.close()

    async def _take(self, size: int, feed: Callable[[bytes], None]) -> None:
        while size > 0:
            if not self._buffer:
                await self._receive()
            piece = bytes(self._buffer[:size])
            del self._buffer[:size]
            feed(piece)
            size -= len(piece)

    async def _read_until(self, end: bytes) -> bytes:
        while (at := self._buffer.find(end)) < 0:
            if len(self._buffer) > _MAX_LINE_BYTES:
                raise BadRequestError(f"no end of the headers or chunk size within {_MAX_LINE_BYTES} bytes")
            await self._receive()
        found = bytes(self._buffer[:at])
        del self._buffer[: at + len(end)]
        return found

    async def _receive(self) -> None:
        await asyncio.sleep(0)  # an upload that never pauses would keep the loop from everything else
        data = await self._loop.sock_recv(self._sock, _RECEIVE_BYTES)
        if not data:
            raise ConnectionAbortedError
        self._buffer += data


def _length(text: str | bytes, *, base: int) -> int:
    try:
        return int(text, base)
    except ValueError as error:
        raise BadRequestError(f"the length of a body cannot be {text!r}") from error
