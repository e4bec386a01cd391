"""The call: the one object that crosses the layers, and the transport where it begins.

It lies in `request.extensions` while the call runs, and becomes the record on the response afterwards:
`response.extensions["aragora_transport"]`. It refers to no request, response or exception, so that
keeping a record keeps nothing else alive.
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import httpx

from aragora_transport._alarm import Alarms
from aragora_transport._body import body_class
from aragora_transport._clock import SYSTEM
from aragora_transport._flavor import flavor_of
from aragora_transport._redact import describe_error
from aragora_transport.correlation import current, new_id
from aragora_transport.events import BodyFailed, CallFinished

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from aragora_transport._alarm import TaskAlarm
    from aragora_transport._clock import Clock, Waiter
    from aragora_transport._flavor import Flavor
    from aragora_transport.events import Event, Observer

RECORD = "aragora_transport"  # in request.extensions the caller's options, in response.extensions the record
CALL = "aragora_transport.call"
_LONGEST = sys.float_info.max  # seconds: more than this cannot be added to a clock's reading

Hook = Callable[["Call", BaseException | None, bool], object]  # (call, error, complete) at a body's end


@dataclass(frozen=True, kw_only=True, slots=True)
class CallOptions:
    """What one request asks for; see `call_options`."""

    operation: str | None = None
    idempotent: bool | None = None
    total_timeout: float | None = None
    attempt_timeout: float | None = None
    max_attempts: int | None = None
    rate_key: str | None = None

    def __post_init__(self) -> None:
        for name in ("total_timeout", "attempt_timeout"):
            value: Any = getattr(self, name)
            if value is not None and not (_is_number(value, int | float) and 0 < value <= _LONGEST):
                raise _refused(name, value, "seconds above 0, or None")
        most: Any = self.max_attempts
        if most is not None and not (_is_number(most, int) and most >= 1):
            raise _refused("max_attempts", most, "a whole number of at least 1, or None")
        idempotent: Any = self.idempotent
        if idempotent is not None and not isinstance(idempotent, bool):
            raise _refused("idempotent", idempotent, "True, False or None")
        for name in ("operation", "rate_key"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise _refused(name, value, "a name, or None")

    @property
    def changes_retries(self) -> bool:
        """Whether these decide on sending again."""
        return self.max_attempts is not None or self.idempotent is not None


def _is_number(value: object, kinds: Any) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _refused(name: str, value: object, wanted: str) -> ValueError:
    return ValueError(f"call_options({name}={reprlib.repr(value)}): {name} must be {wanted}")


NO_OPTIONS = CallOptions()


def call_options(
    *,
    operation: str | None = None,
    idempotent: bool | None = None,
    total_timeout: float | None = None,
    attempt_timeout: float | None = None,
    max_attempts: int | None = None,
    rate_key: str | None = None,
) -> dict[str, Any]:
    """Options for one request, to pass as httpx's `extensions=`.

    `operation`: the name in logs and metrics, such as "send_message" (default: the HTTP method).
    `idempotent`: whether sending it twice is harmless (default: by method and `Idempotency-Key`).
    `total_timeout`, `attempt_timeout`: seconds, in place of the policy's.
    `max_attempts`: sends in all, in place of the policy's.
    `rate_key`: the rate-limit bucket, in place of the platform's.

    Raises `ValueError` for values that make no sense.
    """
    options = CallOptions(
        operation=operation,
        idempotent=idempotent,
        total_timeout=total_timeout,
        attempt_timeout=attempt_timeout,
        max_attempts=max_attempts,
        rate_key=rate_key,
    )
    return {RECORD: options}


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One send of a call.

    `status` or `error` (the class's name): what came back; both, where an answer whose status tells of no
    failure holds one, by the platform's own code for it. `seconds`: until then.
    `wait`: seconds between it and the next send; on the last one what the platform asked to wait
    and nobody waited, else 0.
    """

    status: int | None
    error: str | None
    seconds: float
    wait: float = 0.0


