"""The guide's Prometheus metrics. The only file that imports prometheus_client.

Calls are counted once, as the caller saw them, when their body has ended; what happened inside is read
from the call object. Children are cached: `.labels()` costs more than everything else here.
"""

from __future__ import annotations

import re
import reprlib
import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from aragora_transport import errors
from aragora_transport._body import watch
from aragora_transport._call import CALL
from aragora_transport._clock import SYSTEM
from aragora_transport.events import CircuitChanged, Observers, RateLimitWaited, RetryRefused
from aragora_transport.layers._layer import Layer
from aragora_transport.profile import PLAIN, judge

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from aragora_transport._call import Attempt, Call
    from aragora_transport._clock import Clock
    from aragora_transport.events import Event
    from aragora_transport.profile import Profile

BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)  # seconds
MAX_OPERATIONS = 100  # names per platform; more become "other"
_NAME = re.compile(r"[A-Za-z0-9_.:/\- ]{1,100}")
_STATES = {"closed": 0, "open": 1, "half-open": 2}
_ERROR_LABELS = {
    "CircuitOpenError": "circuit_open",
    "RateLimitedError": "rate_limited",
    "DeadlineExceededError": "timeout",
    "ConnectTimeout": "timeout",
    "ReadTimeout": "timeout",
    "WriteTimeout": "timeout",
    "PoolTimeout": "timeout",
    "ConnectError": "connect_error",
    "ReadError": "read_error",
    "WriteError": "read_error",
    "CloseError": "read_error",
    "RemoteProtocolError": "protocol_error",
    "LocalProtocolError": "protocol_error",
    "CancelledError": "cancelled",
    "Cancelled": "cancelled",
    "GeneratorExit": "cancelled",
}


