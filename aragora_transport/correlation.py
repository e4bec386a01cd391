"""The correlation id: one short word that ties a call's log records, record, result and error together."""

from __future__ import annotations

import re
import secrets
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator

_CLEAN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+=-]{0,127}")
_ASGI, _OTEL = "asgi_correlation_id.context", "opentelemetry.trace"
current: ContextVar[str | None] = ContextVar("aragora_transport.correlation_id", default=None)
current_id = current.get  # by a name of its own: every call asks


def new_id() -> str:
    """32 random hexadecimal digits: also a valid W3C trace id."""
    return secrets.token_hex(16)


def clean_id(value: object) -> str | None:
    """`value` where it is safe to log and to send: 1 to 128 characters of a plain set; else `None`."""
    if isinstance(value, str) and _CLEAN.fullmatch(value):
        return value
    return None


def others_loaded() -> bool:
    """Whether anybody is there who may have an id: quicker to know than the id."""
    return _ASGI in sys.modules or _OTEL in sys.modules


def _loaded(module: str, name: str) -> Any:
    """What a module that somebody else has imported holds by a name; never imported for it."""
    return getattr(sys.modules.get(module), name, None)


def _span_context() -> Any:
    """OpenTelemetry's of the span that is open here, or `None`."""
    current_span = _loaded(_OTEL, "get_current_span")
    try:
        found = None if current_span is None else current_span().get_span_context()
    except Exception:  # noqa: BLE001  # of somebody else's; an id is not worth a call
        return None
    return found if found is not None and found.is_valid else None


def sampled_trace() -> str | None:
    """The trace id of the span that is open here, where it is sampled: only then can it be looked up."""
    span = _span_context()
    return format(span.trace_id, "032x") if span is not None and span.trace_flags.sampled else None


def found_id() -> str | None:
    """The id that others have for what runs here: asgi-correlation-id, else OpenTelemetry's trace id."""
    theirs = _loaded(_ASGI, "correlation_id")
    try:
        found = None if theirs is None else clean_id(theirs.get())
    except Exception:  # noqa: BLE001  # as above
        found = None
    if found is None and (span := _span_context()) is not None:
        found = format(span.trace_id, "032x")
    return found


def correlation_id() -> str | None:
    """The id that a call made here would go by, or `None` where it would get a new one.

    That of the `correlation_scope`, else of asgi-correlation-id, else OpenTelemetry's trace id.
    """
    return current.get() or found_id()


@contextmanager
def correlation_scope(value: str | None = None) -> Generator[str]:
    """Give every call made inside the same correlation id, also in tasks started inside.

    `value` from outside is cleaned: letters, digits and `._:@/+=-`, at most 128 characters; anything
    else, or `None`, is replaced by a new id. Yields the id that holds.
    """
    held = clean_id(value) or new_id()
    token = current.set(held)
    try:
        yield held
    finally:
        current.reset(token)
