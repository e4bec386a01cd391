"""Where calls begin: the transport that makes the call object, and leaves it as record on the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from aragora_transport._alarm import Alarms
from aragora_transport._around import Around
from aragora_transport._body import body_class
from aragora_transport._call import CALL, Call, Handler, Hook
from aragora_transport._clock import SYSTEM
from aragora_transport._flavor import copy_of
from aragora_transport._options import RECORD, operation_of
from aragora_transport.profile import judge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aragora_transport._clock import Clock
    from aragora_transport._flavor import Flavor
    from aragora_transport.events import Observers
    from aragora_transport.profile import Judgement, Profile


class Watching(Protocol):
    """A layer that only looks on; see `layers._watcher`."""

    profile: Profile
    observer: Observers
    begun: Callable[[], object] | None

    def answered(self, call: Call, status: int, judged: Judgement | None) -> None: ...
    def failed(self, call: Call, error: BaseException) -> None: ...
    def ended(self, call: Call, error: BaseException | None, complete: bool) -> None: ...


Entry = tuple[tuple[Watching, ...], Handler]  # who looks on, and how to call the first layer that does more


class CallScope(Around):
    """The transport where calls begin: makes the call object, and leaves it as record on the answer.

    A whole stack is one (see `stack`); a layer used alone gets one around it by itself.
    """

    def __init__(
        self,
        top: Any,
        entry: Entry | None = None,
        *,
        platform: str,
        clock: Clock = SYSTEM,
        alarms: Alarms | None = None,
        users: Observers | None = None,
    ) -> None:
        super().__init__(top)
        self._watchers, self._handle = entry or ((), self._into_top)
        self._begun = _begun(self._watchers)
        self._judges = not all(watcher.profile.plain for watcher in self._watchers)
        self._ended: tuple[Hook, ...] = tuple(watcher.ended for watcher in self._watchers)
        self.platform = platform
        self.clock = clock
        self.alarms = alarms or Alarms(clock)
        self.blocking = False
        self._manual = clock.manual
        self.observers = tuple(watcher.observer for watcher in self._watchers)
        self.detailed = bool(users)  # users want to know of every attempt, not just of those that fail
        if users:
            self.observers = (users, *self.observers)
            self._ended = (*self._ended, Call.finished)
        self._body = body_class(self.flavor, blocking=False)

    @property
    def top(self) -> Any:
        """The outermost layer."""
        return self._below

    def block(self) -> None:
        """Serve a blocking client from now on; see `sync`."""
        self.blocking = True
        self._body = body_class(self.flavor, blocking=True)

    async def handle_async_request(self, request: Any) -> Any:
        extensions: dict[str, Any] = request.extensions
        if CALL in extensions:  # it is being sent already, at the same time: this is another call
            extensions = {name: value for name, value in extensions.items() if name != CALL}
            request = copy_of(request, extensions=extensions)
        options = extensions.get(RECORD)
        if options is None:
            call = Call(self, request.method)
        else:
            call = Call(self, operation_of(request, options))
            call.options = options
            if options.begun is not None:
                options.begun(call)
        extensions[CALL] = call
        if self._begun is not None:
            self._begun()
        try:
            response = await (self._timed if self._manual else self._handle)(request, call)
            if response.status_code >= 400 or call.attempt > 1 or self._judges:  # an HTTP error
                await tell(self._watchers, call, response, self.flavor)
            call.ended = self.clock.monotonic()  # until the body ends
        except BaseException as error:
            call.attempt_dropped(error)  # an answer may have come, and a layer raised for all that
            call.ended = self.clock.monotonic()
            self._failed(call, error)
            raise
        finally:
            # A redirect copies the extensions and an auth flow sends the same request again: both are
            # calls of their own.
            del extensions[CALL]
        call.status = response.status_code
        response.extensions[RECORD] = call
        call.hooks += self._ended
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

    def _failed(self, call: Call, error: BaseException) -> None:
        """There is no answer."""
        call.error = type(error).__name__
        if isinstance(error, Exception):
            call.sign(error)
        for watcher in self._watchers:
            watcher.failed(call, error)
        if self.detailed:
            call.finished(error, complete=False)

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


def _begun(watchers: tuple[Watching, ...]) -> Callable[[], object] | None:
    """What to call when a call begins: the one of those who look on that counts them, if it is there."""
    return next((watcher.begun for watcher in watchers if watcher.begun is not None), None)


async def tell(watchers: tuple[Watching, ...], call: Call, response: Any, flavor: Flavor) -> None:
    """Tell those who look on of an answer."""
    for watcher in watchers:
        judged = None
        if not watcher.profile.plain:
            judged = await judge(watcher.profile, response, call, flavor)
        watcher.answered(call, response.status_code, judged)


async def watched(entry: Entry, request: Any, call: Call) -> Any:
    """Into layers from a transport of somebody else that stands in the middle of them."""
    watchers, handle = entry
    call.join(tuple(watcher.observer for watcher in watchers))
    begun = _begun(watchers)
    if begun is not None:
        begun()
    try:
        response = await handle(request, call)
        await tell(watchers, call, response, call.scope.flavor)
    except BaseException as error:
        for watcher in watchers:
            watcher.failed(call, error)
        raise
    call.hooks += tuple(watcher.ended for watcher in watchers)
    return response