class Interrupter(Protocol):
    """What a layer below leaves on the call to end a wait early: a circuit, that is."""

    def refusing(self) -> float | None:
        """Seconds it will go on refusing, or `None` when it would let an attempt through."""
        ...

    def watch(self, waiter: Waiter) -> None:
        """Wake the waiter when refusing begins."""
        ...

    def unwatch(self, waiter: Waiter) -> None: ...


class Call:
    """What the user asked for, while it runs; its record afterwards. All times are seconds.

    Read by users: `platform`, `operation`, `correlation_id`, `attempts`, `total_seconds`, `retry_after`.
    The other fields are for layers: each is set by one layer and read by layers on its other side.
    """

    # What most calls never change are class attributes: a call begins with as few stores as possible.
    attempt = 1  # the send under way, or the last one
    max_attempts = 1
    attempt_began: float | None = None  # the first one begins with the call
    history: tuple[Attempt, ...] = ()  # the attempts before the present one
    ended: float | None = None
    status: int | None = None
    error: str | None = None
    hidden: str | None = None  # the failure inside an answer whose status tells of none
    retry_after: float | None = None  # a wait the platform asked for that ended the call
    deadline: float | None = None  # when the clock reads this, the call is over
    total: float | None = None  # the limit that the deadline came from, for error messages
    idle: float | None = None  # the longest silence of the body
    alarm: TaskAlarm | None = None  # the attempt's, at rest: it goes on as that of the body
    gate_opens: float | None = None  # a gate below keeps a told wait until then: nobody else need
    gates_passed = 0  # attempts that were let through, at once or after a wait
    gates_blocked = 0  # attempts that were held or refused
    gated = False  # the present attempt is held at a gate, or was refused there
    interrupter: Interrupter | None = None
    _id: str | None = None

    def __init__(self, scope: CallScope, operation: str, options: CallOptions) -> None:
        self.scope = scope
        self.operation = operation
        self.options = options
        self.blocking = scope.blocking
        self.clock = scope.clock
        self.observers = scope.observers.copy()
        self.hooks: list[Hook] = []  # told how the body of the present attempt ended
        self.began = scope.clock.monotonic()
        self._scope_id = current.get()

    @property
    def platform(self) -> str:
        """The name that the stack was given."""
        return self.scope.platform

    @property
    def alarms(self) -> Alarms:
        """Time limits for the event loop that runs."""
        return self.scope.alarms

    @property
    def correlation_id(self) -> str:
        """The id of the scope the call was made in, else one of its own."""
        if self._id is None:
            self._id = self._scope_id or new_id()
        return self._id

    @property
    def attempt_seconds(self) -> float:
        """Since the present attempt began."""
        return self.clock.monotonic() - (self.began if self.attempt_began is None else self.attempt_began)

    @property
    def last_outcome(self) -> str | None:
        """What the attempt before the present one ended with, such as "503"."""
        if not self.history:
            return None
        last = self.history[-1]
        return str(last.status) if last.status is not None else last.error

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every attempt so far, the first one first."""
        if len(self.history) >= self.attempt or (self.status is None and self.error is None):
            return self.history
        if self.gated or self.error == "CircuitOpenError":
            return self.history  # layers of ours held or refused the last one: it was never sent
        ended = self.ended if self.ended is not None else self.clock.monotonic()
        last = Attempt(
            status=self.status,
            error=self.hidden if self.status is not None else self.error,
            seconds=ended - (self.began if self.attempt_began is None else self.attempt_began),
            wait=self.retry_after or 0.0,
        )
        return (*self.history, last)

    @property
    def total_seconds(self) -> float:
        """From the beginning to the headers, or to the end of the body once that came."""
        return (self.ended if self.ended is not None else self.clock.monotonic()) - self.began

    def __repr__(self) -> str:
        outcome = self.status if self.status is not None else self.error
        return (
            f"<Call {self.platform} {self.operation} {self.correlation_id}: {outcome} after "
            f"{len(self.attempts)} attempts, {self.total_seconds:.3f} s>"
        )

    def emit(self, kind: type[Event], **details: Any) -> None:
        """Tell the observers, if there are any; the event is built only then."""
        if self.observers:
            event = kind(
                platform=self.platform,
                operation=self.operation,
                correlation_id=self.correlation_id,
                attempt=self.attempt,
                **details,
            )
            for observer in self.observers:
                observer(event)

    def body_ended(self, error: BaseException | None, complete: bool) -> None:
        """The body was read to its end, failed with `error`, or was closed before its end."""
        self.ended = self.clock.monotonic()
        if self.alarm is not None:
            self.alarm.stop()
            self.alarm = None
        if isinstance(error, Exception):
            self.emit(
                BodyFailed,
                status=self.status,
                error=type(error).__name__,
                text=describe_error(error),
                max_attempts=self.max_attempts,
            )
        for hook in self.hooks:
            hook(self, error, complete)

    def finished(self, error: BaseException | None, complete: bool) -> None:
        """The last event of a call."""
        self.emit(
            CallFinished,
            status=self.status,
            error=None if error is None else type(error).__name__,
            seconds=self.total_seconds,
            attempts=len(self.attempts),
            complete=complete,
        )

    def attempt_dropped(self) -> None:
        """The present attempt's answer is not for the caller: its hooks hear the end of it now."""
        if self.alarm is not None:
            self.alarm.stop()
            self.alarm = None
        hooks, self.hooks = self.hooks, []
        for hook in hooks:
            hook(self, None, True)

    def too_late(self, flavor: Flavor, limit: str, seconds: float | None) -> Exception:
        """The error for a limit that ran out."""
        return flavor.DeadlineExceededError(
            platform=self.platform,
            operation=self.operation,
            limit=limit,
            seconds=seconds or 0.0,
            attempt=self.attempt,
            elapsed=self.clock.monotonic() - self.began,
            last=self.last_outcome,
        )