class MetricsTransport(Layer):
    """Counts calls, latencies, retries, circuit states and rate-limit decisions.

    `registry`: a `prometheus_client.CollectorRegistry` (default prometheus_client's own). Several
    layers on one registry share one set of metrics. Nothing that fails here reaches a call;
    `platform_telemetry_errors_total` counts it.
    """

    def __init__(
        self,
        below: Any,
        *,
        registry: CollectorRegistry | None = None,
        profile: Profile = PLAIN,
        platform: str = "default",
        clock: Clock = SYSTEM,
    ) -> None:
        super().__init__(below, platform=platform, clock=clock)
        self._profile = profile
        self.metrics = metric_set(registry)
        self._telemetry_errors = self.metrics.telemetry_errors.labels("metrics")
        self.metrics.circuit_state.labels(platform)  # there from the start, as 0
        self.observer = Observers(self._observe)
        self._lock = threading.Lock()
        self._operations: dict[str, str] = {}
        self._children: dict[tuple[Any, ...], Any] = {}

    async def handle_async_request(self, request: Any) -> Any:
        call: Call | None = request.extensions.get(CALL)
        if call is None:
            return await self._alone(request, MetricsTransport.handle_async_request)
        call.observers = (*call.observers, self.observer)
        try:
            response = await self.below.handle_async_request(request)
            if not self._profile.plain:
                await judge(self._profile, response, call, self.flavor)
        except BaseException as error:
            self._finish(call, error_label(error))
            raise
        call.status = response.status_code
        watch(response, call, self.flavor).on_end(self._body_ended)
        return response

    def _body_ended(self, call: Call, error: BaseException | None, complete: bool) -> None:
        del complete  # a body closed early by the caller is no failure of the platform's
        if error is None and call.status is not None:
            self._finish(call, _status_label(call.status, call.hidden))
        else:
            self._finish(call, error_label(error))

    def _finish(self, call: Call, status: str) -> None:
        try:
            self._count(call, status)
        except Exception:  # noqa: BLE001  # no failure of telemetry reaches a call
            self._telemetry_failed()

    def _count(self, call: Call, status: str) -> None:
        metrics, platform = self.metrics, call.platform
        operation = self._operation(call.operation)
        self._child(metrics.requests, platform, operation, status).inc()
        self._child(metrics.latency, platform, operation).observe(call.clock.monotonic() - call.began)
        for attempt in call.history:
            self._child(metrics.attempts, platform, operation, _attempt_label(attempt)).inc()
        if len(call.history) < call.attempt and not call.gated and status != "circuit_open":
            self._child(metrics.attempts, platform, operation, status).inc()
        if call.attempt > 1:
            self._child(metrics.retries, platform, operation).inc(call.attempt - 1)
            if status.isdigit() and int(status) < 400:  # an answer that is no error
                self._child(metrics.retry_successes, platform, operation).inc()
        # Those that were held and then let through are among the blocked; so is the one a gate holds yet.
        allowed = call.gates_passed - call.gates_blocked + call.gated
        if allowed:
            self._child(metrics.rate_limit, platform, "allowed").inc(allowed)
        if call.gates_blocked:
            self._child(metrics.rate_limit, platform, "blocked").inc(call.gates_blocked)

    def _telemetry_failed(self) -> None:
        try:
            self._telemetry_errors.inc()
        except Exception:  # noqa: BLE001, S110  # then nothing can be counted any more
            pass

    def _observe(self, event: Event) -> None:
        try:
            self._count_event(event)
        except Exception:  # noqa: BLE001  # as in _finish
            self._telemetry_failed()

    def _count_event(self, event: Event) -> None:
        metrics = self.metrics
        if isinstance(event, CircuitChanged):
            self._child(metrics.circuit_state, event.platform).set(_STATES[event.worst])
        elif isinstance(event, RetryRefused):
            self._child(metrics.refused, event.platform, event.reason).inc()
        elif isinstance(event, RateLimitWaited) and not event.refused:
            self._child(metrics.gate_wait, event.platform).observe(event.seconds)

    def _child(self, metric: Any, *labels: str) -> Any:
        key = (metric, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    def _operation(self, name: str) -> str:
        """The label for an operation: callers name it, so the number of names must have an end."""
        label = self._operations.get(name)
        if label is None:
            with self._lock:
                if len(self._operations) >= MAX_OPERATIONS or not _NAME.fullmatch(name):
                    self.metrics.overflow.labels("operation").inc()
                    return "other"
                label = self._operations[name] = name
        return label


def error_label(error: BaseException | None) -> str:
    """The `status` label of a call that ended in an error; one of a closed set."""
    if isinstance(error, errors.DeadlineExceededError) and error.limit == "total":
        return "deadline_exceeded"
    for kind in type(error).__mro__:
        label = _ERROR_LABELS.get(kind.__name__)
        if label is not None:
            return label
    return "error"


def _attempt_label(attempt: Attempt) -> str:
    if attempt.status is None:
        return _ERROR_LABELS.get(attempt.error or "", "error")
    return _status_label(attempt.status, attempt.error)


def _status_label(status: int, hidden: str | None) -> str:
    if hidden is not None:
        return "api_error"
    return str(status) if status < 600 else "other"  # a server may make up what it likes


class MetricSet:
    """The metric families of one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        from prometheus_client import Counter, Gauge, Histogram  # noqa: PLC0415  # see metric_set

        def counter(name: str, help_: str, *labels: str) -> Counter:
            return Counter(f"platform_{name}", help_, labels, registry=registry)

        call = ("platform", "operation")
        self.requests = counter("requests_total", "Calls as their callers saw them.", *call, "status")
        self.latency = Histogram(
            "platform_request_latency_seconds",
            "From the beginning of a call to the end of its body.",
            call,
            buckets=BUCKETS,
            registry=registry,
        )
        self.attempts = counter("attempts_total", "Sends, by what came back.", *call, "status")
        self.retries = counter("retry_total", "Sends after the first one of a call.", *call)
        self.retry_successes = counter("retry_success_total", "Calls that a retry saved.", *call)
        self.refused = counter("retry_refused_total", "Failures that were final.", "platform", "reason")
        self.rate_limit = counter("rate_limit_total", "Attempts at the gate.", "platform", "result")
        self.gate_wait = Histogram(
            "platform_rate_limit_wait_seconds",
            "Time that attempts were held at the gate.",
            ("platform",),
            buckets=(0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 60.0, 300.0),
            registry=registry,
        )
        self.circuit_state = Gauge(
            "platform_circuit_breaker_state",
            "The worst circuit of the platform: 0 closed, 1 open, 2 half-open.",
            ("platform",),
            registry=registry,
            multiprocess_mode="liveall",  # one series per process: no sum or maximum of codes means anything
        )
        self.overflow = counter("label_overflow_total", "Label values that became 'other'.", "label")
        self.telemetry_errors = counter("telemetry_errors_total", "Failures to record.", "where")


_sets: WeakKeyDictionary[Any, MetricSet] = WeakKeyDictionary()
_sets_lock = threading.Lock()


def metric_set(registry: CollectorRegistry | None = None) -> MetricSet:
    """The one metric set of a registry; a second one would be refused by it as a duplicate."""
    # Not loaded by those who switch metrics off.
    from prometheus_client import REGISTRY, CollectorRegistry  # noqa: PLC0415

    chosen: Any = REGISTRY if registry is None else registry
    if not isinstance(chosen, CollectorRegistry):
        raise TypeError(f"registry={reprlib.repr(chosen)} must be a prometheus_client.CollectorRegistry")
    with _sets_lock:
        known = _sets.get(chosen)
        if known is None:
            try:
                known = _sets[chosen] = MetricSet(chosen)
            except ValueError as error:
                raise ValueError(
                    f"the registry has a metric by a name of ours already ({error}); give another registry=, "
                    "or metrics=False in the Policy"
                ) from error
        return known
