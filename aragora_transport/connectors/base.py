"""`ChatPlatformConnector`: the base class of the error handling guide, with its options and helpers.

A connector that was written by the guide works on it as it is. Its circuit is the one of the stack.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from aragora_transport._options import call_options
from aragora_transport.connectors._connector import Connector
from aragora_transport.stack import resilient

if TYPE_CHECKING:
    from aragora_transport.connectors._answer import Answer
    from aragora_transport.result import ConnectorResult

T = TypeVar("T")

_TRANSIENT = (httpx.TransportError, OSError)  # timeouts of asyncio and of sockets are OSErrors


class ChatPlatformConnector(Connector):
    """A chat platform's client, with the guide's helpers for connectors that bring their own requests.

        class MyConnector(ChatPlatformConnector):
            async def get_user(self, user_id):
                success, data, error = await self._http_request(
                    method="GET", url=f"{API}/users/{user_id}", operation="get_user"
                )

    For the arguments see `Connector`.
    """

    platform_name = ""  # that of the class below

    async def _http_request(
        self,
        method: str,
        url: str,
        headers: dict[str, str] | None = None,
        json: Any = None,
        data: Any = None,
        content: Any = None,
        files: Any = None,
        params: Any = None,
        max_retries: int | None = None,
        timeout: float | None = None,
        operation: str = "http_request",
    ) -> tuple[bool, Any, str | None]:
        """Send a request by the guide's table; returns `(success, data, error)`, and does not raise.

        `data` is the JSON object or array of the answer; `{}` where it has no body, `{"text": ...}` where
        it is neither.
        `max_retries`: sends in all (default the policy's, 3). `timeout`: seconds of one attempt.
        """
        result = await self._request(
            method,
            url,
            operation=operation,
            read=_plain,
            headers=headers,
            json=json,
            data=data,
            content=content,
            files=files,
            params=params,
            resend_unsafe=None,  # as the policy says: the guide's table holds for every method
            max_attempts=max_retries,
            attempt_timeout=timeout,
        )
        if not result.success:
            return False, None, result.error
        assert result.data is not None  # noqa: S101  # _plain() put it there
        return True, result.data["data"], None

    async def _with_retry(
        self,
        operation: str,
        func: Callable[..., Awaitable[T]],
        *args: Any,
        max_retries: int | None = None,
        retryable_exceptions: tuple[type[Exception], ...] = _TRANSIENT,
        **kwargs: Any,
    ) -> T:
        """Await `func(*args, **kwargs)` under the same stack: retries, limits, circuit, metrics, logs.

        For what does not send through this connector, such as an SDK's method. What it raises is tried
        again where it is one of `retryable_exceptions` or an `httpx.HTTPStatusError` with a retryable
        status, up to `max_retries` tries in all (default the policy's, 3).

        Raises the last error of `func`, or `CircuitOpenError` and its like where it was not called.
        """
        function = _Function(lambda: func(*args, **kwargs), retryable_exceptions)
        stack = resilient(
            self.platform_name,
            function,
            policy=self.policy,
            registry=self._registry,
            state=self.stack.state,
            profile=self._profile,
        )
        options = call_options(operation=operation, idempotent=True, max_attempts=max_retries)
        request = httpx.Request("POST", "https://function.invalid/", extensions=options)
        try:
            await stack.handle_async_request(request)
        except httpx.TransportError:
            if function.error is None:
                raise  # a limit of ours ended it, or it was not called at all
        if function.error is not None:
            raise function.error
        value: T = function.value
        return value

    def _check_circuit_breaker(self) -> tuple[bool, str | None]:
        """Whether a request would be let through now, and why not."""
        circuit = self.stack.circuits().get(self.platform_name)
        if circuit is None or circuit["state"] != "open" or not circuit["next_probe_in"]:
            return True, None
        return False, f"{self.platform_name}: circuit open; next probe in {circuit['next_probe_in']:.3g} s"

    def _record_success(self) -> None:
        """Count a success of something that was not sent through this connector."""
        if self.policy.breaker is not None:
            self.stack.record()

    def _record_failure(self, error: Exception | None = None) -> None:
        """Count a failure of something that was not sent through this connector."""
        if self.policy.breaker is not None:
            self.stack.record(failure="failure" if error is None else type(error).__name__)

    def _is_retryable_status_code(self, status_code: int) -> bool:
        """Whether an answer with this status is sent again: 429, 500, 502, 503, 504 by default."""
        return status_code in self._statuses


class _Function(httpx.AsyncBaseTransport):
    """A function in the place of the network, so that the stack's layers serve it as they serve requests."""

    value: Any = None
    error: Exception | None = None

    def __init__(
        self, function: Callable[[], Awaitable[Any]], retryable: tuple[type[Exception], ...]
    ) -> None:
        self._function = function
        self._retryable = retryable

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.error = None
        try:
            self.value = await self._function()
        except httpx.HTTPStatusError as error:
            self.error = error
            told = {k: v for k, v in error.response.headers.items() if not k.startswith("content-")}
            return httpx.Response(error.response.status_code, headers=told)
        except self._retryable as error:
            self.error = error
            if isinstance(error, httpx.TransportError):
                raise
            raise httpx.NetworkError(str(error), request=request) from error
        return httpx.Response(200)


def _plain(answer: Answer) -> ConnectorResult:
    """The JSON of an answer as it is."""
    if not answer.ok:
        return answer.failure()
    data: Any = answer.json if answer.body else {}
    if not isinstance(data, dict | list):
        data = {"text": answer.body.decode(errors="replace")}
    return answer.success({"data": data})