class CallScope(httpx.AsyncBaseTransport):
    """The transport where calls begin: makes the call object, and leaves it as record on the answer.

    A whole stack is one (see `stack`); a layer used alone gets one around it by itself.
    """

    def __init__(
        self,
        top: Any,
        *,
        platform: str,
        clock: Clock = SYSTEM,
        alarms: Alarms | None = None,
        observers: tuple[Observer, ...] = (),
    ) -> None:
        self.top = top
        self.platform = platform
        self.clock = clock
        self.alarms = alarms or Alarms(clock)
        self.blocking = False
        self._manual = clock.manual
        self.flavor = flavor_of(top)
        self.observers = list(observers)
        self.detailed = bool(observers)  # they want to know of every attempt, not just of those that fail
        self._body = body_class(self.flavor, blocking=False)

    def block(self) -> None:
        """Serve a blocking client from now on; see `sync`."""
        self.blocking = True
        self._body = body_class(self.flavor, blocking=True)

    async def handle_async_request(self, request: Any) -> Any:
        extensions: dict[str, Any] = request.extensions
        options = extensions.get(RECORD, NO_OPTIONS)
        if options is NO_OPTIONS:
            call = Call(self, request.method, NO_OPTIONS)
        else:
            call = Call(self, _operation(request, options), options)
        extensions[CALL] = call
        try:
            response = await (
                self._timed(request) if self._manual else self.top.handle_async_request(request)
            )
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

    async def _timed(self, request: Any) -> Any:
        """Into the layers by a clock that must know of each call that is under way."""
        call: Call = request.extensions[CALL]
        clock: Any = self.clock
        clock.call_began()
        call.began = call.attempt_began = clock.monotonic()  # it moved until now, for other threads
        try:
            return await self.top.handle_async_request(request)
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


def _operation(request: Any, options: object) -> str:
    if type(options) is not CallOptions:
        raise TypeError(
            f"extensions[{RECORD!r}] is {reprlib.repr(options)}, but it must be what call_options() "
            "makes: pass extensions=call_options(...), or {**call_options(...), ...} beside others"
        )
    return options.operation or request.method
