"""Where calls begin: the transport that makes the call object, and leaves it as record on the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from aragora_transport._alarm import Alarms
from aragora_transport._body import body_class
from aragora_transport._call import CALL, Call
from aragora_transport._clock import SYSTEM
from aragora_transport._flavor import flavor_of
from aragora_transport._options import RECORD, operation_of

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import TracebackType
    from typing import Self

    from aragora_transport._call import Handler
    from aragora_transport._clock import Clock
    from aragora_transport.events import Observers


class CallScope(httpx.AsyncBaseTransport):
    """The transport where calls begin: makes the call object, and leaves it as record on the answer.

    A whole stack is one (see `stack`); a layer used alone gets one around it by itself.
    """

    def __init__(
        self,
        top: Any,
        *,
        platform: str,
        handle: Handler | None = None,
        clock: Clock = SYSTEM,
        alarms: Alarms | None = None,
        observers: tuple[Observers, ...] = (),
        detailed: bool = False,
    ) -> None:
        self.top = top
        self._handle = handle or self._into_top
        self.platform = platform
        self.clock = clock
        self.alarms = alarms or Alarms(clock)
        self.blocking = False
        self._manual = clock.manual
        self.flavor = flavor_of(top)
        self.observers = observers
        self.detailed = detailed  # whether they want to know of every attempt, not just of those that fail
        self._body = body_class(self.flavor, blocking=False)

    def block(self) -> None:
        """Serve a blocking client from now on; see `sync`."""
        self.blocking = True
        self._body = body_class(self.flavor, blocking=True)

    async def handle_async_request(self, request: Any) -> Any:
        extensions: dict[str, Any] = request.extensions
        options = extensions.get(RECORD)
        if options is None:
            call = Call(self, request.method)
        else:
            call = Call(self, operation_of(request, options))
            call.options = options
            if options.begun is not None:
                options.begun(call)
        extensions[CALL] = call
        try:
            response = await (self._timed if self._manual else self._handle)(request, call)
            call.ended = self.clock.monotonic()  # until the body ends
        except BaseException as error:
            call.ended = self.clock.monotonic()
            call.error = type(error).__name__
            if self.detailed:
                call.finished(error, complete=False)
            raise
        finally:
            # A redirect copies the extensions and an auth flow sends the same request again: both are
            # calls of their own.
            del extensions[CALL]
        call.status = response.status_code
        response.extensions[RECORD] = call
        if self.detailed:
            call.hooks.append(Call.finished)
        if response.is_closed:
            call.body_ended(None, True)  # made with its content, as mock transports do: no stream is read
        elif self.blocking:
            response.stream = self._body(response.stream, call, extensions)
        else:
            body = self._body()
            body.inner = response.stream
            body.call = call
            response.stream = body
        return response

    def _into_top(self, request: Any, _: Call) -> Awaitable[Any]:
        answer: Awaitable[Any] = self.top.handle_async_request(request)
        return answer

    async def _timed(self, request: Any, call: Call) -> Any:
        """Into the layers by a clock that must know of each call that is under way."""
        clock: Any = self.clock
        clock.call_began()
        call.began = call.attempt_began = clock.monotonic()  # it moved until now, for other threads
        try:
            return await self._handle(request, call)
        finally:
            clock.call_ended()

    async def __aenter__(self) -> Self:
        await self.top.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.top.__aexit__(exc_type, exc_value, traceback)

    async def aclose(self) -> None:
        await self.top.aclose()
