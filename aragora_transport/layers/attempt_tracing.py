"""A span and a duration for each send, and the header that makes the server's own span a child of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aragora_transport._flavor import copy_of
from aragora_transport.layers._otel import outcome_of, target_of
from aragora_transport.layers._traced import Traced

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from aragora_transport._call import Call


class AttemptTracingTransport(Traced):
    """Around each send: a client span of OpenTelemetry, and `http.client.request.duration`.

    Both end with the headers, as the conventions advise where callers may leave a body unread; what
    becomes of the body is told by the span of the call. A send that fails has both as well.

    The request goes on as a copy with a `traceparent` of its own: the caller's stays as it is.

    `tracing`: where spans and durations go to; a new `Tracing()` by default. Raises `ImportError` where
    opentelemetry is not installed.
    """

    async def handle(self, request: Any, call: Call) -> Any:
        tracing = self.tracing
        span = tracing.begin_send(request, self._profile, call.attempt - 1)
        token = tracing.enter(span)
        began = call.scope.now()
        try:
            response = await self.next(with_headers(request, tracing.headers(span)), call)
        except BaseException as error:
            self._end(span, call, request, began, outcome_of(None, type(error).__name__))
            raise
        finally:
            tracing.leave(token)
        outcome = outcome_of(response.status_code, None)
        version: bytes | None = response.extensions.get("http_version")
        if version is not None:
            outcome["network.protocol.version"] = version.decode("ascii", "replace").removeprefix("HTTP/")
        self._end(span, call, request, began, outcome)
        return response

    def _end(self, span: Span, call: Call, request: Any, began: float, outcome: dict[str, Any]) -> None:
        seconds = call.scope.now() - began
        self.tracing.measure(span, seconds, {**target_of(request), **outcome})
        self.tracing.end(span, outcome)


def with_headers(request: Any, headers: dict[str, str]) -> Any:
    """A copy of the request with these headers; its body and extensions are the request's own."""
    if not headers:
        return request
    both = type(request.headers)(request.headers.raw)
    both.update(headers)
    return copy_of(request, headers=both)
