"""Where calls begin: the transport that makes the call object, and leaves it as record on the answer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from aragora_transport._alarm import Alarms, NoAlarms
from aragora_transport._around import Around
from aragora_transport._body import body_class
from aragora_transport._call import CALL, Call, Handler, Hook
from aragora_transport._clock import SYSTEM
from aragora_transport._flavor import copy_of
from aragora_transport._notes import Count
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
    hook: Hook | None

    def answered(self, call: Call, status: int, judged: Judgement | None) -> None: ...
    def failed(self, call: Call, error: BaseException) -> None: ...


class Entry(NamedTuple):
    """What is known of layers where calls come in to them.

    `watchers`: those that only look on. `handle`: how to call the first one that does more; `with_options`:
    the same for a call with options of its own, where a layer has something to do for these alone.
    `max_attempts`: how often a call may be sent as a rule.
    """

    watchers: tuple[Watching, ...]
    handle: Handler
    with_options: Handler
    max_attempts: int = 1

    @classmethod
    def at(cls, handle: Handler, max_attempts: int = 1) -> Entry:
        """Where every call is the first one's that does more."""
        return cls((), handle, handle, max_attempts)


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
        entry = entry or Entry.at(self._into_top)
        self._watchers, self._handle, self._handle_options, self.max_attempts = entry
        if clock.manual:
            self._handle = partial(self._timed, self._handle)
            self._handle_options = partial(self._timed, self._handle_options)
        self._failures = tuple(watcher.failed for watcher in self._watchers)
        self._begun = _begun(self._watchers) or Count().one  # nobody reads that one
        # The least status that those who look on are told of at once: of HTTP's errors, or of every answer.
        self._tell_from = 400 if all(watcher.profile.plain for watcher in self._watchers) else 0
        self.hooks: tuple[Hook, ...] = _hooks(self._watchers)
        self.platform = platform
        self.clock = clock
        self.now = clock.monotonic  # seconds
        self.alarms = alarms or Alarms(clock)
        self.blocking = False
        self.observers = tuple(watcher.observer for watcher in self._watchers)
        self.detailed = bool(users)  # users want to know of every attempt, not just of those that fail
        if users:
            self.observers = (users, *self.observers)
            self.hooks = (*self.hooks, Call.finished)
        self._body = body_class(self.flavor, blocking=False)

    @property
    def top(self) -> Any:
        """The outermost layer."""
        return self._below

    def block(self) -> None:
        """Serve a blocking client from now on; see `sync`."""
        self.blocking = True
        self.alarms = NoAlarms(self.clock)
        self._body = body_class(self.flavor, blocking=True)

    async def handle_async_request(self, request: Any) -> Any:
        if CALL in request.extensions:  # it is being sent already, at the same time: this is another call
            request = _another(request)
        extensions: dict[str, Any] = request.extensions
        options = extensions.get(RECORD)
        if options is None:
            call = Call(self, request.method)
            handle = self._handle
        else:
            call = Call(self, operation_of(request, options), options)
            handle = self._handle_options
            if options.begun is not None:
                options.begun(call)
        extensions[CALL] = call
        self._begun()
        try:
            response = await handle(request, call)
            status = response.status_code
            if status >= self._tell_from or not call.straight:
                await tell(self._watchers, call, response, self.flavor)
            call.ended = self.now()  # until the body ends
        except BaseException as error:
            if call.alarm is not None or call.hooks is not self.hooks:
                call.attempt_dropped(error)  # an answer had come, and a layer raised for all that
            call.ended = self.now()
            self._failed(call, error)
            raise
        finally:
            # A redirect copies the extensions and an auth flow sends the same request again: both are
            # calls of their own.
            del extensions[CALL]
        call.status = status
        response.extensions[RECORD] = call
        if response.is_closed:
            call.body_ended(None, True)  # made with its content, as mock transports do: no stream is read
        else:
            response.stream = self._body(response.stream, call, extensions)
        return response

    def _failed(self, call: Call, error: BaseException) -> None:
        """There is no answer."""
        call.error = type(error).__name__
        if isinstance(error, Exception):
            call.sign(error)
        for failed in self._failures:
            failed(call, error)
        if self.detailed:
            call.finished(error, complete=False)

    def _into_top(self, request: Any, _: Call) -> Awaitable[Any]:
        answer: Awaitable[Any] = self.top.handle_async_request(request)
        return answer

    async def _timed(self, handle: Handler, request: Any, call: Call) -> Any:
        """Into the layers by a clock that must know of each call that is under way."""
        clock: Any = self.clock
        clock.call_began()
        call.began = call.attempt_began = self.now()  # it moved until now, for other threads
        try:
            return await handle(request, call)
        finally:
            clock.call_ended()


def _another(request: Any) -> Any:
    """A copy of the request that is not being sent."""
    extensions = {name: value for name, value in request.extensions.items() if name != CALL}
    return copy_of(request, extensions=extensions)


def _begun(watchers: tuple[Watching, ...]) -> Callable[[], object] | None:
    """What to call when a call begins: the one of those who look on that counts them, if it is there."""
    return next((watcher.begun for watcher in watchers if watcher.begun is not None), None)


def _hooks(watchers: tuple[Watching, ...]) -> tuple[Hook, ...]:
    """Of those who look on, what to tell how a body ended."""
    return tuple(watcher.hook for watcher in watchers if watcher.hook is not None)


async def tell(watchers: tuple[Watching, ...], call: Call, response: Any, flavor: Flavor) -> None:
    """Tell those who look on of an answer."""
    for watcher in watchers:
        judged = None
        if not watcher.profile.plain:
            judged = await judge(watcher.profile, response, call, flavor)
        watcher.answered(call, response.status_code, judged)


async def watched(entry: Entry, request: Any, call: Call) -> Any:
    """Into layers from a transport of somebody else that stands in the middle of them."""
    watchers = entry.watchers
    if entry.max_attempts > 1:  # else nobody down there sends again
        call.max_attempts = entry.max_attempts
    call.join(tuple(watcher.observer for watcher in watchers))
    begun = _begun(watchers)
    if begun is not None:
        begun()
    try:
        response = await entry.with_options(request, call)
        await tell(watchers, call, response, call.scope.flavor)
    except BaseException as error:
        call.ended = call.scope.now()
        for watcher in watchers:
            watcher.failed(call, error)
        raise
    call.hooks = (*_hooks(watchers), *call.hooks)
    return response
