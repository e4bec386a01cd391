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
    from collections.abc import Hashable
    from types import TracebackType

    from aragora_transport._call import Call
    from aragora_transport._clock import Clock
    from aragora_transport.events import Event
    from aragora_transport.profile import Judgement, Profile

_FIELDS = ("connector", "operation", "attempt", "max_retries", "status_code", "correlation_id")


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
            self._emit(
                logging.INFO,
                "recovered",
                "%s %s succeeded in attempt %s of %s",
                (call.platform, call.operation, call.attempt, call.max_attempts),
                _call_fields(call, status),
            )

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
            fields = _fields(self._platform, "-", 0, None, None, "-")
            self._write(
                logging.WARNING,
                "held_back",
                "%s: %s records were held back since the last of their kind",
                (self._platform, held_back),
                {**fields, "suppressed": held_back},
            )

    def _refused(self, call: Call, status: int, judged: Judgement | None) -> None:
        """The answer is an error: ours to look into where the platform is unwell, else the caller's own."""
        if status == 401:  # Unauthorized: whoever holds the credentials has to look at them
            level = logging.ERROR
        elif judged is None:
            level = logging.WARNING if status >= 500 or status == 429 else logging.INFO
        else:
            serious = judged.verdict != "success" or judged.retryable is True
            level = logging.WARNING if serious else logging.INFO
        self._final(level, call, call.hidden or f"HTTP {status}", status, call.hidden or status)

    def failed(self, call: Call, error: BaseException) -> None:
        if not isinstance(error, Exception):
            return  # a cancellation is the caller's own doing
        flavor = self.flavor
        if isinstance(error, flavor.TokenRefreshError):
            hopeless = not error.retryable
        else:  # what is no error of the network's, or one of the request's own
            hopeless = isinstance(error, flavor.local) or not isinstance(error, flavor.TransportError)
        level = logging.ERROR if hopeless else logging.WARNING
        self._final(level, call, describe_error(error), call.status, type(error).__name__)

    def _final(self, level: int, call: Call, error: str, status: int | None, outcome: object) -> None:
        reason = None if call.refused == "attempts" else call.refused
        more = {} if reason is None else {"reason": reason}
        self._failure(level, "failed", error, _call_fields(call, status), (outcome, reason), **more)

    def _observe(self, event: Event) -> None:
        if isinstance(event, RetryScheduled):
            error = event.error or f"HTTP {event.status}"
            self._failure(
                logging.WARNING,
                "retry",
                error,
                _event_fields(event, event.max_attempts, event.status),
                (event.error, event.status),
                retry_in_s=round(event.wait, 3),
            )
        elif isinstance(event, BodyFailed):
            fields = _event_fields(event, event.max_attempts, event.status)
            self._failure(logging.WARNING, "failed", event.text, fields, (event.error, event.status))
        elif isinstance(event, CircuitChanged):
            self._circuit(event)
        elif isinstance(event, RateLimitWaited):
            self._gate(event)

    def _circuit(self, event: CircuitChanged) -> None:
        probing = "half-open" in {event.old, event.new} and event.new != "closed"
        self._emit(
            logging.WARNING,
            "circuit",
            "%s circuit %s: %s -> %s",
            (event.platform, event.key, event.old, event.new),
            {
                **_event_fields(event, None, None),
                "circuit_state": event.new,
                "circuit_key": event.key,
                "failures": event.failures,
                "next_probe_in_s": event.next_probe_in,
                "cause": event.cause,
            },
            # A probe that fails tells nothing new; a circuit that opens or closes does, each time.
            kind=(event.key, event.new) if probing else None,
        )

    def _gate(self, event: RateLimitWaited) -> None:
        self._emit(
            logging.WARNING if event.refused else logging.INFO,
            "rate_limit",
            "%s %s: gate %s %s for %.3f s",
            (
                event.platform,
                event.operation,
                event.key,
                "refused, closed" if event.refused else "held the attempt",
                event.seconds,
            ),
            {**_event_fields(event, None, None), "rate_key": event.key},
            kind=(event.key, event.refused),
        )

    def _failure(
        self, level: int, event: str, error: str, fields: dict[str, Any], kind: Hashable, **more: Any
    ) -> None:
        """The guide's record of a failed attempt."""
        self._emit(
            level,
            event,
            "%s %s failed (attempt %s/%s): %s",
            (fields["connector"], fields["operation"], fields["attempt"], fields["max_retries"], error),
            {**fields, "error": error, **more},
            kind=kind,
        )

    def _emit(  # noqa: PLR0917  # private
        self,
        level: int,
        event: str,
        message: str,
        args: tuple[Any, ...],
        fields: dict[str, Any],
        kind: Hashable = (),
    ) -> None:
        """Write a record, unless there were enough of its kind; `None` is the kind of which all are."""
        if not logger.isEnabledFor(level):
            return
        if self._limit is not None and kind is not None:
            held_back = self._limit.admit((event, level, fields["operation"], kind))
            if held_back is None:
                return
            if held_back:
                fields = {**fields, "suppressed": held_back}
        self._write(level, event, message, args, fields)

    def _write(
        self, level: int, event: str, message: str, args: tuple[Any, ...], fields: dict[str, Any]
    ) -> None:
        try:
            extra: dict[str, Any] = {name: _clean(value) for name, value in fields.items()}
            args = tuple(map(_clean, args))
        except Exception:  # noqa: BLE001  # rather no text than a secret
            message, args, extra = WITHHELD, (), dict.fromkeys(_FIELDS)
            self.observer.failures += 1
        try:
            logger.log(level, message, *args, extra={"event": event, **extra})
        except Exception:  # noqa: BLE001  # whatever a handler raises, the call goes on
            self.observer.failures += 1


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
