"""What comes of a request: an answer, read to its end, or an error; and how either becomes a result."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from aragora_transport import errors
from aragora_transport._redact import one_line
from aragora_transport._sending import is_tls_verification
from aragora_transport.result import ConnectorResult

if TYPE_CHECKING:
    from aragora_transport._call import Call
    from aragora_transport._flavor import Flavor
    from aragora_transport.profile import Judgement

# Where a platform gives no code of its own, the status has a name that programs can go by.
CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    409: "conflict",
    413: "too_large",
    422: "unprocessable",
    429: "rate_limited",
}


class Answer:
    """One answer with its body, and how to turn it into a result.

    `status`, `headers`, `body`: as they came. `judged`: what the platform's profile says of it.
    `retryable`: whether the same request may work later. `call`: the record of the call.
    """

    def __init__(
        self,
        response: Any,
        body: bytes,
        *,
        judged: Judgement,
        retryable: bool,
        hide: Callable[[str], str],
    ) -> None:
        self.status: int = response.status_code
        self.headers: Any = response.headers
        self.body = body
        self.judged = judged
        self.retryable = retryable
        self.call: Call = response.extensions["aragora_transport"]
        self._hide = hide

    @property
    def ok(self) -> bool:
        """Whether status and profile call it a success. A redirect is none: it is not followed."""
        return self.status < 300 and not self.judged.failed

    @functools.cached_property
    def json(self) -> Any:
        """The body as JSON, or `None` where it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):  # not JSON, not UTF-8, a number or a depth beyond reason
            return None

    @property
    def text(self) -> str:
        """The body as one line of text, cut to 300 characters."""
        return one_line(self.body[:2000].decode(errors="replace").strip())

    @property
    def fields(self) -> dict[str, Any]:
        """The body's JSON object; empty where it is none."""
        return fields_of(self.json)

    @property
    def repeated(self) -> bool:
        """Whether an earlier attempt of the call may have been carried out: it was lost, or not refused."""
        earlier = self.call.history
        return any(attempt.status is None or not 400 <= attempt.status < 500 for attempt in earlier)

    def success(self, data: Any) -> ConnectorResult:
        """It worked. What is no object is put into one: `items` for a list, `result` for the rest."""
        if isinstance(data, list):
            data = {"items": data, "next_cursor": None}  # pyright: ignore[reportUnknownVariableType]  # JSON
        elif not isinstance(data, dict):
            data = {} if data is None else {"result": data}
        return ConnectorResult.success(
            data,
            status_code=self.status,
            attempts=len(self.call.attempts),
            correlation_id=self.call.correlation_id,
        )

    def failure(self, error: object = None, *, code: str | None = None, data: Any = None) -> ConnectorResult:
        """It did not. `error`: the platform's words, `code`: its code; by default what the answer tells."""
        code = code or self.judged.code or CODES.get(self.status) or f"http_{self.status}"
        told = one_line(error) if isinstance(error, str) and error else self.text
        call = self.call
        return ConnectorResult.failure(
            self._hide(f"{call.platform} {call.operation}: {self.status}" + (f" {told}" if told else "")),
            code=code,
            retryable=self.retryable,
            data=data,
            status_code=self.status,
            retry_after=call.retry_after if call.retry_after is not None else self.judged.wait,
            attempts=len(call.attempts),
            correlation_id=call.correlation_id,
        )

    def unreadable(self) -> ConnectorResult:
        """A success by its status, whose body is not what the platform promises."""
        return self.failure(f"an answer that cannot be read: {self.text}", code="invalid_response")


def fields_of(value: Any) -> dict[str, Any]:
    """`value` where it is a JSON object; empty where it is none, whatever a platform sends."""
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]  # JSON


def items_of(value: Any) -> list[Any] | None:
    """`value` where it is a JSON array."""
    return value if isinstance(value, list) else None  # pyright: ignore[reportUnknownVariableType]  # JSON


async def read_body(response: Any, limit: int) -> bytes | None:
    """The whole body; `None` where it is longer than `limit` bytes."""
    chunks: list[bytes] = []
    size = 0
    async with aclosing(response.aiter_bytes()) as body:
        async for chunk in body:
            size += len(chunk)
            if size > limit:
                return None
            chunks.append(chunk)
    return b"".join(chunks)


OURS = (
    errors.CircuitOpenError,
    errors.RateLimitedError,
    errors.DeadlineExceededError,
    errors.TokenRefreshError,
)


def code_of(error: Exception, flavor: Flavor) -> tuple[str, bool]:
    """A name for what happened, and whether the same request may work later."""
    if is_tls_verification(error):
        return "tls_error", False
    if isinstance(error, errors.TokenRefreshError):
        return error.code or "no_token", error.retryable
    kinds: dict[str, tuple[Any, bool]] = {
        "circuit_open": (errors.CircuitOpenError, True),
        "rate_limited": (errors.RateLimitedError, True),
        "timeout": (flavor.TimeoutException, True),
        "invalid_request": (flavor.local, False),
        "network_error": (flavor.TransportError, True),
        "invalid_response": (Exception, False),  # such as a body that is not compressed as it says
    }
    return next((code, retryable) for code, (kind, retryable) in kinds.items() if isinstance(error, kind))
