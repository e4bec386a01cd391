"""What one request asks for, in place of its policy's numbers."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aragora_transport.policy import RESEND_UNSAFE, ResendUnsafe

RECORD = "aragora_transport"  # in request.extensions the caller's options, in response.extensions the record
_LONGEST = sys.float_info.max  # seconds: more than this cannot be added to a clock's reading


@dataclass(frozen=True, kw_only=True, slots=True)
class CallOptions:
    """What one request asks for; see `call_options`."""

    operation: str | None = None
    idempotent: bool | None = None
    total_timeout: float | None = None
    attempt_timeout: float | None = None
    max_attempts: int | None = None
    rate_key: str | None = None
    max_gate_wait: float | None = None
    resend_unsafe: ResendUnsafe | None = None
    begun: Callable[[Any], object] | None = None  # given the call when it begins: for connectors

    def __post_init__(self) -> None:
        for name in ("total_timeout", "attempt_timeout"):
            value: Any = getattr(self, name)
            if value is not None and not (_is_number(value, int | float) and 0 < value <= _LONGEST):
                raise _refused(name, value, "seconds above 0, or None")
        longest: Any = self.max_gate_wait
        if longest is not None and not (_is_number(longest, int | float) and 0 <= longest <= _LONGEST):
            raise _refused("max_gate_wait", longest, "seconds of at least 0, or None")
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
        if self.resend_unsafe is not None and self.resend_unsafe not in RESEND_UNSAFE:
            raise _refused("resend_unsafe", self.resend_unsafe, f"one of {', '.join(RESEND_UNSAFE)}, or None")

    @property
    def changes_retries(self) -> bool:
        """Whether these decide on sending again."""
        return (self.max_attempts, self.idempotent, self.resend_unsafe) != (None, None, None)


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
    max_gate_wait: float | None = None,
    resend_unsafe: ResendUnsafe | None = None,
) -> dict[str, Any]:
    """Options for one request, to pass as httpx's `extensions=`.

    `operation`: the name in logs and metrics, such as "send_message" (default: the HTTP method).
    `idempotent`: whether sending it twice is harmless (default: by method and `Idempotency-Key`).
    `total_timeout`, `attempt_timeout`: seconds, in place of the policy's.
    `max_attempts`: sends in all, in place of the policy's.
    `rate_key`: the rate-limit bucket, in place of the platform's.
    `max_gate_wait`: seconds that it may wait for a rate limit; with 0 it is refused at once.
    `resend_unsafe`: what may be sent again of a POST or PATCH, in place of the policy's.

    Raises `ValueError` for values that make no sense.
    """
    options = CallOptions(
        operation=operation,
        idempotent=idempotent,
        total_timeout=total_timeout,
        attempt_timeout=attempt_timeout,
        max_attempts=max_attempts,
        rate_key=rate_key,
        max_gate_wait=max_gate_wait,
        resend_unsafe=resend_unsafe,
    )
    return {RECORD: options}


def operation_of(request: Any, options: object) -> str:
    if type(options) is not CallOptions:
        raise TypeError(
            f"extensions[{RECORD!r}] is {reprlib.repr(options)}, but it must be what call_options() "
            "makes: pass extensions=call_options(...), or {**call_options(...), ...} beside others"
        )
    return options.operation or request.method
