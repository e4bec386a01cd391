"""One log record for each retry, failure and circuit change; none for a success that went straight.

Loggers lie under `aragora_transport` and stay silent until the application, or `configure_logging()`,
says otherwise. The only file that imports pythonjsonlogger.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TextIO

from aragora_transport._call import CALL
from aragora_transport._clock import SYSTEM
from aragora_transport._redact import one_line
from aragora_transport.events import (
    BodyFailed,
    CircuitChanged,
    Observers,
    RateLimitWaited,
    RetryRefused,
    RetryScheduled,
)
from aragora_transport.layers._layer import Layer

if TYPE_CHECKING:
    from aragora_transport._call import Call
    from aragora_transport._clock import Clock
    from aragora_transport.events import Event

logger = logging.getLogger("aragora_transport")
logger.addHandler(logging.NullHandler())

_FIELDS = ("connector", "operation", "attempt", "max_retries", "status_code", "correlation_id")


class LogTransport(Layer):
    """Logs what callers and operators need to know of a call, with the guide's fields.

    WARNING: an attempt failed and is sent again, a call failed for good, a circuit changed, a gate
    refused. INFO: a retry saved the call, a gate held it, the platform refused the request (4xx).
    """

    def __init__(self, below: Any, *, platform: str = "default", clock: Clock = SYSTEM) -> None:
        super().__init__(below, platform=platform, clock=clock)
        self.observer = Observers(self._observe)

    async def handle_async_request(self, request: Any) -> Any:
        call: Call | None = request.extensions.get(CALL)
        if call is None:
            return await self._alone(request)
        call.observers.append(self.observer)
        try:
            response = await self.below.handle_async_request(request)
        except Exception as error:
            self._failed(call, error)
            raise
        status = response.status_code
        if status >= 400:  # HTTP's border between answers and errors
            level = logging.WARNING if status >= 500 or status == 429 else logging.INFO  # as above
            self._log(level, "failed", call, status=status, error=f"HTTP {status}")
        elif call.attempt > 1:
            _emit(
                logging.INFO,
                "recovered",
                "%s %s succeeded in attempt %s of %s",
                (call.platform, call.operation, call.attempt, call.max_attempts),
                _fields(
                    call.platform,
                    call.operation,
                    call.attempt,
                    call.max_attempts,
                    status,
                    call.correlation_id,
                ),
            )
        return response

    def _failed(self, call: Call, error: Exception) -> None:
        text = _describe(type(error).__name__, str(error))
        self._log(logging.WARNING, "failed", call, status=None, error=text)

    def _log(self, level: int, event: str, call: Call, *, status: int | None, error: str) -> None:
        _failure(
            level,
            event,
            error,
            _fields(
                call.platform, call.operation, call.attempt, call.max_attempts, status, call.correlation_id
            ),
        )

    def _observe(self, event: Event) -> None:
        if isinstance(event, RetryScheduled):
            error = event.error or f"HTTP {event.status}"
            _failure(
                logging.WARNING,
                "retry",
                error,
                _event_fields(event, event.max_attempts, event.status),
                retry_in_s=round(event.wait, 3),
            )
        elif isinstance(event, BodyFailed):
            _failure(
                logging.WARNING,
                "failed",
                _describe(event.error, event.text),
                _event_fields(event, event.max_attempts, event.status),
            )
        elif isinstance(event, CircuitChanged):
            _emit(
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
            _emit(
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
            _emit(
                logging.INFO,
                "not_retried",
                "%s %s is not sent again: %s",
                (event.platform, event.operation, event.reason),
                {**_event_fields(event, event.max_attempts, event.status), "reason": event.reason},
            )


def _describe(error: str, text: str) -> str:
    return f"{error}: {one_line(text)}" if text else error


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


def _failure(level: int, event: str, error: str, fields: dict[str, Any], **more: Any) -> None:
    """The guide's record of a failed attempt."""
    _emit(
        level,
        event,
        "%s %s failed (attempt %s/%s): %s",
        (fields["connector"], fields["operation"], fields["attempt"], fields["max_retries"], error),
        {**fields, "error": error, **more},
    )


def _emit(level: int, event: str, message: str, args: tuple[Any, ...], fields: dict[str, Any]) -> None:
    if logger.isEnabledFor(level):
        logger.log(level, message, *args, extra={"event": event, **fields})


def configure_logging(
    *, json: bool = True, level: int | str = "INFO", stream: TextIO | None = None
) -> logging.Handler:
    """Write the records of `aragora_transport` to `stream` (default stderr), by default as JSON lines.

    Calling it again replaces the handler of the time before. Returns the handler.
    """
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
    logger.setLevel(level)
    return handler
