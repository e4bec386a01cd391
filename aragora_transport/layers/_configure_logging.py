"""Where our records go, if the application asks for it. The only file that imports pythonjsonlogger."""

from __future__ import annotations

import json as json_module
import logging
import math
from typing import Any, TextIO

from aragora_transport.layers._redaction import clean

logger = logging.getLogger("aragora_transport")
logger.addHandler(logging.NullHandler())


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
                ["levelname", "name", "message"],
                timestamp=True,
                rename_fields={"levelname": "level"},
                json_serializer=_as_json,
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


def _as_json(record: Any, **options: Any) -> str:
    """A record as a line of JSON, which has neither bytes nor numbers without an end."""
    return json_module.dumps(_sound(clean(record)), **options)


def _sound(value: Any) -> Any:
    kind = type(value)  # pyright: ignore[reportUnknownVariableType]  # anything may come
    if issubclass(kind, float):
        return value if math.isfinite(value) else None
    if issubclass(kind, dict):
        return {key: _sound(one) for key, one in value.items()}
    return [_sound(one) for one in value] if issubclass(kind, list) else value
