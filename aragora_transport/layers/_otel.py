"""What OpenTelemetry is told, by its stable semantic conventions for HTTP clients.

The only file that imports opentelemetry, and its API alone: the SDK is the application's. Nothing that
fails here reaches a call; `Tracing.failures` counts it.

https://opentelemetry.io/docs/specs/semconv/http/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aragora_transport._redact import HIDDEN, one_line, redact

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, SpanKind, TracerProvider

    from aragora_transport.profile import Profile

NAME = "aragora_transport"  # the instrumentation scope
DURATION = "http.client.request.duration"
# Seconds: what the conventions advise for this histogram.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
)  # RFC 9110, 9.1 and RFC 5789: others become _OTHER
_PORTS = {"http": 80, "https": 443}


class Tracing:
    """Where spans and durations go to.

    `tracer_provider`, `meter_provider`: of the SDK (default: the ones that the program has set up for
        all, also where it does so later).
    `propagate`: whether the platform is sent a `traceparent` header with each attempt. Baggage never is.

    Raises `ImportError` where opentelemetry is not installed.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        propagate: bool = True,
    ) -> None:
        try:
            from opentelemetry import context, metrics, trace  # noqa: PLC0415  # optional
            from opentelemetry.trace.propagation import tracecontext  # noqa: PLC0415  # optional
        except ImportError as error:
            raise ImportError(
                "tracing needs the package opentelemetry-api, which is not installed; "
                "install it by pip install 'aragora-transport[otel]'"
            ) from error
        self._context = context
        self._trace = trace
        self._tracer = trace.get_tracer(NAME, tracer_provider=tracer_provider)
        self._duration = metrics.get_meter(NAME, meter_provider=meter_provider).create_histogram(
            DURATION,
            unit="s",
            description="Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._propagator = tracecontext.TraceContextTextMapPropagator() if propagate else None
        self.failures = 0  # of tracers, processors and meters that raised

    def begin(self, name: str, request: Any, profile: Profile, **more: Any) -> Span:
        """A span of the whole call, under the current span."""
        return self._begin(self._trace.SpanKind.INTERNAL, name, request, profile, more)

    def begin_send(self, request: Any, profile: Profile, sends_before: int) -> Span:
        """A span of one send, under the current span."""
        method = request.method if request.method in _METHODS else "HTTP"
        more = {"http.request.resend_count": sends_before} if sends_before else {}
        return self._begin(self._trace.SpanKind.CLIENT, method, request, profile, more)

    def _begin(self, kind: SpanKind, name: str, request: Any, profile: Profile, more: dict[str, Any]) -> Span:
        try:
            attributes = {**target_of(request), "url.full": url_of(request, profile), **more}
            if request.method not in _METHODS:
                attributes["http.request.method_original"] = request.method
            return self._tracer.start_span(name, kind=kind, attributes=attributes)
        except Exception:  # noqa: BLE001  # no failure of telemetry reaches a call
            self.failures += 1
            return self._trace.NonRecordingSpan(self._trace.get_current_span().get_span_context())

    def enter(self, span: Span) -> Any:
        """Make it the current span; returns what `leave` takes."""
        return self._context.attach(self._trace.set_span_in_context(span))

    def leave(self, token: Any) -> None:
        """Let the span before it be the current one again."""
        self._context.detach(token)

    def headers(self, span: Span) -> dict[str, str]:
        """What tells the server whose child its own span is."""
        found: dict[str, str] = {}
        if self._propagator is not None:
            self._propagator.inject(found, self._trace.set_span_in_context(span))
        return found

    def end(self, span: Span, attributes: dict[str, Any]) -> None:
        """End the span: as a failure where the attributes name an `error.type`."""
        try:
            span.set_attributes(attributes)
            if "error.type" in attributes:
                span.set_status(self._trace.StatusCode.ERROR)  # no text: it would be foreign
            span.end()
        except Exception:  # noqa: BLE001  # as in begin
            self.failures += 1

    def measure(self, span: Span, seconds: float, attributes: dict[str, Any]) -> None:
        """Count a request in the histogram, with the span as its exemplar."""
        try:
            self._duration.record(seconds, attributes, self._trace.set_span_in_context(span))
        except Exception:  # noqa: BLE001  # as in begin
            self.failures += 1


def target_of(request: Any) -> dict[str, Any]:
    """Whom a request goes to, and by which method: what spans and the metric have in common."""
    method, url = request.method, request.url
    return {
        "http.request.method": method if method in _METHODS else "_OTHER",
        "server.address": url.host,
        "server.port": url.port or _PORTS.get(url.scheme, 0),
    }


def outcome_of(status: int | None, failure: str | None) -> dict[str, Any]:
    """What came of a request: the status where there is one, and how it failed where it did."""
    found: dict[str, Any] = {}
    if status is not None:
        found["http.response.status_code"] = status
        if status >= 400 and failure is None:  # HTTP's border between answers and errors
            failure = str(status)
    if failure is not None:
        found["error.type"] = one_line(failure)  # the platform's own code is foreign text
    return found


def url_of(request: Any, profile: Profile) -> str:
    """The request's URL with all in it hidden that could be a secret, as the conventions show that."""
    text = redact(str(request.url.copy_with(fragment=None)))
    for secret in profile.secrets_in(text):
        text = text.replace(secret, HIDDEN)
    return text.replace(f"://{HIDDEN}@", "://REDACTED:REDACTED@").replace(HIDDEN, "REDACTED")
