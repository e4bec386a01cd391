"""The correlation id: one short word that ties a call's log records, record, result and error together."""

from __future__ import annotations

import re
import secrets
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

_CLEAN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+=-]{0,127}")
current: ContextVar[str | None] = ContextVar("aragora_transport.correlation_id", default=None)


def new_id() -> str:
    """32 random hexadecimal digits: also a valid W3C trace id."""
    return secrets.token_hex(16)


def clean_id(value: object) -> str | None:
    """`value` where it is safe to log and to send: 1 to 128 characters of a plain set; else `None`."""
    if isinstance(value, str) and _CLEAN.fullmatch(value):
        return value
    return None


def correlation_id() -> str | None:
    """The id of the current `correlation_scope`, or `None` outside of one."""
    return current.get()


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
