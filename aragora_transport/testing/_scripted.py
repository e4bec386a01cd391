"""A network that does as it is told, and remembers what was asked of it."""

from __future__ import annotations

import math
import reprlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import httpx

from aragora_transport._call import CALL
from aragora_transport._clock import SYSTEM
from aragora_transport._drive import drive
from aragora_transport._flavor import FlavorName, flavor

if TYPE_CHECKING:
    from aragora_transport._clock import Clock


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """One scripted answer.

    `after`: seconds before the headers (default 0). `body`: its bytes, or several chunks.
    `between`: seconds before each chunk (default 0). `then`: an error that ends the body in place of its
    end. `stall`: after the chunks nothing more comes, ever.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes | tuple[bytes, ...] = b""
    after: float = 0.0
    between: float = 0.0
    then: Exception | type[Exception] | None = None
    stall: bool = False

    def __post_init__(self) -> None:
        if type(self.status) is not int or not 100 <= self.status <= 999:
            raise ValueError(f"Reply(status={self.status!r}): status must be a whole number from 100 to 999")
        for name in ("after", "between"):
            seconds: Any = getattr(self, name)
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
                raise ValueError(f"Reply({name}={seconds!r}): {name} must be seconds of at least 0")
        chunks: Any = self.body if isinstance(self.body, tuple) else (self.body,)
        if not all(isinstance(chunk, bytes) for chunk in chunks):
            raise ValueError(
                f"Reply(body={reprlib.repr(self.body)}): body must be bytes, or a tuple of bytes"
            )

    @property
    def chunks(self) -> tuple[bytes, ...]:
        if isinstance(self.body, bytes):
            return (self.body,) if self.body else ()
        return self.body


@dataclass(frozen=True, kw_only=True, slots=True)
class Hang:
    """No answer, ever: only a timeout or a cancellation ends it."""


Step = int | Reply | Hang | Exception | type[Exception] | Callable[[Any], Any]


@dataclass(kw_only=True, slots=True)
class Sent:
    """One attempt as the scripted network saw it.

    `body`: the bytes that were sent. `at`: the clock's time when it came. `status`: of the answer.
    `closed`: whether the answer's body was closed; `consumed`: whether it was read to its end.
    """

    method: str
    url: str
    headers: Any
    extensions: dict[str, Any]
    at: float
    body: bytes = b""
    status: int | None = None
    closed: bool = False
    consumed: bool = False


class ScriptedTransport(httpx.AsyncBaseTransport, httpx.BaseTransport):
    """Answers attempts by a script: `ScriptedTransport(503, 503, Reply(after=2.0))`.

    A step is a status, a `Reply`, an error to raise (a class of the flavour's is made with a message and
    the request), `Hang()`, or a callable of the request that returns one of these. The last step is
    repeated for ever. For async and blocking clients alike. `sent` lists every attempt.

    `clock`: whose time the replies take (default the system's). `flavor`: "httpx" or "httpx2".
    """

    def __init__(self, *steps: Step, clock: Clock = SYSTEM, flavor: FlavorName = "httpx") -> None:
        if not steps:
            raise ValueError("ScriptedTransport() needs at least one step, such as 200")
        for step in steps:
            _check(step)
        self.flavor = _flavor(flavor)
        self.sent: list[Sent] = []
        self.opened = 0  # how often it was entered, and closed
        self.closed = 0
        self._steps = list(steps)
        self._lock = threading.Lock()
        self._clock = clock

    @property
    def open_responses(self) -> int:
        """Answers whose body nobody has closed yet: each would hold a connection of a real pool."""
        return sum(1 for sent in self.sent if sent.status is not None and not sent.closed)

    async def handle_async_request(self, request: Any) -> Any:
        call = request.extensions.get(CALL)
        if call is not None and call.blocking:
            return self.handle_request(request)  # beneath layers that a blocking client drives
        sent = self._record(request)
        sent.body = b"".join([chunk async for chunk in request.stream])
        return await self._answer(request, sent, blocking=False)

    def handle_request(self, request: Any) -> Any:
        sent = self._record(request)
        sent.body = b"".join(request.stream)
        return drive(self._answer(request, sent, blocking=True))

    def _record(self, request: Any) -> Sent:
        sent = Sent(
            method=request.method,
            url=str(request.url),
            headers=request.headers.copy(),  # an auth flow changes them for its next send
            extensions=dict(request.extensions),
            at=self._clock.monotonic(),
        )
        self.sent.append(sent)
        return sent

    async def _answer(self, request: Any, sent: Sent, *, blocking: bool) -> Any:
        with self._lock:
            step: Any = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        if not isinstance(step, type) and callable(step):
            step = step(request)
            _check(step)
        if isinstance(step, int):
            step = Reply(status=step)
        if isinstance(step, Hang | Reply):
            after = math.inf if isinstance(step, Hang) else step.after
            await self.pause(after, read_timeout(request), request, blocking=blocking)
        if not isinstance(step, Reply):
            raise _error(step, request)
        sent.status = step.status
        base = self.flavor.module.SyncByteStream if blocking else self.flavor.module.AsyncByteStream
        ours = _BlockingStream if blocking else _AsyncStream
        stream = type("ScriptedStream", (ours, base), {})(step, request, sent, self)
        return self.flavor.module.Response(step.status, headers=dict(step.headers), stream=stream)

    async def pause(self, seconds: float, read: float | None, request: Any, *, blocking: bool) -> None:
        """Keep the client waiting, as long as its own read timeout allows."""
        if not await pause(self._clock, seconds, read, blocking=blocking):
            raise self.flavor.module.ReadTimeout("scripted", request=request)

    async def __aenter__(self) -> Self:
        self.opened += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closed += 1

    def __enter__(self) -> Self:
        self.opened += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1

    def close(self) -> None:
        self.closed += 1


_flavor = flavor  # the parameter of the same name hides it


class _Stream:
    def __init__(self, reply: Reply, request: Any, sent: Sent, network: ScriptedTransport) -> None:
        self.reply = reply
        self.request = request
        self.sent = sent
        self.network = network

    def parts(self) -> Iterator[float | bytes]:
        """The body as seconds to wait and chunks to give."""
        for chunk in self.reply.chunks:
            yield self.reply.between
            yield chunk
        if self.reply.stall:
            yield math.inf
        if self.reply.then is not None:
            raise _error(self.reply.then, self.request)
        self.sent.consumed = True


class _AsyncStream(_Stream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = read_timeout(self.request)
        for part in self.parts():
            if isinstance(part, bytes):
                yield part
            else:
                await self.network.pause(part, read, self.request, blocking=False)

    async def aclose(self) -> None:
        self.sent.closed = True


class _BlockingStream(_Stream):
    def __iter__(self) -> Iterator[bytes]:
        read = read_timeout(self.request)
        for part in self.parts():
            if isinstance(part, bytes):
                yield part
            else:
                drive(self.network.pause(part, read, self.request, blocking=True))

    def close(self) -> None:
        self.sent.closed = True


async def pause(clock: Clock, seconds: float, read: float | None, *, blocking: bool) -> bool:
    """Sleep for `seconds`, or for `read` where that is less: false then."""
    in_time = read is None or seconds <= read
    for_long = seconds if in_time or read is None else read
    if for_long > 0:
        await clock.sleep(for_long, blocking=blocking)
    return in_time


def read_timeout(request: Any) -> float | None:
    """As httpcore does: looked up when headers are waited for, and once more when the body begins."""
    timeouts: dict[str, float | None] = request.extensions.get("timeout") or {}
    return timeouts.get("read")


def _error(error: Any, request: Any) -> Exception:
    if isinstance(error, Exception):
        return error.with_traceback(None)  # raised again and again it would grow with each time
    try:
        made: Exception = error("scripted", request=request)
    except TypeError:
        made = error("scripted")
    return made


def _check(step: object) -> None:
    if isinstance(step, int) and not isinstance(step, bool) and 100 <= step <= 599:  # statuses
        return
    if isinstance(step, Reply | Hang | Exception) or (isinstance(step, type) and issubclass(step, Exception)):
        return
    if not isinstance(step, type) and callable(step):
        return
    raise TypeError(
        f"{reprlib.repr(step)} is no step of a script: use a status from 100 to 599, Reply(...), Hang(), an "
        "error, or a callable of the request that returns one of these"
    )
