"""One log record for each retry, failure and circuit change; none for a success that went straight.

Loggers lie under `aragora_transport` and stay silent until the application, or `configure_logging()`,
says otherwise. The only file that imports pythonjsonlogger.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TextIO

from aragora_transport._clock import SYSTEM
from aragora_transport._redact import describe_error, one_line
from aragora_transport.events import (
    BodyFailed,
    CircuitChanged,
    Observers,
    RateLimitWaited,
    RetryRefused,
    RetryScheduled,
)
from aragora_transport.layers._watcher import Watcher
from aragora_transport.profile import PLAIN

if TYPE_CHECKING:
    from aragora_transport._call import Call
    from aragora_transport._clock import Clock
    from aragora_transport.events import Event
    from aragora_transport.profile import Judgement, Profile

logger = logging.getLogger("aragora_transport")
logger.addHandler(logging.NullHandler())

_FIELDS = ("connector", "operation", "attempt", "max_retries", "status_code", "correlation_id")


class LogTransport(Watcher):
    """Logs what callers and operators need to know of a call, with the guide's fields.

    WARNING: an attempt failed and is sent again, a call failed for good, a circuit changed, a gate
    refused. INFO: a retry saved the call, a gate held it, the platform refused the request (4xx).
    """

    def __init__(
        self,
        below: Any,
        *,
        profile: Profile = PLAIN,
        platform: str = "default",
        clock: Clock = SYSTEM,
    ) -> None:
        super().__init__(below, profile=profile, platform=platform, clock=clock)
        self.observer = Observers(self._observe)

    def answered(self, call: Call, status: int, judged: Judgement | None) -> None:
        if status >= 400 or call.hidden is not None:  # HTTP's border between answers and errors
            self._refused(call, status, judged)
        elif call.attempt > 1:
            self._emit(
                logging.INFO,
                "recovered",
                "%s %s succeeded in attempt %s of %s",
                (call.platform, call.operation, call.attempt, call.max_attempts),
                _call_fields(call, status),
            )

    def _refused(self, call: Call, status: int, judged: Judgement | None) -> None:
        """The answer is an error: ours to look into where the platform is unwell, else the caller's own."""
        if judged is None:
            serious = status >= 500 or status == 429
        else:
            serious = judged.verdict != "success" or judged.retryable is True
        level = logging.WARNING if serious else logging.INFO
        self._failure(level, "failed", call.hidden or f"HTTP {status}", _call_fields(call, status))

    def failed(self, call: Call, error: BaseException) -> None:
        if isinstance(error, Exception):  # a cancellation is the caller's own doing
            self._failure(logging.WARNING, "failed", describe_error(error), _call_fields(call, call.status))

    def _observe(self, event: Event) -> None:
        if isinstance(event, RetryScheduled):
            error = event.error or f"HTTP {event.status}"
            self._failure(
                logging.WARNING,
                "retry",
                error,
                _event_fields(event, event.max_attempts, event.status),
                retry_in_s=round(event.wait, 3),
            )
        elif isinstance(event, BodyFailed):
            fields = _event_fields(event, event.max_attempts, event.status)
            self._failure(logging.WARNING, "failed", event.text, fields)
        elif isinstance(event, CircuitChanged):
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
            )
        elif isinstance(event, RateLimitWaited):
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
            )
        elif isinstance(event, RetryRefused) and event.reason != "attempts":
            self._emit(
                logging.INFO,
                "not_retried",
                "%s %s is not sent again: %s",
                (event.platform, event.operation, event.reason),
                {**_event_fields(event, event.max_attempts, event.status), "reason": event.reason},
            )

    def _failure(self, level: int, event: str, error: str, fields: dict[str, Any], **more: Any) -> None:
        """The guide's record of a failed attempt."""
        self._emit(
            level,
            event,
            "%s %s failed (attempt %s/%s): %s",
            (fields["connector"], fields["operation"], fields["attempt"], fields["max_retries"], error),
            {**fields, "error": error, **more},
        )

    def _emit(
        self, level: int, event: str, message: str, args: tuple[Any, ...], fields: dict[str, Any]
    ) -> None:
        if not logger.isEnabledFor(level):
            return
        try:
            extra = {name: _clean(value) for name, value in fields.items()}
            logger.log(level, message, *map(_clean, args), extra={"event": event, **extra})
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


def configure_logging(
    *, json: bool = True, level: int | str = "INFO", stream: TextIO | None = None
) -> logging.Handler:
    """Write the records of `aragora_transport` to `stream` (default stderr), by default as JSON lines.

    Calling it again replaces the handler of the time before. Returns the handler.
    """
    logger.setLevel(level)  # first of all: it refuses what is no level
    handler: logging.Handler = logging.StreamHandler(stream)
    handler.set_name("aragora_transport.configured")
    if json:
        from pythonjsonlogger.json import JsonFormatter  # noqa: PLC0415  # not loaded by who brings handlers

        handler.setFormatter(
            JsonFormatter(
                ["levelname", "name", "message"], timestamp=True, rename_fields={"levelname": "level"}
            )
        )
    else:
        shape = "%(asctime)s %(levelname)s %(message)s [%(correlation_id)s]"
        handler.setFormatter(logging.Formatter(shape, defaults={"correlation_id": "-"}))
    for old in list(logger.handlers):
        if old.get_name() == handler.get_name():
            logger.removeHandler(old)
            old.close()
    logger.addHandler(handler)
    return handler
