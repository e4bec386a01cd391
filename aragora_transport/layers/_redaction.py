"""Secrets taken out of the log records of others: of httpx, of what lies below it, and of your handlers.

A filter on a logger is not asked about the records of the loggers below it, so each one gets it.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from aragora_transport._redact import HIDDEN, is_secret, redact

WITHHELD = "[a log record withheld: it could not be redacted]"
_LOGGERS = (
    *("httpx", "httpx2"),
    *(
        f"{core}.{part}"
        for core in ("httpcore", "httpcore2")
        for part in ("connection", "http11", "http2", "proxy", "socks")
    ),
    *("hpack.hpack", "hpack.table"),
)
_FAMILIES = ("httpx", "httpx2", "httpcore", "httpcore2", "hpack")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_DEEPEST = 8  # values in values in values that are looked into
_format = logging.Formatter()


class _Redaction(logging.Filter):
    """Rewrites a record where it shows a secret; lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            _redact_record(record)
        except Exception:  # noqa: BLE001  # whatever it holds: rather no record than a secret
            for name in vars(record).keys() - _STANDARD:
                delattr(record, name)
            record.msg, record.args = WITHHELD, None
            record.exc_info = record.exc_text = record.stack_info = None
        return True


REDACTION: Final = _Redaction()


def install_log_redaction(*handlers: logging.Handler) -> None:
    """Keep secrets out of the records of httpx, httpcore and hpack, and of httpx2 and httpcore2.

    httpx writes the whole URL of each request at INFO; the others write headers at DEBUG. Their loggers
    get a filter that puts `[redacted]` in place of what a name, a place in a URL, its own shape or a
    `Secret` gives away. What hpack shows as bytes, from which headers can be read, is left out.

    `handlers`: of your own, which get the same filter: it then sees every record that they write. What
    cannot be redacted is withheld, with a note in its place. Calling it again changes nothing.
    """
    known = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in _FAMILIES]
    for name in (*_LOGGERS, *known):
        logger = logging.getLogger(name)
        for place in (logger, *logger.handlers):
            place.addFilter(REDACTION)
    for handler in handlers:
        handler.addFilter(REDACTION)


def _redact_record(record: logging.LogRecord) -> None:
    if record.name.startswith("hpack") and isinstance(record.args, tuple):
        record.args = tuple(
            _sized(one) if isinstance(one, bytes | memoryview) else one for one in record.args
        )
    given: Any = record.msg
    if isinstance(given, dict):  # as structlog hands its events on
        record.msg = clean(given)
    else:
        message = record.getMessage()
        clean_message = redact(message)
        if clean_message != message:  # else the record stays one that can be grouped by its format
            record.msg, record.args = clean_message, None
    for name in vars(record).keys() - _STANDARD:
        setattr(record, name, clean(getattr(record, name), name))
    if record.exc_info:
        told = record.exc_text or _format.formatException(record.exc_info)
        clean_told = redact(told)
        if clean_told != told:
            record.exc_info, record.exc_text = None, clean_told
    elif record.exc_text:
        record.exc_text = redact(record.exc_text)
    if record.stack_info:
        record.stack_info = redact(record.stack_info)


def clean(value: Any, name: str = "", depth: int = 0) -> Any:
    """A field of a record without secrets: bytes by their size alone, text redacted, also inside."""
    kind = type(value)  # pyright: ignore[reportUnknownVariableType]  # anything may come
    if issubclass(kind, str):
        return HIDDEN if is_secret(name) else redact(value)
    if issubclass(kind, bytes | bytearray | memoryview):
        return _sized(value)
    if issubclass(kind, dict | list | tuple | set | frozenset) and depth == _DEEPEST:
        return "..."
    if issubclass(kind, dict):
        return {key: clean(one, key if isinstance(key, str) else "", depth + 1) for key, one in value.items()}
    if issubclass(kind, list | tuple | set | frozenset):
        return [clean(one, name, depth + 1) for one in value]
    return value


def _sized(value: Any) -> str:
    return f"<{len(value)} bytes>"
