"""One log record for each retry, failure and circuit change; none for a success that went straight.

The logger is `aragora_transport`, and stays silent until the application, or `configure_logging()`, says
otherwise.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from aragora_transport._clock import SYSTEM
from aragora_transport._redact import describe_error, one_line
from aragora_transport.events import (
    BodyFailed,
    CircuitChanged,
    Observers,
    RateLimitWaited,
    RetryScheduled,
)
from aragora_transport.layers._configure_logging import logger
from aragora_transport.layers._log_limit import LogLimit
from aragora_transport.layers._redaction import WITHHELD
from aragora_transport.layers._watcher import Watcher
from aragora_transport.profile import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from types import TracebackType

    from aragora_transport._call import Call
    from aragora_transport._clock import Clock
    from aragora_transport.events import Event
    from aragora_transport.profile import Judgement, Profile

Record = tuple[str, tuple[Any, ...], dict[str, Any]]  # a message, its arguments, and the record's fields

_FIELDS: tuple[str, ...] = (
    "connector",
    "operation",
    "attempt",
    "max_retries",
    "status_code",
    "correlation_id",
)


class LogTransport(Watcher):
    """Logs what callers and operators need to know of a call, with the guide's fields.

    ERROR: what sending again cannot heal: a request that cannot be sent, a refused credential. WARNING: an
    attempt failed and is sent again, a call failed for good, a circuit changed, a gate refused. INFO: a
    retry saved the call, a gate held it, the platform refused the request (4xx).

    `burst`: records of one kind that are written at once; after these one each `per` seconds, with the
    number of those that were held back as `suppressed`. `None` for all. A circuit that opens or closes is
    always written.
    """

    def __init__(
        self,
        below: Any,
        *,
        burst: int | None = 5,
        per: float = 10.0,
        profile: Profile = PLAIN,
        platform: str = "default",
        clock: Clock = SYSTEM,
    ) -> None:
        super().__init__(below, profile=profile, platform=platform, clock=clock)
        if burst is not None and not (isinstance(burst, int) and burst >= 1):  # pyright: ignore[reportUnnecessaryIsInstance]  # users err
            raise ValueError(
                f"LogTransport(burst={burst!r}): it must be a whole number of at least 1, or None"
            )
        if not per > 0:
            raise ValueError(f"LogTransport(per={per!r}): it must be seconds above 0")
        self._limit = None if burst is None else LogLimit(clock, burst=burst, per=per)
        self.observer = Observers(self._observe)

    def answered(self, call: Call, status: int, judged: Judgement | None) -> None:
        if status >= 400 or call.hidden is not None or call.refused is not None:
            self._refused(call, status, judged)
        elif call.attempt > 1:
            self._emit(logging.INFO, "recovered", call.operation, (), _recovered, (call, status))

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._tell_held_back()
        await super().__aexit__(exc_type, exc_value, traceback)

    async def aclose(self) -> None:
        self._tell_held_back()
        await super().aclose()

    def _tell_held_back(self) -> None:
        held_back = 0 if self._limit is None else self._limit.take_held_back()
        if held_back:
            told = (self._platform, held_back)
            self._write(logging.WARNING, "held_back", held_back, _held_back, told)

    def _refused(self, call: Call, status: int, judged: Judgement | None) -> None:
        """The answer is an error: ours to look into where the platform is unwell, else the caller's own."""
        if status == 401:  # Unauthorized: whoever holds the credentials has to look at them
            level = logging.ERROR
        elif judged is None:
            level = logging.WARNING if status >= 500 or status == 429 else logging.INFO
        else:
            serious = judged.verdict != "success" or judged.retryable is True
            level = logging.WARNING if serious else logging.INFO
        kind = (call.hidden or status, call.refused)
        self._emit(level, "failed", call.operation, kind, _failed, (call, None, status))

    def failed(self, call: Call, error: BaseException) -> None:
        if not isinstance(error, Exception):
            return  # a cancellation is the caller's own doing
        # While a circuit is open most calls end there, and are not looked at any closer.
        level = logging.WARNING if type(error) is self.flavor.CircuitOpenError else self._level_of(error)
        kind = (type(error).__name__, call.refused)
        self._emit(level, "failed", call.operation, kind, _failed, (call, error, call.status))

    def _level_of(self, error: Exception) -> int:
        flavor = self.flavor
        if isinstance(error, flavor.TokenRefreshError):
            return logging.WARNING if error.retryable else logging.ERROR
        # What is no error of the network's, or one of the request's own, will be there the next time as well.
        hopeless = not isinstance(error, flavor.TransportError) or isinstance(error, flavor.local)
        return logging.ERROR if hopeless else logging.WARNING

    def _observe(self, event: Event) -> None:
        if isinstance(event, RetryScheduled):
            kind = (event.error, event.status)
            self._emit(logging.WARNING, "retry", event.operation, kind, _retried, (event,))
        elif isinstance(event, BodyFailed):
            kind = (event.error, event.status)
            self._emit(logging.WARNING, "failed", event.operation, kind, _body_failed, (event,))
        elif isinstance(event, CircuitChanged):
            probing = "half-open" in {event.old, event.new} and event.new != "closed"
            # A probe that fails tells nothing new; a circuit that opens or closes does, each time.
            told = (event.key, event.new) if probing else None
            self._emit(logging.WARNING, "circuit", event.operation, told, _circuit, (event,))
        elif isinstance(event, RateLimitWaited):
            level = logging.WARNING if event.refused else logging.INFO
            kind = (event.key, event.refused)
            self._emit(level, "rate_limit", event.operation, kind, _gate, (event,))

    def _emit(  # noqa: PLR0917  # private
        self,
        level: int,
        event: str,
        operation: str,
        kind: Hashable,
        record: Callable[..., Record],
        about: tuple[Any, ...],
    ) -> None:
        """Write `record(*about)`, unless there were enough of its kind; `None` is the kind of which all are.

        It is built only then: in an outage most are held back.
        """
        if not logger.isEnabledFor(level):
            return
        if self._limit is None or kind is None:
            self._write(level, event, 0, record, about)
            return
        held_back = self._limit.admit((event, level, operation, kind))
        if held_back is not None:
            self._write(level, event, held_back, record, about)

    def _write(
        self, level: int, event: str, held_back: int, record: Callable[..., Record], about: tuple[Any, ...]
    ) -> None:
        extra: dict[str, Any]
        try:
            message, args, fields = record(*about)
            extra = {name: _clean(value) for name, value in fields.items()}
            args = tuple(map(_clean, args))
        except Exception:  # noqa: BLE001  # rather no text than a secret
            message, args, extra = WITHHELD, (), dict.fromkeys(_FIELDS)
            self.observer.failures += 1
        if held_back:
            extra["suppressed"] = held_back
        try:
            logger.log(level, message, *args, extra={"event": event, **extra})
        except Exception:  # noqa: BLE001  # whatever a handler raises, the call goes on
            self.observer.failures += 1


