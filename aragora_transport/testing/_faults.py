"""What a `FaultServer` does with a request: right answers, and the ways in which servers go wrong.

An `Answer` is HTTP, framed for the caller. A `Wire` is bytes as they are and an ending, so that a fault is a
value and the server needs no code for it; the functions here make the common ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from aragora_transport.testing._connection import ReceivedRequest

_Headers: TypeAlias = "Mapping[str, str | bytes] | Sequence[tuple[str, str | bytes]]"

_MISSING_BYTES = 1024
"""How much more body the faults announce than they send, where the caller has no say in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wire:
    """Bytes sent as they are, with waits, and the way in which the exchange ends."""

    pieces: tuple[bytes, ...] = ()
    delay: float = 0.0
    """Seconds before the first piece."""
    interval: float = 0.0
    """Seconds before each further piece."""
    end: Literal["keep", "close", "reset", "stall"] = "close"
    """`keep` waits for the next request, `stall` says nothing more until the client goes away."""
    reads: int | Literal["all", "nothing"] = "all"
    """What is read of the request before the delay: its headers and so many bytes of its body."""

    def __post_init__(self) -> None:
        _check_seconds(self)
        if self.end not in {"keep", "close", "reset", "stall"}:
            raise ValueError(f"Wire(end={self.end!r}): end must be keep, close, reset or stall")
        if isinstance(self.reads, int) and self.reads < 0:
            raise ValueError(f"Wire(reads={self.reads!r}): reads must be all, nothing, or at least 0 bytes")
        if self.end == "keep" and self.reads != "all":
            raise ValueError(
                f"Wire(reads={self.reads!r}): reads must be all for end='keep', the next request lies behind"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """An HTTP/1.1 response with its framing; HEAD, 204 and 304 get no body."""

    status: int = 200
    headers: _Headers = ()
    """A mapping, or pairs where a name comes twice; str is sent as UTF-8, bytes as they are."""
    body: bytes | tuple[bytes, ...] = b""
    """A tuple is sent as chunks. With a Content-Length or Transfer-Encoding among `headers` the body goes out
    as it is."""
    delay: float = 0.0
    """Seconds before the status line."""
    interval: float = 0.0
    """Seconds before each chunk."""
    close: bool = False
    """Say `Connection: close` and do so; otherwise the connection stays open for the next request."""

    def __post_init__(self) -> None:
        if not 200 <= self.status <= 999:
            raise ValueError(f"Answer(status={self.status!r}): status must be a final one, 200 to 999")
        _check_seconds(self)

    @classmethod
    def json(cls, data: object, *, status: int = 200, headers: _Headers = (), delay: float = 0.0) -> Answer:
        """Answer with JSON and its `Content-Type`."""
        pairs = [("Content-Type", "application/json"), *_pairs(headers)]
        return cls(status=status, headers=pairs, body=json.dumps(data).encode(), delay=delay)

    def wire(self, method: str) -> Wire:
        """Return what is sent in answer to a request of this method."""
        headers = _pairs(self.headers)
        chunks = (self.body,) if isinstance(self.body, bytes) else self.body
        names = {name.lower() for name, _ in headers}
        if self.status != HTTPStatus.NO_CONTENT and names.isdisjoint({"content-length", "transfer-encoding"}):
            if isinstance(self.body, bytes):
                headers.append(("Content-Length", str(len(self.body))))
            else:
                headers.append(("Transfer-Encoding", "chunked"))
                coded = [_chunk(data) for data in self.body if data]  # an empty chunk would end the body
                chunks = (*coded[:-1], b"".join(coded[-1:]) + b"0\r\n\r\n")
        if self.close:
            headers.append(("Connection", "close"))
        head = _head(self.status, headers)
        if method == "HEAD" or self.status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
            chunks = ()
        return Wire(
            pieces=(head, *chunks) if self.interval else (head + b"".join(chunks),),
            delay=self.delay,
            interval=self.interval,
            end="close" if self.close else "keep",
        )


Step: TypeAlias = "int | Answer | Wire | Callable[[ReceivedRequest], Step]"
"""An int is an `Answer` with that status and no body. A callable is asked once the request has been read, so
it is too late for it to say what is read; and it must not block, since the server has one thread."""


def as_step(step: Step) -> Answer | Wire | Callable[[ReceivedRequest], Step]:
    """Return the step, a status as an `Answer`; TypeError for what is no step."""
    if isinstance(step, int):
        return Answer(status=step)
    if isinstance(step, Answer | Wire) or callable(step):
        return step
    raise TypeError(
        f"{step!r} is no step: expected a status, an Answer, a Wire or a function that returns one"
    )


def echo(request: ReceivedRequest) -> Answer:
    """Answer with the body and the `Content-Type` of the request; a step as it stands."""
    content_type = request.headers.get("content-type", "application/octet-stream")
    return Answer(headers={"Content-Type": content_type}, body=request.body)


def server_sent_events(*events: str, interval: float = 0.0) -> Answer:
    """Answer with a `text/event-stream` of these data, `interval` seconds before each, and its end."""
    blocks = ("".join(f"data: {line}\n" for line in event.split("\n")) + "\n" for event in events)
    return Answer(
        headers={"Content-Type": "text/event-stream"},
        body=tuple(block.encode() for block in blocks),
        interval=interval,
    )


def close_without_reading() -> Wire:
    """Close as soon as a request begins to come in, with all of it unread; it is not recorded.

    The kernel turns this into a reset. A client that is still writing may see it as a disconnection.
    """
    return Wire(reads="nothing")


def reset_while_reading_request(*, after_bytes: int = 0) -> Wire:
    """Read the headers and so many bytes of the body, then reset the connection.

    A client that has written everything by then sees a reset, one that still writes may see a disconnection.
    """
    return Wire(reads=after_bytes, end="reset")


def stall_while_reading_request(*, after_bytes: int = 0) -> Wire:
    """Read the headers and so many bytes of the body, then neither read nor answer.

    A client notices only when its upload fills the buffers of both kernels, several MB. That the client went
    away shows only behind the unread bytes, so such a request may stay unfinished until the server closes.
    """
    return Wire(reads=after_bytes, end="stall")


def stalled_headers() -> Wire:
    """Read the request and never answer."""
    return Wire(end="stall")


def close_before_headers() -> Wire:
    """Read the request and close in good order, without an answer."""
    return Wire(end="close")


def reset_before_headers() -> Wire:
    """Read the request and reset the connection, without an answer."""
    return Wire(end="reset")


def half_headers(*, stall: bool = False) -> Wire:
    """Break off in the middle of a header, then close, or say nothing more."""
    return Wire(pieces=(b"HTTP/1.1 200 OK\r\nContent-Le",), end="stall" if stall else "close")


def garbage(*, data: bytes = b"\x16\x03\x01 this is no HTTP\r\n\r\n") -> Wire:
    """Send bytes that are no HTTP, then close."""
    return Wire(pieces=(data,))


def reset_after_headers(*, status: int = 200, body: bytes = b"") -> Wire:
    """Send headers that announce a longer body than this one, send this one, reset the connection."""
    return Wire(pieces=(_announcing(status, len(body) + _MISSING_BYTES) + body,), end="reset")


def wrong_length(*, status: int = 200, body: bytes = b"short", missing: int = 10) -> Wire:
    """Announce a `Content-Length` that is `missing` bytes longer than the body, then close."""
    return Wire(pieces=(_announcing(status, len(body) + missing) + body,))


def truncated_body(*, status: int = 200, body: bytes = b"the beginning") -> Wire:
    """Send a chunked body and close without its end."""
    return Wire(pieces=(_head(status, [("Transfer-Encoding", "chunked")]) + _chunk(body),))


def stalled_body(*, status: int = 200, body: bytes = b"the beginning") -> Wire:
    """Send the headers and the beginning of the body, then nothing more."""
    return Wire(pieces=(_announcing(status, len(body) + _MISSING_BYTES) + body,), end="stall")


def drip(
    *, status: int = 200, body: bytes = b"drip, drip, drip", interval: float = 1.0, headers_too: bool = False
) -> Wire:
    """Send a whole answer at one byte per `interval` seconds: its body, or all of it."""
    head = _announcing(status, len(body))
    at_once, slowly = (b"", head + body) if headers_too else (head, body)
    drops = (slowly[at : at + 1] for at in range(len(slowly)))
    return Wire(pieces=(at_once, *drops), interval=interval, end="keep")


def _check_seconds(value: Wire | Answer) -> None:
    for name, seconds in (("delay", value.delay), ("interval", value.interval)):
        if not 0 <= seconds < math.inf:
            kind = type(value).__name__
            raise ValueError(
                f"{kind}({name}={seconds!r}): {name} must be a finite number of seconds, at least 0"
            )


def _pairs(headers: _Headers) -> list[tuple[str, str | bytes]]:
    return list(headers.items() if isinstance(headers, Mapping) else headers)


def _head(status: int, headers: Sequence[tuple[str, str | bytes]]) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:  # no standard status, yet a valid one
        phrase = ""
    lines = [f"HTTP/1.1 {status} {phrase}".encode()]
    for name, value in headers:
        lines.append(name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()))
    return b"\r\n".join([*lines, b"", b""])


def _announcing(status: int, length: int) -> bytes:
    return _head(status, [("Content-Length", str(length))])


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
