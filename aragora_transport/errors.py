"""The errors of our own. Each is also the httpx error that callers already catch.

Under httpx2 the layers raise subclasses of these that are httpx2's errors as well (see `_flavor`), so
`except CircuitOpenError` catches either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import httpx

if TYPE_CHECKING:
    from aragora_transport._call import Call


class Described:
    """Keeps the arguments, so that the error survives pickling, and reads well."""

    _fields: ClassVar[tuple[str, ...]]
    _correlation_id: str | None = None
    call: Call | None = None  # that it ended

    @property
    def correlation_id(self) -> str | None:
        """Of the call, as every error that leaves one has it."""
        return self._correlation_id if self.call is None else self.call.correlation_id

    @correlation_id.setter
    def correlation_id(self, value: str | None) -> None:
        self._correlation_id = value
        self.call = None

    def __reduce__(self) -> tuple[Any, ...]:
        # The request stays behind: its stream and extensions belong to a process.
        fields = {name: getattr(self, name) for name in self._fields}
        return _rebuild, (type(self), fields), {"correlation_id": self.correlation_id}


def _rebuild(cls: type[Any], fields: dict[str, Any]) -> Any:
    return cls(**fields)


class CircuitOpenError(Described, httpx.TransportError):
    """Refused without sending: the circuit of `key` is open.

    `retry_after`: seconds to the next probe (0 while probes of others are under way).
    `failures`, `cause`: what opened it, such as `5` and `"503"`.
    """

    __slots__ = _fields = ("platform", "operation", "key", "retry_after", "failures", "cause")

    def __init__(  # noqa: PLR0917  # by place is quicker, and refusing must cost less than a request
        self,
        platform: str,
        operation: str,
        key: str,
        retry_after: float,
        failures: int = 0,
        cause: str | None = None,
        request: Any = None,
    ) -> None:
        self.platform = platform
        self.operation = operation
        self.key = key
        self.retry_after = retry_after
        self.failures = failures
        self.cause = cause
        super().__init__("", request=request)

    def __str__(self) -> str:
        # Built only when somebody reads it: refusing must cost less than a request.
        last = f" (last: {self.cause})" if self.cause else ""
        many = f"{self.failures} failure" if self.failures == 1 else f"{self.failures} failures"
        why = f"circuit open after {many}{last}" if self.failures else "circuit open"
        if self.retry_after == float("inf"):
            follows = "it was isolated by hand and stays open until reset()"
        elif self.retry_after > 0:
            follows = f"next probe in {self.retry_after:.3g} s"
        else:
            follows = "a probe is under way"
        return f"{self.platform} {self.operation}: {why}; {follows}"


class RateLimitedError(Described, httpx.TransportError):
    """Refused without sending: the gate of `key` stays closed longer than this call may wait.

    `retry_after`: seconds until it opens. `reason`: "wait_too_long", "deadline", "max_gate_wait",
    "queue_full" or "in_flight".
    """

    __slots__ = _fields = ("platform", "operation", "key", "retry_after", "reason")

    def __init__(
        self,
        *,
        platform: str,
        operation: str,
        key: str,
        retry_after: float,
        reason: str,
        request: Any = None,
    ) -> None:
        self.platform = platform
        self.operation = operation
        self.key = key
        self.retry_after = retry_after
        self.reason = reason
        super().__init__("", request=request)

    def __str__(self) -> str:
        if self.reason == "in_flight":
            return (
                f"{self.platform} {self.operation}: as many requests of {self.key!r} are under way as "
                "max_in_flight allows, and none ended in time; try again when one has"
            )
        why = {
            "wait_too_long": "that is longer than max_retry_after",
            "deadline": "that is past the call's deadline",
            "max_gate_wait": "that is longer than this call's max_gate_wait",
            "queue_full": "too many calls wait for it already",
        }.get(self.reason, self.reason)
        return (
            f"{self.platform} {self.operation}: rate limited, the gate of {self.key!r} opens in "
            f"{self.retry_after:.3g} s and {why}; try again after that"
        )


class TokenRefreshError(Described, httpx.TransportError):
    """Not sent: there is no token to send it with, because the last one has run out and no other came.

    `reason`: why, in words. `code`: the same for programs, such as "invalid_grant", where it is known.
    `retryable`: whether asking again later may help; if not, somebody has to look at the credentials.
    """

    __slots__ = _fields = ("platform", "operation", "reason", "code", "retryable")

    def __init__(
        self,
        *,
        platform: str,
        operation: str,
        reason: str,
        code: str | None = None,
        retryable: bool = False,
        request: Any = None,
    ) -> None:
        self.platform = platform
        self.operation = operation
        self.reason = reason
        self.code = code
        self.retryable = retryable
        super().__init__("", request=request)

    def __str__(self) -> str:
        follows = "the next call asks again" if self.retryable else "look at the credentials"
        return f"{self.platform} {self.operation}: no token: {self.reason}; {follows}"


class DeadlineExceededError(Described, httpx.TimeoutException):
    """A limit of ours ran out.

    `limit`: "attempt", "total" or "body_idle"; `seconds`: how long it was.
    `attempt`: which send it was (1 is the first); `elapsed`: seconds since the call began.
    `last`: what the attempt before ended with, such as `"503"`, where there was one.
    """

    __slots__ = _fields = ("platform", "operation", "limit", "seconds", "attempt", "elapsed", "last")

    def __init__(
        self,
        *,
        platform: str,
        operation: str,
        limit: str,
        seconds: float,
        attempt: int,
        elapsed: float,
        last: str | None = None,
        request: Any = None,
    ) -> None:
        self.platform = platform
        self.operation = operation
        self.limit = limit
        self.seconds = seconds
        self.attempt = attempt
        self.elapsed = elapsed
        self.last = last
        super().__init__("", request=request)

    def __str__(self) -> str:
        last = f" (before that: {self.last})" if self.last else ""
        return (
            f"{self.platform} {self.operation}: no end within the {self.limit} limit of {self.seconds:g} s, "
            f"in attempt {self.attempt}, {self.elapsed:.3g} s after the call began{last}"
        )


def __getattr__(name: str) -> Any:
    # The httpx2 twins are made on demand; unpickling asks for them by name.
    if name.endswith("_httpx2") and not name.startswith("_"):
        from aragora_transport._flavor import flavor  # noqa: PLC0415  # httpx2 is optional

        return getattr(flavor("httpx2"), name.removesuffix("_httpx2"))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