def _failure(error: str, fields: dict[str, Any], **more: Any) -> Record:
    """The guide's record of a failed attempt."""
    args = (fields["connector"], fields["operation"], fields["attempt"], fields["max_retries"], error)
    return "%s %s failed (attempt %s/%s): %s", args, {**fields, "error": error, **more}


def _failed(call: Call, error: Exception | None, status: int | None) -> Record:
    text = (call.hidden or f"HTTP {status}") if error is None else describe_error(error)
    more = {} if call.refused in (None, "attempts") else {"reason": call.refused}
    return _failure(text, _call_fields(call, status), **more)


def _retried(event: RetryScheduled) -> Record:
    fields = _event_fields(event, event.max_attempts, event.status)
    return _failure(event.error or f"HTTP {event.status}", fields, retry_in_s=round(event.wait, 3))


def _body_failed(event: BodyFailed) -> Record:
    return _failure(event.text, _event_fields(event, event.max_attempts, event.status))


def _held_back(platform: str, number: int) -> Record:
    fields = _fields(platform, "-", 0, None, None, "-")
    return "%s: %s records were held back since the last of their kind", (platform, number), fields


def _recovered(call: Call, status: int) -> Record:
    args = (call.platform, call.operation, call.attempt, call.max_attempts)
    return "%s %s succeeded in attempt %s of %s", args, _call_fields(call, status)


def _circuit(event: CircuitChanged) -> Record:
    fields = {
        **_event_fields(event, None, None),
        "circuit_state": event.new,
        "circuit_key": event.key,
        "failures": event.failures,
        "next_probe_in_s": event.next_probe_in,
        "cause": event.cause,
    }
    return "%s circuit %s: %s -> %s", (event.platform, event.key, event.old, event.new), fields


def _gate(event: RateLimitWaited) -> Record:
    how = "refused, closed" if event.refused else "held the attempt"
    args = (event.platform, event.operation, event.key, how, event.seconds)
    return "%s %s: gate %s %s for %.3f s", args, {**_event_fields(event, None, None), "rate_key": event.key}


def _fields(  # noqa: PLR0917  # the guide's six fields, in its order
    connector: str,
    operation: str,
    attempt: int,
    max_retries: int | None,
    status_code: int | None,
    correlation_id: str,
) -> dict[str, Any]:
    values = (connector, operation, attempt, max_retries, status_code, correlation_id)
    return dict(zip(_FIELDS, values, strict=True))


def _event_fields(event: Event, max_retries: int | None, status: int | None) -> dict[str, Any]:
    return _fields(event.platform, event.operation, event.attempt, max_retries, status, event.correlation_id)


def _call_fields(call: Call, status: int | None) -> dict[str, Any]:
    return _fields(
        call.platform, call.operation, call.attempt, call.max_attempts, status, call.correlation_id
    )


def _clean(value: Any) -> Any:
    """Names and texts come from callers and platforms: one line each, whatever is in them."""
    return one_line(value) if isinstance(value, str) else value
