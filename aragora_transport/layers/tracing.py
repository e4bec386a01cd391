"""A span for each call: from its beginning to the end of its body, with all attempts and waits inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aragora_transport.layers._otel import outcome_of
from aragora_transport.layers._traced import Traced

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from aragora_transport._call import Call


class TracingTransport(Traced):
    """The outermost layer: an internal span of OpenTelemetry for each call.

    It is no client span: the conventions keep that kind for what goes over the wire, which
    `AttemptTracingTransport` tells of.

    `tracing`: where spans go to; a new `Tracing()` by default. Raises `ImportError` where
    opentelemetry is not installed.
    """

    async def handle(self, request: Any, call: Call) -> Any:
        tracing = self.tracing
        span = tracing.begin(
            f"{call.platform} {call.operation}",
            request,
            self._profile,
            **{
                "aragora_transport.platform": call.platform,
                "aragora_transport.operation": call.operation,
                "aragora_transport.correlation_id": call.correlation_id,
            },
        )
        token = tracing.enter(span)
        try:
            response = await self.next(request, call)
        except BaseException as error:
            call.error = type(error).__name__  # as the scope is about to: the last attempt counts
            self._end(span, call, call.error)
            raise
        finally:
            tracing.leave(token)

        def ended(call: Call, error: BaseException | None, _complete: bool) -> None:
            self._end(span, call, call.hidden if error is None else type(error).__name__)

        call.hooks = (ended, *call.hooks)
        return response

    def _end(self, span: Span, call: Call, failure: str | None) -> None:
        outcome = outcome_of(call.status, failure)
        self.tracing.end(span, {**outcome, "aragora_transport.attempts": len(call.attempts)})
