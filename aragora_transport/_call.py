"""The call: the one object that crosses the layers.

It lies in `request.extensions` while the call runs, and becomes the record on the response afterwards:
`response.extensions["aragora_transport"]`. It refers to no request, response or exception, so that
keeping a record keeps nothing else alive.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from aragora_transport._options import NO_OPTIONS
from aragora_transport._redact import describe_error
from aragora_transport.correlation import current_id, found_id, new_id, others_loaded
from aragora_transport.errors import Described
from aragora_transport.events import BodyFailed, CallFinished

if TYPE_CHECKING:
    from aragora_transport._alarm import Alarm, Alarms
    from aragora_transport._clock import Clock, Waiter
    from aragora_transport._flavor import Flavor
    from aragora_transport._options import CallOptions
    from aragora_transport._scope import CallScope
    from aragora_transport._tokens import Held
    from aragora_transport.events import Event, Observers, RefusalReason

CALL = "aragora_transport.call"  # in request.extensions, while it runs

Handler = Callable[[Any, "Call"], Awaitable[Any]]  # (request, call) -> response
Hook = Callable[["Call", BaseException | None, bool], object]  # (call, error, complete) at a body's end


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

    # What few calls have are class attributes. What every call has is set in `__init__`, and is none of the
    # class: CPython has no fast way to read or set an attribute that is now the class's, now the instance's.
    attempt = 1  # the send under way, or the last one
    attempt_began: float | None = None  # the first one begins with the call
    history: tuple[Attempt, ...] = ()  # the attempts before the present one
    error: str | None = None
    hidden: str | None = None  # the failure inside an answer whose status tells of none
    retry_after: float | None = None  # a wait the platform asked for that ended the call
    refused: RefusalReason | None = None  # why a failure that is sent again as a rule was not
    total: float | None = None  # the limit that the deadline came from, for error messages
    gate_opens: float | None = None  # a gate below keeps a told wait until then: nobody else need
    gates_blocked = 0  # attempts that were held or refused
    tokenless = False  # the present attempt waits for a token, or got none
    token_refused: str | None = None  # why a 401 was not answered with another token
    credential: Held | None = None  # the token that the present attempt goes with
    gated = False  # the present attempt is held at a gate, or was refused there
    interrupter: Interrupter | None = None
    observers: tuple[Observers, ...] = ()  # of layers that the call reached through somebody else's transport
    _max_attempts: int | None = None

    def __init__(self, scope: CallScope, operation: str, chosen: CallOptions | None = None) -> None:
        self.scope = scope
        self.operation = operation
        self.chosen = chosen  # what the caller chose for this call, if anything
        self.began = scope.now()
        self._id = current_id()  # that of the scope it was made in; where there is none, see below
        self.straight = True  # nothing to tell yet: no other attempt, no wait at a gate, no hidden failure
        self.status: int | None = None
        self.ended: float | None = None  # the call; while it goes on, an attempt whose answer was dropped
        self.deadline: float | None = None  # when the clock reads this, the call is over
        self.idle: float | None = None  # the longest silence of the body
        self.alarm: Alarm | None = None  # the attempt's, at rest: it goes on as that of the body
        self.gates_passed = 0  # attempts that were let through, at once or after a wait
        # Told how the body of the present attempt ended. A layer puts its own in front; the last ones are the
        # scope's, which hear of the last attempt alone.
        self.hooks: tuple[Hook, ...] = scope.hooks

    @property
    def options(self) -> CallOptions:
        """What the caller chose for this call."""
        return self.chosen or NO_OPTIONS

    @property
    def max_attempts(self) -> int:
        """How often it may be sent."""
        return self._max_attempts or self.scope.max_attempts

    @max_attempts.setter
    def max_attempts(self, most: int) -> None:
        self._max_attempts = most

    @property
    def clock(self) -> Clock:
        """The clock of everything that the call meets."""
        return self.scope.clock

    @property
    def platform(self) -> str:
        """The name that the stack was given."""
        return self.scope.platform

    @property
    def blocking(self) -> bool:
        """Whether it is a thread that waits, not a task."""
        return self.scope.blocking

    @property
    def alarms(self) -> Alarms:
        """Time limits for the event loop that runs."""
        return self.scope.alarms

    @property
    def correlation_id(self) -> str:
        """The id of the scope the call was made in, else what others have for it, else one of its own."""
        if self._id is None:
            self._id = found_id() or new_id()
        return self._id

    @property
    def attempt_seconds(self) -> float:
        """Since the present attempt began."""
        return self.scope.now() - (self.began if self.attempt_began is None else self.attempt_began)

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
        if self.gated or self.tokenless or self.error == "CircuitOpenError":
            return self.history  # layers of ours held or refused the last one: it was never sent
        ended = self.ended if self.ended is not None else self.scope.now()
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
        return (self.ended if self.ended is not None else self.scope.now()) - self.began

    def __repr__(self) -> str:
        outcome = self.status if self.status is not None else self.error
        return (
            f"<Call {self.platform} {self.operation} {self.correlation_id}: {outcome} after "
            f"{len(self.attempts)} attempts, {self.total_seconds:.3f} s>"
        )

    def emit(self, kind: type[Event], **details: Any) -> None:
        """Tell the observers, if there are any; the event is built only then."""
        observers = (*self.scope.observers, *self.observers)
        if observers:
            event = kind(
                platform=self.platform,
                operation=self.operation,
                correlation_id=self.correlation_id,
                attempt=self.attempt,
                **details,
            )
            for observer in observers:
                observer(event)

    def join(self, observers: tuple[Observers, ...]) -> None:
        """Let these know of what happens from now on, too."""
        self.observers += tuple(one for one in observers if one not in self.observers)

    def body_ended(self, error: BaseException | None, complete: bool) -> None:
        """The body was read to its end, failed with `error`, or was closed before its end."""
        self.ended = self.scope.now()
        self._stop_alarm()
        if isinstance(error, Exception):
            self.sign(error)
            self.emit(
                BodyFailed,
                status=self.status,
                error=type(error).__name__,
                text=describe_error(error),
                max_attempts=self.max_attempts,
            )
        hooks, self.hooks = self.hooks, ()  # once: whoever reads on must not tell them of another end
        for hook in hooks:
            hook(self, error, complete)

    def sign(self, error: Exception) -> None:
        """Leave the correlation id on the error: `error.correlation_id`."""
        if isinstance(error, Described):
            if self._id is None and others_loaded():
                self._id = found_id()  # theirs is of what runs here, not of where the error is looked at
            error.call = self  # an id of its own is only made when somebody asks for it
            return
        try:
            error.correlation_id = self.correlation_id  # type: ignore[attr-defined]  # errors take what they are given
        except Exception:  # noqa: BLE001, S110  # one of somebody else's that takes nothing
            pass

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

    def next_attempt(self) -> None:
        """It is about to be sent once more."""
        self.straight = False
        self.attempt += 1
        self.attempt_began = self.scope.now()

    def attempt_dropped(self, error: BaseException | None = None) -> None:
        """The present attempt's answer is not for the caller: its hooks hear the end of it now.

        `error`: what a layer raised in its place, if one did.
        """
        self._stop_alarm()
        hooks, self.hooks = self.hooks, self.scope.hooks
        self.ended = self.scope.now()
        for hook in hooks[: len(hooks) - len(self.hooks)]:
            hook(self, error, error is None)
        self.ended = None  # the call goes on

    def _stop_alarm(self) -> None:
        # Else a task waits for a chunk by it, while another one closes the body: it is that one's to stop.
        if self.alarm is not None and self.alarm.task is None:
            self.alarm.stop()
            self.alarm = None

    def too_late(self, flavor: Flavor, limit: str, seconds: float | None) -> Exception:
        """The error for a limit that ran out."""
        return flavor.DeadlineExceededError(
            platform=self.platform,
            operation=self.operation,
            limit=limit,
            seconds=seconds or 0.0,
            attempt=self.attempt,
            elapsed=self.scope.now() - self.began,
            last=self.last_outcome,
        )
